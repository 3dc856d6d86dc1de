// The workers, with the state of each and a button to drain it.

import { may } from "../../state/session";
import type { Worker } from "../../api/api";
import { now } from "../../api/clock";
import { ago, humanize } from "../../format";
import { Icon } from "../../parts/icons";
import { changeWorker, summary } from "../../state/queue";
import { texts } from "../../texts";

const words = texts.system;
/** Seconds after which a worker that says nothing is called silent, and after which it is gone. */
const SILENT_AFTER = 30;
const GONE_AFTER = 90;

export function Workers() {
  const alive = (summary.value?.workers ?? []).filter((one) => now() - one.last_seen < GONE_AFTER);
  return (
    <section class="panel workers" aria-labelledby="workers">
      <h2 id="workers">{words.workers}</h2>
      {!summary.value && <p class="quiet">{texts.unknown}</p>}
      {summary.value && alive.length === 0 && <p class="error">{words.noWorkers}</p>}
      <ul>
        {alive.map((one) => (
          <Row key={one.worker.id} one={one} />
        ))}
      </ul>
    </section>
  );
}

/** What a worker does, and the colour of that. */
function doing(one: Worker, busy: number): [string, string] {
  if (now() - one.last_seen > SILENT_AFTER) return [words.silent, "failed"];
  if (one.draining) return one.holding ? [words.draining, "waiting"] : [words.drained, "cancelled"];
  return busy ? [words.busy, "working"] : [words.idle, "finished"];
}

function Row({ one }: { one: Worker }) {
  const busy = Math.min(one.holding, one.worker.slots);
  const [label, tone] = doing(one, busy);
  const name = one.worker.name || one.worker.host || one.worker.id;
  const draining = one.draining > 0;
  return (
    <li>
      <span class={`state ${tone}`}>
        <i /> {label}
      </span>
      <b>{name}</b>
      {may("operate") && (
        <button
          class="small"
          aria-label={draining ? words.resumeWorker(name) : words.drainWorker(name)}
          onClick={() => void changeWorker(one, !draining)}
        >
          <Icon name={draining ? "play" : "pause"} /> {draining ? words.resumeIt : words.drain}
        </button>
      )}
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
      <code class="quiet">{one.worker.id}</code>
    </li>
  );
}
