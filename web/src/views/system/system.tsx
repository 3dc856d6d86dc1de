// The state of the system: services, workers, queue, recent statistics, quarantined tasks.

import { signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import {
  getLastHour,
  getServices,
  getStorage,
  type Minute,
  Problem,
  releaseTask,
} from "../../api/api";
import type { Service, StorageInfo, Task } from "../../api/api";
import { ago, bytes, count, dateTime, reason, seconds } from "../../format";
import { follow } from "../../api/live";
import { may, me, runsSystem } from "../../state/session";
import { Icon } from "../../parts/icons";
import { attempt } from "../../state/messages";
import { link, query } from "../../router";
import { changeQueue, changeRecipe, loadSummary, summary } from "../../state/queue";
import { TaskList } from "../../state/tasks";
import { texts } from "../../texts";
import { DELETE } from "../tasks/actions";
import { loadStatistics, Spans } from "./spans";
import { loadWebhookCalls, WebhookCalls } from "./webhooks";
import { Workers } from "./workers";

const words = texts.system;
const AFTER_CHANGES = 1500;
const AT_LEAST_EVERY = 15000;

const minutes = signal<Minute[]>([]);
const services = signal<Service[] | undefined>(undefined);
const storage = signal<StorageInfo | undefined>(undefined);
const error = signal("");

/** Each part is read by itself: one that does not answer leaves the others as they are. */
async function read(): Promise<void> {
  const problems = await Promise.all([
    part(loadSummary, () => undefined),
    part(getLastHour, (found) => (minutes.value = found.minutes)),
    me.value?.operator ? part(getServices, (found) => (services.value = found)) : "",
    runsSystem() ? part(getStorage, (found) => (storage.value = found)) : "",
    part(loadStatistics, () => undefined),
    part(loadWebhookCalls, () => undefined),
  ]);
  error.value = problems.find((problem) => problem !== "") ?? "";
}

async function part<T>(ask: () => Promise<T>, take: (found: T) => void): Promise<string> {
  try {
    take(await ask());
    return "";
  } catch (problem) {
    return problem instanceof Problem ? problem.message : String(problem);
  }
}

/** Changes make it read soon; time alone (a worker that falls silent is no change) now and then. */
function useNumbers(span: string | undefined) {
  useEffect(() => {
    let timer: number | undefined;
    const soon = () => {
      timer ??= window.setTimeout(() => {
        timer = undefined;
        void read();
      }, AFTER_CHANGES);
    };
    void read();
    soon(); // A master counts changes with a delay: those of the last second are in the second answer.
    const stop = follow({ changed: soon, missed: soon });
    const clock = window.setInterval(() => document.visibilityState === "visible" && void read(), AT_LEAST_EVERY);
    return () => {
      stop();
      clearTimeout(timer);
      clearInterval(clock);
    };
  }, [span]);
}

export function System() {
  useNumbers(query.value.span);
  return (
    <div class="system">
      <div class="bar">
        <h1>{words.title}</h1>
        {may("operate") && summary.value && <PauseButton paused={summary.value.paused > 0} />}
      </div>
      {error.value && <p class="error">{error.value}</p>}
      <Notices />
      <Tiles />
      <Spans hour={minutes.value} />
      <Quarantine />
      <div class="pair">
        {me.value?.operator && <Services />}
        {runsSystem() && <Workers />}
      </div>
      <WebhookCalls />
    </div>
  );
}

function PauseButton({ paused }: { paused: boolean }) {
  return (
    <span class="actions">
      <button onClick={() => void changeQueue(!paused)}>
        <Icon name={paused ? "play" : "pause"} /> {paused ? words.resume : words.pause}
      </button>
    </span>
  );
}

/** What is paused: the queue, single recipes. */
function Notices() {
  const now = summary.value;
  if (!now) return null;
  return (
    <>
      {now.paused > 0 && (
        <p class="panel notice" role="status">
          <Icon name="pause" /> {words.paused(dateTime(now.paused))}
        </p>
      )}
      {Object.entries(now.paused_recipes).map(([name, since]) => (
        <p key={name} class="panel notice" role="status">
          <Icon name="pause" /> <span>{words.recipePaused(name, dateTime(since))}</span>
          {may("operate") && (
            <button aria-label={words.resumeRecipe(name)} onClick={() => void changeRecipe(name, false)}>
              <Icon name="play" /> {words.resumeIt}
            </button>
          )}
        </p>
      ))}
    </>
  );
}

function Tiles() {
  const now = summary.value;
  const hour = (...names: ("finished" | "failed" | "quarantined")[]) =>
    minutes.value.length ? count(minutes.value.reduce((sum, one) => sum + names.reduce((held, name) => held + one[name], 0), 0)) : undefined;
  const known = (value: number | undefined) => (now ? count(value ?? 0) : undefined);
  const tiles: [string, string | undefined, string?][] = [
    [words.waiting, known(now?.tasks.waiting), now?.delayed ? words.delayed(now.delayed) : ""],
    [words.working, known(now?.tasks.working)],
    [words.oldest, now && (now.oldest_waiting ? seconds(now.oldest_waiting) : "–")],
    [words.finished, hour("finished")],
    [words.failed, hour("failed", "quarantined")],
    [words.kept, now && bytes(now.bytes), room()],
  ];
  return (
    <dl class="tiles">
      {tiles.map(([name, value, more]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>
            {value ?? <span class="unknown">{texts.unknown}</span>}
            {more && <small class="quiet">{more}</small>}
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** What still fits on storage's disk; a bucket does not say. */
function room(): string {
  const { free, total } = storage.value ?? {};
  return free == null || total == null ? "" : words.free(bytes(free), bytes(total));
}

function Services() {
  return (
    <section class="panel" aria-labelledby="services">
      <h2 id="services">{words.services}</h2>
      {!services.value && <p class="quiet">{texts.unknown}</p>}
      <ul>
        {services.value?.map((service) => (
          <li key={service.name + service.address}>
            <span class={`state ${service.ready ? "finished" : "failed"}`}>
              <i /> {service.ready ? words.ready : words.notReady}
            </span>
            <b>{service.name}</b>
            <span class="quiet">{service.address}</span>
            {service.detail && <p class="quiet">{service.detail}</p>}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Quarantine() {
  const list = useMemo(() => new TaskList({ state: "quarantined" }, 50), []);
  useEffect(() => list.start(), [list]);
  const items = list.items.value;
  if (items.length === 0) return null;
  return (
    <section class="panel quarantine" aria-labelledby="quarantine">
      <h2 id="quarantine">{words.quarantine}</h2>
      <p class="quiet">{words.quarantineText}</p>
      <ul>
        {items.map((task) => (
          <Quarantined key={task.id} task={task} list={list} />
        ))}
      </ul>
      {!list.complete.value && <button onClick={() => void list.more()}>{texts.more}</button>}
    </section>
  );
}

function Quarantined({ task, list }: { task: Task; list: TaskList }) {
  const release = () =>
    attempt(async () => {
      await releaseTask(task.id);
      list.forget(task.id);
    });
  return (
    <li>
      <div>
        <a href={link("tasks", task.id)}>
          <b>{task.filename || task.id}</b>
        </a>
        <span class="quiet">
          {task.recipe} · {words.deaths(task.deaths)} · {ago(task.changed)}
        </span>
        <p>{reason(task)}</p>
      </div>
      {may("operate") && (
        <span class="actions">
          <button onClick={() => void release()}>
            <Icon name="release" /> {texts.selection.actions.release}
          </button>
          <button onClick={() => void attempt(() => DELETE.run(task, list))}>
            <Icon name="trash" /> {texts.selection.actions.delete}
          </button>
        </span>
      )}
    </li>
  );
}
