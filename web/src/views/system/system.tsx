// How the system is: services, workers, queue, the last hour, what failed and why, what is in quarantine.

import { signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import {
  countTasks,
  getLastHour,
  getServices,
  getSummary,
  type Minute,
  pauseQueue,
  Problem,
  releaseTask,
  resumeQueue,
} from "../../api/api";
import type { Service, Summary, Task, TaskCounts, Worker } from "../../api/api";
import { ago, bytes, count, dateTime, humanize, reason, reasonLabel, seconds } from "../../format";
import { follow } from "../../api/live";
import { me, may } from "../../access/session";
import { Chart } from "../../parts/chart";
import { confirmed } from "../../parts/confirm";
import { Icon } from "../../parts/icons";
import { attempt } from "../../parts/toast";
import { link } from "../../router";
import { TaskList } from "../../state/tasks";
import { texts } from "../../texts";
import { DELETE } from "../tasks/actions";

const words = texts.system;
const AFTER_CHANGES = 1500;
const AT_LEAST_EVERY = 15000;
/** Seconds after which a worker that says nothing is called silent, and after which it is gone. */
const SILENT_AFTER = 30;
const GONE_AFTER = 90;
/** The tenant whose people run the system, and so see its workers. */
const OPERATORS = "default";

const summary = signal<Summary | undefined>(undefined);
const minutes = signal<Minute[]>([]);
const services = signal<Service[] | undefined>(undefined);
const failures = signal<TaskCounts | undefined>(undefined);
const error = signal("");

/** Each part is read by itself: one that does not answer leaves the others as they are. */
async function read(): Promise<void> {
  const problems = await Promise.all([
    part(getSummary, (found) => (summary.value = found)),
    part(getLastHour, (found) => (minutes.value = found.minutes)),
    may("administer") ? part(getServices, (found) => (services.value = found)) : "",
    part(
      () => countTasks({ state: "failed,quarantined" }),
      (found) => (failures.value = found),
    ),
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
function useNumbers() {
  useEffect(() => {
    let timer: number | undefined;
    const soon = () => {
      timer ??= window.setTimeout(() => {
        timer = undefined;
        void read();
      }, AFTER_CHANGES);
    };
    void read();
    const stop = follow({ changed: soon, missed: soon });
    const clock = window.setInterval(() => document.visibilityState === "visible" && void read(), AT_LEAST_EVERY);
    return () => {
      stop();
      clearTimeout(timer);
      clearInterval(clock);
    };
  }, []);
}

export function System() {
  useNumbers();
  return (
    <div class="system">
      <div class="bar">
        <h1>{words.title}</h1>
        {may("operate") && summary.value && <PauseButton paused={summary.value.paused > 0} />}
      </div>
      {error.value && <p class="error">{error.value}</p>}
      {summary.value && summary.value.paused > 0 && (
        <p class="panel notice" role="status">
          <Icon name="pause" /> {words.paused(dateTime(summary.value.paused))}
        </p>
      )}
      <Tiles />
      <Charts />
      <Failures />
      <Quarantine />
      <div class="pair">
        {may("administer") && <Services />}
        {me.value?.tenant === OPERATORS && <Workers />}
      </div>
    </div>
  );
}

function PauseButton({ paused }: { paused: boolean }) {
  const change = async () => {
    const question = { title: words.pauseQuestion, text: words.pauseText, action: words.pause };
    if (!paused && !(await confirmed(question))) return;
    const found = await attempt(paused ? resumeQueue : pauseQueue);
    if (found) summary.value = found;
  };
  return (
    <span class="actions">
      <button onClick={() => void change()}>
        <Icon name={paused ? "play" : "pause"} /> {paused ? words.resume : words.pause}
      </button>
    </span>
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
    [words.kept, now && bytes(now.bytes)],
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

function Charts() {
  const hour = minutes.value;
  if (hour.length === 0) return null;
  const times = hour.map((minute) => minute.at);
  const of = (name: keyof Minute) => hour.map((minute) => minute[name]);
  return (
    <section class="charts" aria-label={words.hour}>
      <Chart
        title={words.throughput}
        bars
        times={times}
        format={count}
        series={[{ name: texts.states.finished, tone: "good", values: of("finished") }]}
      />
      <Chart
        title={words.failuresPerMinute}
        bars
        times={times}
        format={count}
        series={[
          { name: texts.states.failed, tone: "warm", values: of("failed") },
          { name: texts.states.quarantined, tone: "bad", values: of("quarantined") },
        ]}
      />
      <Chart
        title={words.processing}
        times={times}
        format={seconds}
        series={[
          { name: words.median, tone: "calm", values: of("median") },
          { name: words.p95, tone: "warm", values: of("p95") },
        ]}
      />
      <Chart
        title={words.queue}
        times={times}
        format={count}
        series={[{ name: words.open, tone: "calm", values: of("open") }]}
      />
    </section>
  );
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

function Workers() {
  const now = Date.now() / 1000;
  const alive = (summary.value?.workers ?? []).filter((one) => now - one.last_seen < GONE_AFTER);
  return (
    <section class="panel" aria-labelledby="workers">
      <h2 id="workers">{words.workers}</h2>
      {!summary.value && <p class="quiet">{texts.unknown}</p>}
      {summary.value && alive.length === 0 && <p class="error">{words.noWorkers}</p>}
      <ul>
        {alive.map((one) => (
          <WorkerRow key={one.worker.id} one={one} />
        ))}
      </ul>
    </section>
  );
}

function WorkerRow({ one }: { one: Worker }) {
  const busy = Math.min(one.holding, one.worker.slots);
  const silent = Date.now() / 1000 - one.last_seen > SILENT_AFTER;
  return (
    <li>
      <span class={`state ${silent ? "failed" : busy ? "working" : "finished"}`}>
        <i /> {silent ? words.silent : busy ? words.busy : words.idle}
      </span>
      <b>{one.worker.host || one.worker.id}</b>
      <span class="quiet">
        {[
          words.slots(busy, one.worker.slots),
          words.seen(ago(one.last_seen)),
          one.worker.isolation && humanize(one.worker.isolation),
          one.worker.engine,
        ]
          .filter(Boolean)
          .join(" · ")}
      </span>
    </li>
  );
}

/** Why tasks failed, the most frequent reason first. */
function Failures() {
  const reasons = Object.entries(failures.value?.reasons ?? {}).sort(([, one], [, other]) => other - one);
  if (reasons.length === 0) return null;
  const most = reasons[0]![1];
  return (
    <section class="panel failures" aria-labelledby="failures">
      <h2 id="failures">{words.failures}</h2>
      <ul>
        {reasons.map(([code, held]) => (
          <li key={code}>
            <a href={link("tasks", "", { state: "failed,quarantined", reason: code })}>{reasonLabel(code)}</a>
            <meter min={0} max={most} value={held} aria-label={reasonLabel(code)} />
            <b>{count(held)}</b>
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
  const release = (task: Task) =>
    attempt(async () => {
      await releaseTask(task.id);
      list.forget(task.id);
    });
  return (
    <section class="panel quarantine" aria-labelledby="quarantine">
      <h2 id="quarantine">{words.quarantine}</h2>
      <p class="quiet">{words.quarantineText}</p>
      <ul>
        {items.map((task) => (
          <li key={task.id}>
            <div>
              <a href={link("tasks", task.id)}>
                <b>{task.filename || task.id}</b>
              </a>
              <span class="quiet">
                {task.recipe} · {words.deaths(task.deaths)} · {ago(task.changed)}
              </span>
              <p>{reason(task)}</p>
            </div>
            <span class="actions">
              <button onClick={() => void release(task)}>
                <Icon name="release" /> {texts.selection.actions.release}
              </button>
              <button onClick={() => void attempt(() => DELETE.run(task, list))}>
                <Icon name="trash" /> {texts.selection.actions.delete}
              </button>
            </span>
          </li>
        ))}
      </ul>
      {!list.complete.value && <button onClick={() => void list.more()}>{texts.more}</button>}
    </section>
  );
}
