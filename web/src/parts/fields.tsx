// Form fields for what a schema describes: numbers, choices, switches, colours, texts, images.

import type { Operation } from "../api/api";
import { humanize } from "../format";
import type { FieldSchema, ObjectSchema } from "../api/schema";
import { texts } from "../texts";

type Values = Record<string, unknown>;
interface Props {
  of: ObjectSchema;
  value: Values;
  change: (next: Values) => void;
  only?: string[];
}

const LARGEST_SLIDER = 100;

/** A new operation, with a sensible value wherever one must be given. */
export function example(op: string, of: ObjectSchema): Operation {
  const needed: Values = { op };
  for (const [name, field] of Object.entries(of.properties)) {
    if (name === "op" || !of.required?.includes(name)) continue;
    if (field.enum) needed[name] = field.enum[0];
    else if (isColor(field)) needed[name] = "#b3492c";
    else if (field.type === "integer") needed[name] = 800;
    else if (field.type === "number") needed[name] = name === "angle" ? 90 : 2;
  }
  if (op === "resize") needed.width = 1200;
  if (op === "watermark") needed.text = "safelight";
  return needed as Operation;
}

export function Fields({ of, value, change, only }: Props) {
  const names = only ?? Object.keys(of.properties).filter((name) => name !== "op");
  if (names.length === 0) return null;
  return (
    <div class="fields">
      {names.map((name) => {
        const field = of.properties[name];
        if (!field) return null;
        const put = (next: unknown) => {
          const { [name]: _, ...others } = value;
          change(next === undefined ? others : { ...value, [name]: next });
        };
        return <Field key={name} name={name} field={given(field)} value={value[name] ?? field.default ?? ""} put={put} />;
      })}
    </div>
  );
}

/** What may be left out is described as "this or nothing". */
const given = (field: FieldSchema): FieldSchema => ({
  ...(field.anyOf?.find((one) => one.type !== "null") ?? field),
  default: field.default,
});
const isColor = (field: FieldSchema) => field.pattern?.includes("transparent") ?? false;

function Field(props: { name: string; field: FieldSchema; value: unknown; put: (next: unknown) => void }) {
  const { name, field, value, put } = props;
  const label = humanize(name);
  if (field.contentEncoding === "base64") return <ImageField label={label} value={value} put={put} />;
  if (field.type === "boolean") {
    return (
      <label class="switch">
        <input type="checkbox" checked={value === true} onChange={(event) => put(event.currentTarget.checked)} />
        <span>{label}</span>
      </label>
    );
  }
  return (
    <label>
      <span>{label}</span>
      {field.enum ? (
        <ChoiceField options={field.enum} value={value} put={put} />
      ) : field.type === "integer" || field.type === "number" ? (
        <NumberField field={field} value={value} put={put} label={label} />
      ) : isColor(field) ? (
        <input type="color" value={hex(String(value))} onInput={(event) => put(event.currentTarget.value)} />
      ) : (
        <input
          type="text"
          value={String(value)}
          maxLength={field.maxLength}
          onInput={(event) => put(event.currentTarget.value || undefined)}
        />
      )}
    </label>
  );
}

interface ChoiceProps {
  options: NonNullable<FieldSchema["enum"]>;
  value: unknown;
  put: (next: unknown) => void;
}

const ChoiceField = ({ options, value, put }: ChoiceProps) => (
  <select value={String(value)} onChange={(event) => put(options.find((one) => String(one) === event.currentTarget.value))}>
    {options.map((one) => (
      <option key={one} value={String(one)}>
        {one}
      </option>
    ))}
  </select>
);

function NumberField(props: { field: FieldSchema; value: unknown; put: (next: unknown) => void; label: string }) {
  const { field, value, put, label } = props;
  const { minimum = 0, maximum = Infinity } = field;
  const step = field.type === "integer" ? 1 : maximum - minimum > 20 ? 1 : 0.01;
  const take = (event: { currentTarget: HTMLInputElement }) => {
    const given = event.currentTarget.value;
    const exact = Math.min(maximum, Math.max(minimum, Number(given)));
    put(given === "" ? undefined : field.type === "integer" ? Math.round(exact) : exact);
  };
  const sliding = maximum - minimum <= 4 * LARGEST_SLIDER && value !== "";
  return (
    <span class="number">
      {sliding && (
        <input type="range" aria-label={label} min={minimum} max={maximum} step={step} value={Number(value)} onInput={take} />
      )}
      <input
        type="number"
        min={minimum}
        max={Number.isFinite(maximum) ? maximum : undefined}
        step={field.type === "integer" ? 1 : "any"}
        value={value as number | ""}
        placeholder={texts.editor.auto}
        onChange={take}
      />
    </span>
  );
}

const hex = (color: string) => {
  if (color === "white" || color === "transparent") return "#ffffff";
  if (color === "black") return "#000000";
  return color.length === 4 ? `#${[...color.slice(1)].map((c) => c + c).join("")}` : color.slice(0, 7);
};

function ImageField({ label, value, put }: { label: string; value: unknown; put: (next: unknown) => void }) {
  const read = async (event: { currentTarget: HTMLInputElement }) => {
    const file = event.currentTarget.files?.[0];
    if (!file) return;
    const data = new Uint8Array(await file.arrayBuffer());
    put(btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join("")));
  };
  return (
    <label>
      <span>
        {label} {value ? texts.editor.chosen : ""}
      </span>
      <input type="file" accept="image/png,image/jpeg,image/webp" onChange={(event) => void read(event)} />
    </label>
  );
}
