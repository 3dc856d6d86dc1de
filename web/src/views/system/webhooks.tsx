// Webhook calls with their answers, and a button to send one again.

import { signal } from "@preact/signals";
import { may } from "../../state/session";
import { getWebhookCalls, resendWebhook, type WebhookCall } from "../../api/api";
import { ago, dateTime, seconds } from "../../format";
import { Icon } from "../../parts/icons";
import { attempt, say } from "../../state/messages";
import { link } from "../../router";
import { texts } from "../../texts";

const words = texts.webhooks;
const PAGE = 20;
/** As many as the service keeps, and gives at once. */
const MOST = 1000;
const TONES = { delivered: "finished", failed: "waiting", given_up: "failed" };

const calls = signal<WebhookCall[]>([]);
const hasMore = signal(false);
let shown = PAGE;
let newest = 0;

/** Read all that are shown again: older ones change too, when they are repeated. */
export async function loadWebhookCalls(): Promise<void> {
  const asked = ++newest;
  const found = await getWebhookCalls(shown);
  if (asked !== newest) return; // a newer request has answered
  calls.value = found.calls;
  hasMore.value = Boolean(found.next) && shown < MOST;
}

async function more(): Promise<void> {
  shown = Math.min(shown + PAGE, MOST);
  await attempt(loadWebhookCalls);
}

export function WebhookCalls() {
  if (calls.value.length === 0) return null;
  return (
    <section class="panel calls" aria-labelledby="calls">
      <h2 id="calls">{words.title}</h2>
      <ul>
        {calls.value.map((call) => (
          <Row key={call.id} call={call} />
        ))}
      </ul>
      {hasMore.value && <button onClick={() => void more()}>{texts.more}</button>}
    </section>
  );
}

function Row({ call }: { call: WebhookCall }) {
  const again = async () => {
    if (!(await attempt(() => resendWebhook(call.id)))) return;
    say(words.sent(call.url));
    await loadWebhookCalls().catch(() => undefined);
  };
  return (
    <li>
      <span class={`state ${TONES[call.outcome]}`}>
        <i /> {words.outcomes[call.outcome]}
      </span>
      <div>
        <b>{call.url}</b>
        <span class="quiet">
          <a href={link("tasks", call.task)}>{call.filename || call.task}</a> · {words.attempt(call.attempt)} ·{" "}
          <time title={dateTime(call.at)}>{ago(call.at)}</time>
          {call.again != null && ` · ${words.again(dateTime(call.again))}`}
        </span>
        <p>
          {call.answer.status != null && <b>{call.answer.status} </b>}
          {call.answer.detail || (call.answer.status == null ? words.noAnswer : "")}
          {call.answer.status != null && <span class="quiet"> {words.after(seconds(call.answer.seconds))}</span>}
        </p>
      </div>
      {may("operate") && (
        <button aria-label={words.resendTo(call.url, call.filename || call.task)} onClick={() => void again()}>
          <Icon name="retry" /> {words.resend}
        </button>
      )}
    </li>
  );
}
