// Statistics of the last hour, day or week: charts, failures by reason, the slowest photos.

import { signal } from "@preact/signals";
import { getStatistics, type Minute, type Span, type Statistics } from "../../api/api";
import { clock, count, moment, reasonLabel, seconds } from "../../format";
import { Chart } from "../../parts/chart";
import { go, link, query } from "../../router";
import { texts } from "../../texts";

const words = texts.system;
const SPANS: readonly Span[] = ["hour", "day", "week"];
/** The filters of Tasks that stand for the spans. */
const SINCE = { hour: "1h", day: "24h", week: "7d" };

const chosen = (): Span => SPANS.find((one) => one === query.value.span) ?? "hour";
const statistics = signal<{ span: Span; found: Statistics } | undefined>(undefined);

export async function loadStatistics(): Promise<void> {
  const span = chosen();
  const found = await getStatistics(span);
  if (span === chosen()) statistics.value = { span, found };
}

const choose = (span: Span) => go("system", "", span === "hour" ? {} : { span });

/** The hour has its own minutes, which are finer than what is kept of a week. */
export function Spans({ hour }: { hour: Minute[] }) {
  const span = chosen();
  const found = statistics.value?.span === span ? statistics.value.found : undefined;
  const points = span === "hour" ? hour : (found?.points ?? []);
  return (
    <>
      <div class="spans" role="group" aria-label={words.span}>
        {SPANS.map((one) => (
          <button key={one} aria-pressed={one === span} onClick={() => choose(one)}>
            {words.spans[one]}
          </button>
        ))}
      </div>
      <Charts span={span} points={points} />
      <div class="pair">
        <Failures span={span} found={found} />
        <Slowest found={found} />
      </div>
    </>
  );
}

function Charts({ span, points }: { span: Span; points: Minute[] }) {
  if (points.length === 0) return null;
  const times = points.map((point) => point.at);
  const of = (name: keyof Minute) => points.map((point) => point[name]);
  const label = span === "hour" ? clock : moment;
  const counts = { times, label, format: count };
  return (
    <section class="charts" aria-label={words.spans[span]}>
      <Chart
        title={words.throughput[span]}
        bars
        {...counts}
        series={[{ name: texts.states.finished, tone: "good", values: of("finished") }]}
      />
      <Chart
        title={words.failuresPer[span]}
        bars
        {...counts}
        series={[
          { name: texts.states.failed, tone: "warm", values: of("failed") },
          { name: texts.states.quarantined, tone: "bad", values: of("quarantined") },
        ]}
      />
      <Chart
        title={words.processing}
        {...{ times, label }}
        format={seconds}
        series={[
          { name: words.median, tone: "calm", values: of("median") },
          { name: words.p95, tone: "warm", values: of("p95") },
        ]}
      />
      <Chart
        title={words.queue}
        {...counts}
        series={[{ name: words.open, tone: "calm", values: of("open") }]}
      />
    </section>
  );
}

/** Why tasks failed, the most frequent reason first. */
function Failures({ span, found }: { span: Span; found: Statistics | undefined }) {
  const reasons = Object.entries(found?.reasons ?? {}).sort(([, one], [, other]) => other - one);
  const most = reasons[0]?.[1] ?? 0;
  return (
    <section class="panel failures" aria-labelledby="failures">
      <h2 id="failures">{words.failures}</h2>
      {reasons.length === 0 && <p class="quiet">{found ? words.nothingFailed : texts.unknown}</p>}
      <ul>
        {reasons.map(([code, held]) => (
          <li key={code}>
            <a href={link("tasks", "", { state: "failed,quarantined", reason: code, since: SINCE[span] })}>{reasonLabel(code)}</a>
            <meter min={0} max={most} value={held} aria-label={reasonLabel(code)} />
            <b>{count(held)}</b>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Slowest({ found }: { found: Statistics | undefined }) {
  const slowest = found?.slowest ?? [];
  return (
    <section class="panel slowest" aria-labelledby="slowest">
      <h2 id="slowest">{words.slowest}</h2>
      {slowest.length === 0 && <p class="quiet">{found ? noneSlow(found) : texts.unknown}</p>}
      <ol>
        {slowest.map((one) => (
          <li key={one.task + one.seconds}>
            <a href={link("tasks", one.task)} dir="auto">{one.filename || one.task}</a>
            <span class="quiet">{one.recipe}</span>
            <b>{seconds(one.seconds)}</b>
          </li>
        ))}
      </ol>
    </section>
  );
}

const noneSlow = (found: Statistics) =>
  found.points.some((point) => point.median !== null) ? words.slowDeleted : words.nothingSlow;
