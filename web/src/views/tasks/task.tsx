// The page of a task: its attempts, its events as they happen, its original, recipe and outputs, and its actions.

import { useCallback, useEffect, useMemo, useState } from "preact/hooks";
import { type Attempt, attempts } from "../../state/attempts";
import {
  actOnTasks,
  getTask,
  getTaskEvents,
  getTaskRecipe,
  type NamedRecipe,
  originalUrl,
  renditionUrl,
  resultUrl,
  State,
  stateName,
  type Task,
  type TaskEvent,
} from "../../api/api";
import { ago, bytes, dateTime, dimensions, kind, outputNotes, reason, seconds, stateLabel } from "../../format";
import { follow } from "../../api/live";
import { asking } from "../../state/questions";
import { Icon } from "../../parts/icons";
import { Loading, useReading } from "../../parts/reading";
import { Thumbnail } from "../../parts/thumbnail";
import { copy } from "../../state/clipboard";
import { attempt } from "../../state/messages";
import { recipes } from "../../state/recipes";
import { may } from "../../state/session";
import { go, link, useSubject } from "../../router";
import { texts } from "../../texts";
import { toToml } from "../../toml";
import { actionsOf, type Holder } from "./actions";

const words = texts.task;

/** Events and those that came after them. */
const joined = (known: TaskEvent[], more: TaskEvent[]) => [...known, ...more.filter((event) => event.seq > (known.at(-1)?.seq ?? 0))];

/** Keep a task and its events current. */
function useTask(id: string) {
  const [task, setTask] = useState<Task | undefined>();
  const [events, setEvents] = useState<TaskEvent[]>([]);
  const [gone, setGone] = useState(false);
  // Answers may arrive out of order.
  const take = (now: Task) => setTask((known) => (known && known.seq > now.seq ? known : now));
  const read = useCallback(async () => {
    const [now, page] = await Promise.all([getTask(id), getTaskEvents(id)]);
    take(now);
    setEvents((known) => joined(page.events, known));
  }, [id]);
  const error = useReading(read);
  useEffect(() => {
    let left = false;
    const stop = follow({
      changed: (found) => {
        const mine = found.filter((event) => event.task === id);
        if (!mine.length) return;
        if (mine.some((event) => event.kind === "deleted")) setGone(true);
        setEvents((known) => joined(known, mine));
        void getTask(id)
          .then((now) => left || take(now))
          .catch(() => undefined);
      },
      missed: () => undefined,
    });
    return () => {
      left = true;
      stop();
    };
  }, [id]);
  return { task, setTask, events, error, gone };
}

export function TaskPage({ id }: { id: string }) {
  const { task, setTask, events, error, gone } = useTask(id);
  const name = task && (task.filename || task.id);
  useSubject(name ?? "");
  if (error && !task) return <Unread error={error} />;
  if (!task) return <Loading />;
  const state = stateName(task.state);
  const holder: Holder = { put: setTask, forget: () => go("tasks") };
  return (
    <section class="task-page" aria-labelledby="task">
      <a href={link("tasks")}>
        <Icon name="left" /> {words.back}
      </a>
      <div class="bar">
        <h1 id="task">{name}</h1>
        <span class={`state ${state}`} role="status">
          <i /> {gone ? words.deleted : stateLabel(state)}
        </span>
        {!gone && <Actions task={task} holder={holder} />}
      </div>
      <p class={task.failure ? "error" : "quiet"}>{reason(task)}</p>
      <div class="columns">
        <div>
          <Attempts found={attempts(events)} task={task} />
          <Events events={events} />
        </div>
        <div>
          <Facts task={task} />
          <Notes task={task} />
          <Files task={task} />
          <Recipe id={id} />
        </div>
      </div>
    </section>
  );
}

const Unread = ({ error }: { error: string }) => (
  <section class="task-page">
    <a href={link("tasks")}>{words.back}</a>
    <p class="empty">{error}</p>
  </section>
);

function Actions({ task, holder }: { task: Task; holder: Holder }) {
  const rerun = async () => {
    const recipe = await asking({
      title: words.rerunQuestion,
      text: texts.selection.consequence.rerun,
      action: texts.selection.actions.rerun,
      choice: { label: texts.filters.recipe, options: recipes.value.map((one) => one.name), value: task.recipe },
    });
    if (recipe === undefined) return;
    const made = await attempt(() =>
      actOnTasks({ action: "rerun", tasks: [task.id], filter: null, recipe, before: null, limit: 1 }),
    );
    const id = made?.created[0];
    if (id) go("tasks", id);
  };
  return (
    <span class="actions">
      {actionsOf(stateName(task.state)).map((action) => (
        <button key={action.name} onClick={() => void attempt(() => action.run(task, holder))}>
          <Icon name={action.icon} /> {texts.selection.actions[action.name]}
        </button>
      ))}
      {task.input && may("operate") && (
        <button onClick={() => void rerun()}>
          <Icon name="recipes" /> {texts.selection.actions.rerun}
        </button>
      )}
      <button class="plain round" aria-label={words.copy} title={words.copy} onClick={() => void copy(location.href, words.copied)}>
        <Icon name="link" />
      </button>
    </span>
  );
}

function Attempts({ found, task }: { found: Attempt[]; task: Task }) {
  const none = task.reused ? words.notNeeded : task.state <= State.working ? words.noAttempts : words.noAttempt;
  return (
    <section class="panel" aria-labelledby="attempts">
      <h2 id="attempts">{words.attempts}</h2>
      {found.length === 0 && <p class="quiet">{none}</p>}
      <ol class="attempts">
        {found.map((one) => (
          <li key={one.began}>
            <b>{words.attempt(one.number)}</b>
            <span class={`state ${one.outcome === "finished" ? "finished" : one.outcome === "running" ? "working" : "failed"}`}>
              <i /> {words.outcomes[one.outcome]}
            </span>
            <span class="quiet">
              {words.worker(one.worker || words.classicWorker)} · {dateTime(one.began)}
              {one.ended ? ` · ${seconds(one.ended - one.began)}` : ""}
              {one.seconds ? ` (${words.processing(seconds(one.seconds))})` : ""}
            </span>
            {one.failure && (
              <p>
                {one.failure.detail} <code>{one.failure.code}</code>
              </p>
            )}
          </li>
        ))}
      </ol>
    </section>
  );
}

const Events = ({ events }: { events: TaskEvent[] }) => (
  <section class="panel" aria-labelledby="events">
    <h2 id="events">{words.events}</h2>
    <ol class="events" aria-live="polite">
      {events.map((event) => (
        <li key={event.seq}>
          <time title={dateTime(event.at)}>{dateTime(event.at)}</time> {words.kinds[event.kind] ?? event.kind}
        </li>
      ))}
    </ol>
  </section>
);

function Facts({ task }: { task: Task }) {
  const facts: [string, preact.ComponentChildren][] = [
    [words.id, <code key="id">{task.id}</code>],
    [texts.filters.recipe, <a key="r" href={link("recipes", task.recipe)}>{task.recipe}</a>],
    [texts.batches.batch, task.batch && <a key="b" href={link("batches", task.batch)}>{task.batch}</a>],
    [words.created, `${dateTime(task.created)} (${ago(task.created)})`],
    [words.priority, task.priority ? String(task.priority) : ""],
    [words.errors, task.errors ? String(task.errors) : ""],
    [words.deaths, task.deaths ? String(task.deaths) : ""],
    [words.engine, task.engine],
  ];
  return (
    <section class="panel" aria-labelledby="facts">
      <h2 id="facts">{words.facts}</h2>
      <dl class="facts">
        {facts
          .filter(([, value]) => value)
          .map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
      </dl>
    </section>
  );
}

/** What was wrong with a photo that was read all the same. */
function Notes({ task }: { task: Task }) {
  const notes = outputNotes(task);
  if (notes.length === 0) return null;
  return (
    <section class="panel" aria-labelledby="notes">
      <h2 id="notes">{words.notes}</h2>
      <ul class="notes">
        {notes.map((note) => (
          <li key={note}>{note}</li>
        ))}
      </ul>
    </section>
  );
}

function Files({ task }: { task: Task }) {
  return (
    <section class="panel" aria-labelledby="files">
      <h2 id="files">{words.files}</h2>
      <ul class="files">
        {task.input && (
          <li>
            <Thumbnail src={renditionUrl(task.id)} alt="" />
            <span class="name">
              {words.original}
              <span class="quiet">{[kind(task.media_type), bytes(task.input.size)].filter(Boolean).join(" · ")}</span>
            </span>
            <a class="button plain round" href={originalUrl(task.id)} download aria-label={words.downloadOriginal}>
              <Icon name="download" />
            </a>
          </li>
        )}
        {task.outputs.map((output) => (
          <li key={output.name}>
            <Thumbnail src={renditionUrl(task.id, output.name)} alt="" />
            <span class="name">
              {output.name}
              <span class="quiet">
                {[kind(output.media_type), dimensions(output.width, output.height), bytes(output.size)].filter(Boolean).join(" · ")}
              </span>
            </span>
            <a class="button plain round" href={resultUrl(task.id, output.name)} download aria-label={words.download(output.name)}>
              <Icon name="download" />
            </a>
          </li>
        ))}
      </ul>
      {task.state === State.finished && (
        <a class="button" href={link("photos", task.id)}>
          <Icon name="compare" /> {words.view}
        </a>
      )}
    </section>
  );
}

function Recipe({ id }: { id: string }) {
  const [found, setFound] = useState<NamedRecipe | undefined>();
  useEffect(() => {
    void getTaskRecipe(id)
      .then(setFound)
      .catch(() => undefined);
  }, [id]);
  const written = useMemo(() => (found ? toToml(found.spec) : ""), [found]);
  if (!found) return null;
  return (
    <details class="panel">
      <summary>{words.recipe(found.name)}</summary>
      <pre tabIndex={0}>{written}</pre>
    </details>
  );
}
