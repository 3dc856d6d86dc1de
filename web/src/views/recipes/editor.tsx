// The editor of a recipe: outputs, their operations in order, and the preview.

import { signal } from "@preact/signals";
import { connection } from "../../api/live";
import { type Operation, type OutputSpec } from "../../api/api";
import { draft, edit, editOutput, toAll } from "../../state/draft";
import { bytes, change as changeOf, humanize } from "../../format";
import { Fields, example } from "../../parts/fields";
import { Icon } from "../../parts/icons";
import { Loading, useReading } from "../../parts/reading";
import { say } from "../../state/messages";
import { schema, loadSchema } from "../../api/schema";
import { texts } from "../../texts";
import { made, original, Preview } from "./preview";

export const tab = signal("");
const words = texts.editor;
const dragged = signal<number | undefined>(undefined);
const OUTPUT_FIELDS = ["format", "quality", "effort", "lossless", "progressive", "metadata", "background"];

export function Editor() {
  const error = useReading(loadSchema);
  const outputs = draft.value.outputs;
  const names = Object.keys(outputs);
  const current = names.includes(tab.value) ? tab.value : (names[0] ?? "");
  const output = outputs[current];
  if (!schema.value || !output) {
    if (connection.value === "lost") return <p class="quiet">{texts.connection.long.lost}</p>;
    return error ? <p class="error">{error}</p> : <Loading />;
  }
  const change = (next: OutputSpec) => editOutput(current, next);
  return (
    <div class="editor">
      <div class="steps">
        <Tabs names={names} current={current} />
        <Operations output={output} change={change} />
        <details class="panel encoding">
          <summary>
            {words.encoding(String(output.format ?? "same"), output.quality ?? undefined)}
          </summary>
          <Fields of={schema.value.OutputSpec!} only={OUTPUT_FIELDS} value={output} change={change} />
        </details>
      </div>
      <Preview output={current} />
    </div>
  );
}

interface TabsProps {
  names: string[];
  current: string;
}

function Tabs({ names, current }: TabsProps) {
  const outputs = draft.value.outputs;
  const add = () => {
    const name = [...Array(17).keys()].map((n) => `output-${n + 1}`).find((free) => !names.includes(free))!;
    tab.value = name;
    edit({ ...draft.value, outputs: { ...outputs, [name]: structuredClone(outputs[current]!) } });
  };
  return (
    <div class="tabs">
      <div role="group" aria-label={words.outputs} class="filters">
        {names.map((name) => (
          <button key={name} aria-pressed={name === current} onClick={() => (tab.value = name)}>
            {name} <Size output={name} />
          </button>
        ))}
        <button class="plain" onClick={add} disabled={names.length >= 16}>
          <Icon name="plus" /> {words.output}
        </button>
      </div>
      <Naming names={names} current={current} />
    </div>
  );
}

/** The name of the output, and what concerns all outputs if there are several. */
function Naming({ names, current }: TabsProps) {
  const remove = () => {
    const { [current]: _, ...others } = draft.value.outputs;
    edit({ ...draft.value, outputs: others });
  };
  return (
    <div class="naming">
      <label>
        <span>{words.output}</span>
        <input
          value={current}
          onChange={(event) => {
            event.currentTarget.value = rename(names, current, event.currentTarget.value);
          }}
        />
      </label>
      {names.length > 1 && (
        <button class="plain round" aria-label={words.removeOutput(current)} onClick={remove}>
          <Icon name="trash" />
        </button>
      )}
      {names.length > 1 && (
        <label class="switch">
          <input type="checkbox" checked={toAll.value} onChange={(event) => (toAll.value = event.currentTarget.checked)} />
          <span>{words.toAll}</span>
        </label>
      )}
    </div>
  );
}

/** Rename an output, or say why not; returns the name that it has then. */
function rename(names: string[], current: string, to: string): string {
  if (to === current) return current;
  const isName = /^[a-z0-9][a-z0-9_-]{0,63}$/.test(to);
  if (!isName || names.includes(to)) {
    say(isName ? words.taken(to) : texts.recipes.nameRule, "bad");
    return current;
  }
  const outputs = Object.entries(draft.value.outputs);
  tab.value = to;
  edit({ ...draft.value, outputs: Object.fromEntries(outputs.map(([name, output]) => [name === current ? to : name, output])) });
  return to;
}

/** How large the output of the preview is, beside the photo. */
function Size({ output }: { output: string }) {
  const found = made.value?.outputs.find((one) => one.name === output);
  const before = original.value?.input?.size;
  if (!found || !before) return null;
  return (
    <small>
      {bytes(found.size)} ({changeOf(found.size, before)})
    </small>
  );
}

function Operations({ output, change }: { output: OutputSpec; change: (next: OutputSpec) => void }) {
  const operations = output.operations ?? [];
  const put = (next: Operation[]) => change({ ...output, operations: next });
  const move = (from: number, to: number) => {
    if (to < 0 || to >= operations.length || from === to) return;
    const next = [...operations];
    next.splice(to, 0, ...next.splice(from, 1));
    put(next);
  };
  return (
    <>
      <ol class="operations" aria-label={words.operations}>
        {operations.map((operation, place) => (
          <Step
            key={`${place}-${operation.op}`}
            operation={operation}
            place={place}
            last={operations.length - 1}
            move={move}
            remove={() => put(operations.filter((_, other) => other !== place))}
            change={(next) => put(operations.map((one, other) => (other === place ? next : one)))}
          />
        ))}
        {operations.length === 0 && <li class="none quiet">{words.none}</li>}
      </ol>
      <Add add={(operation) => put([...operations, operation])} full={operations.length >= 32} />
      <p class="hidden" role="status">
        {words.count(operations.length)}
      </p>
    </>
  );
}

interface StepProps {
  operation: Operation;
  place: number;
  last: number;
  move: (from: number, to: number) => void;
  remove: () => void;
  change: (next: Operation) => void;
}

function Step({ operation, place, last, move, remove, change }: StepProps) {
  const name = humanize(operation.op);
  const found = schema.value?.byOp[operation.op];
  const drop = (event: DragEvent) => {
    event.preventDefault();
    if (dragged.value !== undefined) move(dragged.value, place);
    dragged.value = undefined;
  };
  return (
    <li
      class={`step ${dragged.value === place ? "dragged" : ""}`}
      onDragOver={(event) => dragged.value !== undefined && event.preventDefault()}
      onDrop={drop}
    >
      <div class="head">
        <span
          class="grip"
          draggable
          aria-hidden="true"
          onDragStart={() => (dragged.value = place)}
          onDragEnd={() => (dragged.value = undefined)}
        >
          <Icon name="grip" />
        </span>
        <h3>{name}</h3>
        <span class="actions">
          <Move label={words.up(name)} icon="up" to={place - 1} {...{ place, last, move }} />
          <Move label={words.down(name)} icon="down" to={place + 1} {...{ place, last, move }} />
          <button class="plain round" aria-label={words.remove(name)} onClick={remove}>
            <Icon name="close" />
          </button>
        </span>
      </div>
      {found && <Fields of={found} value={operation} change={(next) => change(next as Operation)} />}
    </li>
  );
}

type MoveProps = Pick<StepProps, "place" | "last" | "move"> & { label: string; icon: "up" | "down"; to: number };

const Move = ({ label, icon, to, place, last, move }: MoveProps) => (
  <button class="plain round" aria-label={label} disabled={to < 0 || to > last} onClick={() => move(place, to)}>
    <Icon name={icon} />
  </button>
);

function Add({ add, full }: { add: (operation: Operation) => void; full: boolean }) {
  const known = Object.entries(schema.value?.byOp ?? {});
  return (
    <details class="add">
      <summary class={full ? "off" : ""}>
        <Icon name="plus" /> {words.add}
      </summary>
      <div class="choices">
        {known.map(([op, found]) => (
          <button key={op} title={found.description?.split("\n")[0]} disabled={full} onClick={() => add(example(op, found))}>
            {humanize(op)}
          </button>
        ))}
      </div>
    </details>
  );
}
