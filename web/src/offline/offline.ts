// The installed page: its service worker, and photos that other programs share.

import { connection } from "../api/live";
import { add } from "../state/uploads";
import { confirmed } from "../state/questions";
import { take } from "../state/shared";
import { texts } from "../texts";

interface Policies {
  createPolicy(name: string, rules: { createScriptURL: (text: string) => string }): { createScriptURL(text: string): string };
}
const SCRIPT = "service-worker.js";

/** Browsers have service workers only over HTTPS or on the machine itself; the page works without. */
export function start(): void {
  void takeShared();
  if (!("serviceWorker" in navigator)) return;
  const policies = (window as { trustedTypes?: Policies }).trustedTypes;
  const policy = policies?.createPolicy("service-worker", { createScriptURL: () => SCRIPT });
  navigator.serviceWorker.register(policy ? policy.createScriptURL(SCRIPT) : SCRIPT).catch(() => undefined);
}

/**
 * Photos that were shared come with the address `?shared`; they wait for as long as nobody is signed in. A page of another
 * site can send them too, and the service worker cannot tell, so somebody has to agree.
 */
async function takeShared(): Promise<void> {
  if (!location.search.includes("shared")) return;
  history.replaceState(null, "", location.pathname + location.hash);
  const files = await take().catch(() => []);
  if (files.length && (await confirmed(texts.uploads.shared(files.map((file) => file.name))))) add(files);
}

/** Call something whenever there is a connection again. */
export const whenLive = (heard: () => void) => connection.subscribe((now) => now === "live" && heard());
