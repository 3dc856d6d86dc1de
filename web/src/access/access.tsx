// The view of access: the user, API keys, and for operators the tenants with their limits and use.

import { signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { Icon } from "../parts/icons";
import { Keys } from "./keys";
import { me, may, signOut } from "../state/session";
import { Tenants } from "./tenants";
import { texts as all } from "../texts";
import { Webhooks } from "./webhooks";

const texts = all.access;

const shown = signal(false);

export function AccessButton() {
  const who = me.value;
  if (!who?.signed_in) return null;
  const label = texts.open(who.name);
  return (
    <>
      <button class="plain round" aria-label={label} title={label} onClick={() => (shown.value = true)}>
        <Icon name="release" />
      </button>
      {shown.value && <Access />}
    </>
  );
}

function Access() {
  const dialog = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => dialog.current?.showModal(), []);
  const who = me.value!;
  return (
    <dialog ref={dialog} class="access" aria-labelledby="access" onClose={() => (shown.value = false)}>
      <div class="head">
        <div>
          <h2 id="access">{texts.title}</h2>
          <p class="quiet">
            {texts.me(who.name, who.tenant)}. {texts.may(who.scopes)} {!who.needed && texts.here}
          </p>
        </div>
        <span class="actions">
          {who.via === "session" && <button onClick={() => void signOut()}>{texts.signOut}</button>}
          <button class="plain round" aria-label={texts.share.close} onClick={() => dialog.current?.close()}>
            <Icon name="close" />
          </button>
        </span>
      </div>
      {may("administer") && <Keys />}
      {may("administer") && <Webhooks />}
      {may("administer") && <Tenants operator={who.operator} />}
    </dialog>
  );
}
