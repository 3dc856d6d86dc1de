// Shows /openapi.json. Text is only ever set as text.
"use strict";

function element(name, content, attributes = {}) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  for (const part of [content ?? []].flat()) made.append(part);
  return made;
}

function resolve(schema, description, seen = new Set()) {
  // Write a schema as the JSON that it asks for.
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    if (seen.has(name)) return `(${name})`;
    return resolve(description.components.schemas[name], description, new Set([...seen, name]));
  }
  const choices = (schema.anyOf ?? schema.oneOf)?.filter((choice) => choice.type !== "null");
  if (choices) return resolve(choices[0], description, seen);
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array" && schema.items) return [resolve(schema.items, description, seen)];
  if (schema.properties) {
    return Object.fromEntries(
      Object.entries(schema.properties).map(([key, value]) => [key, resolve(value, description, seen)]),
    );
  }
  return "default" in schema ? schema.default : `(${schema.type ?? "any"})`;
}

function shape(content, description) {
  return Object.entries(content ?? {}).map(([type, { schema, example }]) => {
    const text = JSON.stringify(example ?? resolve(schema, description), null, 2);
    return element("div", [element("p", element("code", type)), element("pre", text)]);
  });
}

function parameters(list) {
  const rows = list.map((one) =>
    element("tr", [
      element("td", element("code", one.name)),
      element("td", one.in),
      element("td", [one.description ?? "", one.schema.default === undefined ? "" : ` (default ${one.schema.default})`]),
    ]),
  );
  return element("table", [element("tbody", rows)]);
}

function operation(path, method, one, description) {
  const head = element("summary", [
    element("code", [element("span", method.toUpperCase(), { class: "method" }), path]),
    ` ${one.summary}`,
  ]);
  const body = [head];
  if (one.description) body.push(element("p", one.description));
  if (one.parameters) body.push(element("h4", "Parameters"), parameters(one.parameters));
  if (one.requestBody) body.push(element("h4", "Body"), ...shape(one.requestBody.content, description));
  body.push(element("h4", "Answers"));
  for (const [status, answer] of Object.entries(one.responses)) {
    body.push(element("p", [element("strong", status), ` ${answer.description}`]));
    if (status < 400) body.push(...shape(answer.content, description));
  }
  return element("details", body, { id: one.operationId });
}

function show(description) {
  document.getElementById("about").textContent = `${description.info.description} Version ${description.info.version}.`;
  const groups = description.tags.map((tag) => {
    const shown = [];
    for (const [path, methods] of Object.entries(description.paths)) {
      for (const [method, one] of Object.entries(methods)) {
        if (one.tags.includes(tag.name)) shown.push(operation(path, method, one, description));
      }
    }
    const title = element("h2", tag.name, { id: tag.name });
    return element("section", [title, element("p", tag.description), ...shown]);
  });
  document.getElementById("tags").replaceChildren(
    ...description.tags.map((tag) => element("a", tag.name, { href: `#${tag.name}` })),
  );
  document.getElementById("operations").replaceChildren(...groups);
}

fetch("openapi.json")
  .then((answer) => answer.json())
  .then(show)
  .catch((error) => document.getElementById("operations").replaceChildren(`The API could not be read: ${error}`));
