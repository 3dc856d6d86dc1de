// The JSON Schema of recipes from the service, from which the editor makes its fields.

import { signal } from "@preact/signals";
import { getSchema } from "./api";

export interface FieldSchema {
  type?: string;
  enum?: (string | number)[];
  anyOf?: FieldSchema[];
  default?: unknown;
  minimum?: number;
  maximum?: number;
  maxLength?: number;
  pattern?: string;
  description?: string;
  contentEncoding?: string;
}
export interface ObjectSchema {
  description?: string;
  properties: Record<string, FieldSchema>;
  required?: string[];
}
interface Known {
  OutputSpec?: ObjectSchema;
  byOp: Record<string, ObjectSchema>;
}

export const schema = signal<Known | undefined>(undefined);

export async function loadSchema(): Promise<void> {
  if (schema.value) return;
  const found = (await getSchema()).$defs as Record<string, ObjectSchema>;
  const operations = Object.values(found).flatMap((one) => {
    const op = one.properties.op?.enum?.[0];
    return op === undefined ? [] : [[String(op), one] as const];
  });
  schema.value = { ...(found.OutputSpec && { OutputSpec: found.OutputSpec }), byOp: Object.fromEntries(operations) };
}
