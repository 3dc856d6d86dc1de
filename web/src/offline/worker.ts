// The service worker: it keeps the files of the page itself, so that the page opens without a connection, and takes photos
// that other programs share. Answers of the API and photos never pass through it, so nothing private is kept.

import { keep } from "../state/shared";

/** The version of each file of the page, with which the SHA-256 of its bytes begins, by its address below the scope. */
declare const SHELL: Record<string, string>;

interface ExtendableEvent extends Event {
  waitUntil(work: Promise<unknown>): void;
}
interface FetchEvent extends ExtendableEvent {
  readonly request: Request;
  respondWith(answer: Promise<Response>): void;
}
const worker = self as unknown as {
  registration: ServiceWorkerRegistration;
  clients: { claim(): Promise<void> };
  skipWaiting(): Promise<void>;
  addEventListener(name: "install" | "activate", heard: (event: ExtendableEvent) => void): void;
  addEventListener(name: "fetch", heard: (event: FetchEvent) => void): void;
};

const PREFIX = "safelight-";
const CACHE = PREFIX + SHELL[""];
const scope = worker.registration.scope;

worker.addEventListener("install", (event) => event.waitUntil(install()));
worker.addEventListener("activate", (event) => event.waitUntil(activate()));
worker.addEventListener("fetch", (event) => {
  const { request } = event;
  if (!request.url.startsWith(scope)) return;
  const address = request.url.slice(scope.length).replace(/#.*/s, "");
  if (request.method === "POST" && address === "share") event.respondWith(receive(request));
  else if (request.method !== "GET") return;
  else if (request.mode === "navigate" && address.replace(/\?.*/s, "") === "") event.respondWith(page(request));
  else if (address && Object.hasOwn(SHELL, address)) event.respondWith(file(request));
});

async function install(): Promise<void> {
  const fetched = Object.entries(SHELL).map(async ([address, version]) => [address, await current(address, version)] as const);
  const files = await Promise.all(fetched);
  const cache = await caches.open(CACHE);
  for (const [address, answer] of files) await cache.put(scope + address, answer);
  await worker.skipWaiting();
}

/**
 * Fetch a file of this build. While masters are upgraded, one of another version may answer: then nothing is kept, and the
 * browser tries again when the page is opened the next time.
 */
async function current(address: string, version: string): Promise<Response> {
  const answer = await fetch(scope + address, { credentials: "omit", cache: "no-cache" });
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await answer.clone().arrayBuffer()));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (!found.startsWith(version)) throw new Error(`${address} is of another version of the page.`);
  return answer;
}

async function activate(): Promise<void> {
  for (const name of await caches.keys()) if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
  await worker.clients.claim();
}

async function page(request: Request): Promise<Response> {
  try {
    // The request of a link on another site would be refused: passed on from here, it does not look like one any more.
    return await fetch(new Request(request, { redirect: "manual" }));
  } catch (error) {
    const kept = await (await caches.open(CACHE)).match(scope);
    if (!kept) throw error;
    return kept;
  }
}

async function file(request: Request): Promise<Response> {
  return (await (await caches.open(CACHE)).match(request.url)) ?? fetch(request);
}

/** Keep what was shared for the page, and open it. */
async function receive(request: Request): Promise<Response> {
  const form = await request.formData();
  await keep(form.getAll("photos").filter((one): one is File => one instanceof File));
  return Response.redirect(`${scope}?shared`, 303);
}
