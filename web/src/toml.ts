// A recipe as TOML, as the service reads it.

import type { Recipe } from "./api/api";

const value = (given: unknown): string => {
  if (Array.isArray(given)) return `[${given.map(value).join(", ")}]`;
  if (given !== null && typeof given === "object") {
    return `{ ${pairs(given)
      .map(([name, inner]) => `${name} = ${value(inner)}`)
      .join(", ")} }`;
  }
  // JSON's strings, numbers and booleans are TOML's.
  return JSON.stringify(given);
};

const pairs = (given: object) => Object.entries(given).filter(([, inner]) => inner !== null && inner !== undefined);

export function toToml(recipe: Recipe): string {
  const { outputs, ...own } = recipe;
  const lines = pairs(own).map(([name, inner]) => `${name} = ${value(inner)}`);
  for (const [output, spec] of Object.entries(outputs)) {
    const { operations = [], ...fields } = spec;
    lines.push("", `[outputs.${output}]`, ...pairs(fields).map(([name, inner]) => `${name} = ${value(inner)}`));
    if (operations.length) lines.push("operations = [", ...operations.map((one) => `  ${value(one)},`), "]");
  }
  return `${lines.join("\n")}\n`;
}
