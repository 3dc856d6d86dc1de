// Photos in rows, below headings for each batch and day; only visible rows are rendered.

import { useCallback, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { renditionUrl, State, stateName, type Task } from "../../api/api";
import { type Filter, toQuery } from "../../api/filter";
import { ago, day, reason, stateLabel } from "../../format";
import { Icon } from "../../parts/icons";
import { Thumbnail } from "../../parts/thumbnail";
import { Virtual, type VirtualRow } from "../../parts/virtual";
import { link } from "../../router";
import { isSelected, isSelecting, toggle } from "../../state/selection";
import type { TaskList } from "../../state/tasks";
import { texts } from "../../texts";

const words = texts.photos;
const GAP = 16;
const NARROWEST = 216;
const CAPTION = 72;
const HEADING = 52;
const PLACEHOLDERS = 6;

interface Props {
  list: TaskList;
  inProgress: readonly Task[];
  filter: Filter;
}

export function Gallery({ list, inProgress, filter }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const watcher = new ResizeObserver(([entry]) => setWidth(entry!.contentRect.width));
    watcher.observe(box.current!);
    return () => watcher.disconnect();
  }, []);
  const items = list.items.value;
  const columns = Math.max(2, Math.floor((width + GAP) / (NARROWEST + GAP)));
  const height = Math.round((((width - (columns - 1) * GAP) / columns) * 3) / 4) + CAPTION;
  const rows = useMemo(
    () => layout(inProgress.slice(0, PLACEHOLDERS), items, columns, height, !filter.batch),
    [inProgress, items, columns, height, filter.batch],
  );
  const more = useCallback(() => void list.more(), [list]);
  return (
    <div
      ref={box}
      class={`cards ${isSelecting.value ? "selecting" : ""}`}
      style={{ "--columns": columns }}
      data-count={items.length}
    >
      {width > 0 && (
        <Virtual
          rows={rows.map((row) => ({ ...row, render: () => <Row row={row} items={items} filter={filter} /> }))}
          more={more}
          complete={list.complete.value}
        />
      )}
    </div>
  );
}

interface Group {
  batch: string;
  day: string;
}
type Laid = Omit<VirtualRow, "render"> & { group?: Group; tasks: Task[] };

/** Put tasks into rows; consecutive ones of one batch and day stand below one heading. */
function layout(waiting: Task[], items: readonly Task[], columns: number, height: number, headings: boolean): Laid[] {
  const rows: Laid[] = [];
  let group: Group | undefined;
  let row: Laid | undefined;
  for (const task of [...waiting, ...items]) {
    const here = { batch: task.batch, day: day(task.created) };
    if (headings && (group?.batch !== here.batch || group.day !== here.day)) {
      group = here;
      row = undefined;
      rows.push({ key: `heading ${task.id}`, height: HEADING, group, tasks: [] });
    }
    if (!row || row.tasks.length === columns) {
      row = { key: task.id, height, tasks: [] };
      rows.push(row);
    }
    row.tasks.push(task);
  }
  return rows;
}

function Row({ row, items, filter }: { row: Laid; items: readonly Task[]; filter: Filter }) {
  if (row.group) return <Heading group={row.group} />;
  return (
    <div class="cells">
      {row.tasks.map((task) =>
        task.state === State.waiting || task.state === State.working ? (
          <InProgress key={task.id} task={task} />
        ) : (
          <Card key={task.id} task={task} items={items} filter={filter} />
        ),
      )}
    </div>
  );
}

const Heading = ({ group }: { group: Group }) => (
  <h3 class="group">
    {group.batch && <a href={link("batches", group.batch)}>{group.batch}</a>}
    <span class="quiet">{group.day}</span>
  </h3>
);

function Card({ task, items, filter }: { task: Task; items: readonly Task[]; filter: Filter }) {
  const name = task.filename || task.id;
  const state = stateName(task.state);
  const selected = isSelected(task);
  const isFinished = state === "finished";
  const target = isFinished ? link("photos", task.id, toQuery(filter)) : link("tasks", task.id);
  return (
    <div class={`card ${selected ? "selected" : ""}`} data-id={task.id}>
      <a href={target} aria-label={isFinished ? `${name}, ${task.recipe}` : undefined}>
        {isFinished ? (
          <Thumbnail src={renditionUrl(task.id, smallest(task))} alt="" />
        ) : (
          <span class={`failure ${state}`}>
            <span class="hidden">{name}</span>
            <Icon name="warning" />
            <b>{stateLabel(state)}</b>
            <small>{reason(task)}</small>
          </span>
        )}
      </a>
      <label class="pick">
        <input
          type="checkbox"
          checked={selected}
          onClick={(event) => toggle(task, items, event.shiftKey)}
          aria-label={words.select(name)}
        />
        <Icon name="check" />
      </label>
      <p class="name" title={name} dir="auto">
        {name}
      </p>
      <p class="quiet">
        {task.recipe} · {ago(task.changed)}
      </p>
    </div>
  );
}

const InProgress = ({ task }: { task: Task }) => (
  <div class="card in-progress-card">
    <a href={link("tasks", task.id)} aria-label={`${task.filename || task.id}, ${stateLabel(stateName(task.state))}`}>
      <span class="shimmer" />
    </a>
    <p class="name" dir="auto">{task.filename || task.id}</p>
    <p class="quiet">{stateLabel(stateName(task.state))}</p>
  </div>
);

/** The output that costs least to show. */
export function smallest(task: Task): string | undefined {
  const fit = task.outputs.filter((output) => output.width >= 240);
  return (fit.length ? fit : task.outputs).reduce(
    (best, output) => (!best || output.size < best.size ? output : best),
    undefined as Task["outputs"][number] | undefined,
  )?.name;
}
