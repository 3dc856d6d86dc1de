// Show and replace the secret with which receivers verify the tenant's webhook calls.

import { useState } from "preact/hooks";
import { copy } from "../state/clipboard";
import { attempt } from "../state/messages";
import { getWebhookSecret, rotateWebhookSecret, type WebhookSecret } from "../state/session";
import { texts as all } from "../texts";

const texts = all.access;
const words = texts.webhooks;

export function Webhooks() {
  const [shown, setShown] = useState<WebhookSecret>();
  const [asked, setAsked] = useState(false);
  const take = async (action: () => Promise<WebhookSecret>) => {
    const found = await attempt(action);
    if (found) setShown(found);
    setAsked(false);
  };
  return (
    <section class="panel" aria-labelledby="webhooks">
      <h3 id="webhooks">{words.title}</h3>
      <p class="quiet">{words.words}</p>
      {shown && (
        <p class="made" role="status">
          <code>{shown.secret}</code> <button onClick={() => void copy(shown.secret, texts.keys.copied)}>{texts.keys.copy}</button>
        </p>
      )}
      <span class="actions">
        {!shown && <button onClick={() => void take(getWebhookSecret)}>{words.show}</button>}
        <button class={asked ? "main danger" : ""} onClick={() => (asked ? void take(rotateWebhookSecret) : setAsked(true))}>
          {asked ? words.really : words.rotate}
        </button>
      </span>
    </section>
  );
}
