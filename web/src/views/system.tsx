// How the system is: services, workers, queue, the last hour, what is in quarantine.

import { signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import type { Minute, Service, Summary, Task, Worker } from "../api";
import { getHour, getServices, getSummary, Problem, releaseTask } from "../api";
import { ago, count, plural, reason, seconds, spoken } from "../format";
import { follow } from "../live";
import { Chart } from "../parts/chart";
import { Icon } from "../parts/icons";
import { attempt } from "../parts/toast";
import { TaskList } from "../tasks";
import { DROP } from "./queue";

const AFTER_CHANGES = 1500;
const AT_LEAST_EVERY = 15000;
/** Seconds after which a worker that says nothing is called silent, and after which it is gone. */
const SILENT_AFTER = 30;
const GONE_AFTER = 90;

const summary = signal<Summary | undefined>(undefined);
const minutes = signal<Minute[]>([]);
const services = signal<Service[]>([]);
const error = signal("");

async function read(): Promise<void> {
  try {
    const [now, hour, found] = await Promise.all([getSummary(), getHour(), getServices()]);
    summary.value = now;
    minutes.value = hour.minutes;
    services.value = found;
    error.value = "";
  } catch (problem) {
    error.value = problem instanceof Problem ? problem.message : String(problem);
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
      <h1>System</h1>
      {error.value && <p class="error">{error.value}</p>}
      <Tiles />
      <Charts />
      <Quarantine />
      <div class="pair">
        <Services />
        <Workers />
      </div>
    </div>
  );
}

function Tiles() {
  const now = summary.value;
  const hour = (name: "finished" | "failed" | "quarantined") => minutes.value.reduce((sum, one) => sum + one[name], 0);
  const lost = hour("failed") + hour("quarantined");
  const tiles: [string, string, string?][] = [
    ["Waiting", count(now?.tasks.waiting ?? 0), now?.delayed ? `${count(now.delayed)} for another try` : ""],
    ["Developing", count(now?.tasks.working ?? 0)],
    ["Oldest waits", now?.oldest_waiting ? seconds(now.oldest_waiting) : "–"],
    ["Finished this hour", count(hour("finished"))],
    ["Failed this hour", count(lost)],
  ];
  return (
    <dl class="tiles">
      {tiles.map(([name, value, more]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>
            {value}
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
    <section class="charts" aria-label="The last hour">
      <Chart
        title="Throughput, photos a minute"
        bars
        times={times}
        words={count}
        series={[{ name: "Finished", tone: "good", values: of("finished") }]}
      />
      <Chart
        title="Failures a minute"
        bars
        times={times}
        words={count}
        series={[
          { name: "Failed", tone: "warm", values: of("failed") },
          { name: "Quarantined", tone: "bad", values: of("quarantined") },
        ]}
      />
      <Chart
        title="Processing time"
        times={times}
        words={seconds}
        series={[
          { name: "Median", tone: "calm", values: of("median") },
          { name: "95th percentile", tone: "warm", values: of("p95") },
        ]}
      />
      <Chart
        title="Queue, photos waiting or developing"
        times={times}
        words={count}
        series={[{ name: "Open", tone: "calm", values: of("open") }]}
      />
    </section>
  );
}

function Services() {
  return (
    <section class="panel" aria-labelledby="services">
      <h2 id="services">Services</h2>
      <ul>
        {services.value.map((service) => (
          <li key={service.name + service.address}>
            <span class={`state ${service.ready ? "finished" : "failed"}`}>
              <i /> {service.ready ? "Well" : "Not ready"}
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
      <h2 id="workers">Workers</h2>
      {summary.value && alive.length === 0 && <p class="error">No worker is there: photos wait until one comes.</p>}
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
        <i /> {silent ? "Silent" : busy ? "Busy" : "Idle"}
      </span>
      <b>{one.worker.host || one.worker.id}</b>
      <span class="quiet">
        {busy} of {plural(one.worker.slots, "place")} · seen {ago(one.last_seen)} · {spoken(one.worker.isolation)} ·{" "}
        {one.worker.engine}
      </span>
    </li>
  );
}

function Quarantine() {
  const list = useMemo(() => new TaskList(["quarantined"], 50), []);
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
      <h2 id="quarantine">In quarantine</h2>
      <p class="quiet">Each of these took down what worked on it more than once, and waits for you to decide.</p>
      <ul>
        {items.map((task) => (
          <li key={task.id}>
            <div>
              <b>{task.filename || task.id}</b>
              <span class="quiet">
                {task.recipe} · {plural(task.deaths, "death")} · {ago(task.changed)}
              </span>
              <p>{reason(task)}</p>
            </div>
            <span class="actions">
              <button onClick={() => void release(task)}>
                <Icon name="release" /> Release
              </button>
              <button onClick={() => void attempt(() => DROP.run(task, list))}>
                <Icon name="trash" /> Drop
              </button>
            </span>
          </li>
        ))}
      </ul>
      {!list.complete.value && <button onClick={() => void list.more()}>Show more</button>}
    </section>
  );
}
