// Uploads: Uppy sends them by tus, and continues after a broken connection and after a reloaded page.

import { computed, signal } from "@preact/signals";
import Uppy, { type UppyFile } from "@uppy/core";
import { getDroppedFiles } from "@uppy/core/utils";
import Tus, { type TusBody } from "@uppy/tus";
import { getTask, Problem, stateName, type StateName, State } from "../api/api";
import { connection, follow } from "../api/live";
import { forget, keep, kept, names } from "../kept";
import { relativePath, sorted } from "../kinds";
import { isUnreadable, tryToRead } from "../readable";
import { Retriever } from "../retriever";
import { forgetSent, rememberSent, sent } from "../sent";
import { empty } from "./shared";
import { say } from "./messages";
import { acting } from "../router";
import { may } from "./session";
import { chosen, load } from "./recipes";
import { texts } from "../texts";

const words = texts.uploads;

type Meta = { recipe: string; batch: string; tenant: string; relativePath?: string; refused?: boolean };
type File_ = UppyFile<Meta, TusBody>;

export interface Row {
  id: string;
  name: string;
  size: number;
  sent: number;
  recipe: string;
  state: "ready" | "waiting" | "sending" | "paused" | "failed" | "uploaded";
  error: string;
  data?: Blob;
  /** Of an uploaded one: its task and what became of it. */
  task?: string;
  outcome?: StateName;
  reason?: string;
}

const SHOW_EVERY = 120;
const SMALL = 1024 ** 2;
/** A photo for which there is no room yet is tried again for as long as the service keeps a begun upload: for a day. */
const RETRY_AFTER = [0, 300, 1000, 2000, 4000, 8000, ...Array<number>(5760).fill(15000)];
/** Other transient failures are tried again for about ten minutes; after that, a person or a new connection does it. */
const TRIES = 42;
/** After that many tries, about seven seconds, the page says why a photo waits. */
const UNEXPLAINED = 5;
const LOCK = "safelight-uploads";
const LARGEST_KEPT = 256 * 1024 ** 2;
const MOST_KEPT = 2 * 1024 ** 3;
const REVIEW_KEY = "safelight.review";
const SPEED_OVER = 5000;
const NAMED = 3;

/** Uploads in progress, and after them those that ended since the tray was closed last. */
export const rows = signal<Row[]>([]);
/** The name of the batch that photos are added to; without one, the time at which the first was added. */
export const batch = signal("");
/** Whether photos wait for a person to look at the list before they are sent. */
export const review = signal(kept(REVIEW_KEY) === "true");
export const paused = computed(() => active.value.length > 0 && active.value.every((row) => row.state === "paused"));
export const active = computed(() => rows.value.filter((row) => row.state !== "uploaded" && row.state !== "failed"));
export const ready = computed(() => rows.value.filter((row) => row.state === "ready"));
/** How many photos a session that has ended leaves behind; only the same user sends them. */
export const unsent = computed(
  () => active.value.length + rows.value.filter((row) => row.state === "failed" && failures.get(row.id)?.transient).length,
);
/** Why the service takes no more photos for now; empty while it does. */
export const held = signal("");
/** Bytes a second over the last seconds. */
export const speed = signal(0);
export const overall = computed(() => ({
  total: rows.value.reduce((sum, row) => sum + row.size, 0),
  sent: rows.value.reduce((sum, row) => sum + row.sent, 0),
  uploaded: rows.value.filter((row) => row.state === "uploaded").length,
}));

/** What goes wrong is shown in the tray. */
const silent = { debug: () => undefined, warn: () => undefined, error: () => undefined };
const uppy = new Uppy<Meta, TusBody>({ id: "safelight", autoProceed: false, logger: silent });
const failures = new Map<string, { text: string; transient: boolean }>();
const ended = new Map<string, Row>();
/** The task of an upload, by the upload's address. */
const tasks = new Map<string, string>();
/** Files that were added since the page was opened. */
const added = new Set<string>();
let session = "";
let started = false;

const endpoint = new URL("uploads", location.href).href;
uppy.use(Tus, {
  endpoint,
  // Photos that were added for a tenant are sent for it, even by a page that was since opened for another one.
  headers: (file): Record<string, string> => (file.meta.tenant ? { "Safelight-Tenant": String(file.meta.tenant) } : {}),
  limit: 3,
  retryDelays: RETRY_AFTER,
  onBeforeRequest: (_, { data }) => tryToRead(data),
  // Of the plugin's own answer to 429, all photos of a page together would have 42 tries.
  onShouldRetry: (error, tries, _, usual) => {
    if (isUnreadable(error)) return false;
    const answer = error.originalResponse;
    if (answer?.getStatus() !== 429) return tries < TRIES && usual(error);
    if (tries >= UNEXPLAINED) held.value = Problem.from(answer.getBody()).message;
    return true;
  },
  removeFingerprintOnSuccess: true,
  allowedMetaFields: ["name", "type", "recipe", "batch"],
  onAfterResponse: (request, response) => {
    const task = response.getHeader("Safelight-Task");
    const location = response.getHeader("Location");
    if (task) tasks.set(location ? new URL(location, endpoint).href : request.getURL(), task);
  },
});

// Each change of Uppy's state costs as much as all files together, so there is one for all that are added at once.
uppy.on("files-added", (files) => {
  const ids = new Set(files.map((file) => file.id));
  for (const id of ids) {
    added.add(id);
    ended.delete(id);
  }
  forgetSent(ids);
  // Small files are sent with the request that creates the upload, since there is little to resume.
  const small = files.filter((file) => (file.size ?? 0) <= SMALL);
  const begun = small.map((file) => [file.id, { ...file, tus: { uploadDataDuringCreation: true } }] as const);
  uppy.setState({ files: { ...uppy.getState().files, ...Object.fromEntries(begun) } });
});

uppy.on("restriction-failed", (file, error) => say(`${file?.name ?? ""}: ${error.message}`, "bad"));

uppy.on("upload-success", (file, response) => {
  held.value = "";
  if (!file) return;
  const task = tasks.get(response.uploadURL ?? "");
  tasks.delete(response.uploadURL ?? "");
  const known = task && may("read") ? { task, outcome: "waiting" as const } : undefined;
  ended.set(file.id, { ...row(file), sent: file.size ?? 0, state: "uploaded", ...known });
  rememberSent(file.id);
  failures.delete(file.id);
  // The server has the bytes now, so the browser can drop them.
  queueMicrotask(() => uppy.removeFile(file.id));
  if (known) void look([known.task]);
});

uppy.on("upload-error", (file, error, response) => {
  if (!file) return;
  const xhr = (response?.body as TusBody | undefined)?.xhr;
  const status = xhr?.status ?? 0;
  const lost = isUnreadable(error);
  const text = lost ? words.unreadable : xhr?.responseText ? Problem.from(xhr.responseText).message : "";
  const away = status === 0 || status === 423; // 423 answers HEAD, so it comes without a sentence
  const transient = !lost && (away || status >= 500 || status === 429 || status === 401);
  failures.set(file.id, { text: text || (away ? words.broken : error.message), transient });
  uppy.setFileMeta(file.id, { ...file.meta, refused: !transient });
  if (status === 404) void load().catch(() => undefined); // its recipe is gone: another one is to be offered
  show();
});

let timer: number | undefined;
const later = () => void (timer ??= window.setTimeout(show, SHOW_EVERY));
uppy.on("state-update", later);

function show(): void {
  clearTimeout(timer);
  timer = undefined;
  const going = uppy.getFiles().filter((file) => !ended.has(file.id) && !file.progress.uploadComplete);
  rows.value = [...going.map(row), ...ended.values()];
  measure();
}

function row(file: File_): Row {
  const failed = file.error ? (failures.get(file.id)?.text ?? file.error) : "";
  const sent = file.progress.bytesUploaded || 0;
  const begun = file.progress.uploadStarted !== null;
  return {
    id: file.id,
    name: file.name ?? "",
    size: file.size ?? 0,
    sent,
    recipe: file.meta.recipe,
    state: failed ? "failed" : file.isPaused ? "paused" : sent > 0 ? "sending" : begun ? "waiting" : "ready",
    error: failed,
    ...(file.data instanceof Blob && { data: file.data }),
  };
}

let samples: { at: number; sent: number }[] = [];
function measure(): void {
  const now = performance.now();
  samples = [...samples.filter((one) => one.at > now - SPEED_OVER), { at: now, sent: overall.peek().sent }];
  const first = samples[0]!;
  speed.value = now - first.at < 500 ? 0 : Math.max(0, ((overall.peek().sent - first.sent) / (now - first.at)) * 1000);
}

// When the connection to the service is back, retry uploads that gave up.
connection.subscribe((now) => now === "live" && retryTransient());

/** Also called when somebody has signed in again: a session that ended has failed uploads too. */
export function retryTransient(): void {
  for (const file of uppy.getFiles()) if (file.error && failures.get(file.id)?.transient) void retry(file.id);
}

/** What becomes of uploaded photos is shown until the tray is closed. */
follow({
  changed: (events) => {
    const known = new Map([...ended.values()].map((one) => [one.task, one.id]));
    for (const event of events) {
      const found = ended.get(known.get(event.task) ?? "");
      if (found && event.kind === "deleted") ended.delete(found.id);
      else if (found) settle(found, stateName(event.state), event.failure?.detail ?? "");
    }
    later();
  },
  missed: () => void look([...ended.values()].flatMap((one) => (one.task && one.outcome !== "finished" ? [one.task] : []))),
});

async function look(ids: string[]): Promise<void> {
  for (const id of ids) {
    const task = await getTask(id).catch((error: unknown) => error as Problem);
    const found = [...ended.values()].find((one) => one.task === id);
    if (found && "state" in task) settle(found, stateName(task.state), task.failure?.detail ?? "");
    else if (found && "code" in task && task.code === "not_found") ended.delete(found.id);
    later();
  }
}

function settle(found: Row, outcome: StateName, reason: string): void {
  const order = State[found.outcome ?? "uploading"];
  if (State[outcome] >= order || outcome === "waiting") ended.set(found.id, { ...found, outcome, reason });
}

/** Add what of these files is a photo; return whether any is. */
export function add(files: readonly File[]): boolean {
  if (!may("upload")) return (say(words.notAllowed, "bad"), false);
  const { photos, others, empties } = sorted(files);
  if (others.length) say(words.notPhotos(...few(others)), "bad");
  if (empties.length) say(words.empty(...few(empties)), "bad");
  if (photos.length + others.length + empties.length === 0) say(words.none, "bad");
  if (photos.length === 0) return false;
  // After a reload, restored uploads may be active already.
  if (!session || active.value.length === 0) {
    session = stamp();
    held.value = "";
    samples = [];
  }
  const alike = { recipe: chosen.value, tenant: acting, batch: batch.value.trim() || session };
  put(photos.map((data) => ({ ...alike, data, name: data.name || words.pasted, path: relativePath(data) })));
  if (!review.value) send();
  show();
  return true;
}

/** The first names, and how many more there are. */
const few = (files: File[]): [string[], number] => [files.slice(0, NAMED).map((file) => file.name), files.length - NAMED];

interface Added {
  data: Blob;
  name: string;
  recipe: string;
  path: string;
  tenant: string;
  batch: string;
}

function put(files: Added[]): void {
  const described = files.map(({ data, name, recipe, path, tenant, batch: into }) => {
    // Uppy tells files apart by path, size and time: the same photo for another recipe is another upload.
    const where = [...(tenant ? [tenant] : []), recipe, name, path].join("/");
    return { name, type: data.type, data, source: "page", meta: { recipe, batch: into.slice(0, 64), tenant, relativePath: where } };
  });
  try {
    uppy.addFiles(described);
  } catch (error) {
    say(error instanceof Error ? error.message : String(error), "bad");
  }
}

export const send = () => void uppy.upload().catch(() => undefined);

/** The moment as the name of a batch, to the second: several people may begin in one minute, or one person twice. */
function stamp(): string {
  const now = new Date();
  const local = new Date(now.getTime() - now.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 19).replace("T", " ");
}

export async function addDropped(transfer: DataTransfer): Promise<boolean> {
  return add(await getDroppedFiles(transfer));
}

/** Another name or recipe for a file that was not begun or was refused: it is put in anew, into the same batch. */
export function change(id: string, next: { name?: string; recipe?: string }): void {
  const file = uppy.getFile(id);
  if (!file || !(file.data instanceof Blob)) return;
  remove(id);
  const { recipe, relativePath: path = "", tenant, batch: into } = file.meta;
  put([{ data: file.data, name: next.name?.trim() || file.name || "", recipe: next.recipe ?? recipe, path, tenant, batch: into }]);
  if (!review.value) send();
  show();
}

export function setReview(wanted: boolean): void {
  review.value = wanted;
  keep(REVIEW_KEY, String(wanted));
}

export const pauseAll = () => uppy.pauseAll();
export const resumeAll = () => uppy.resumeAll();
export const toggle = (id: string) => uppy.pauseResume(id);
export const remove = (id: string) => {
  failures.delete(id);
  if (ended.delete(id)) show();
  else uppy.removeFile(id);
};
export async function retry(id: string): Promise<void> {
  failures.delete(id);
  await uppy.retryUpload(id).catch(() => undefined);
}
export const clearFailed = () => {
  const ids = rows.value.flatMap((row) => (row.state === "failed" ? [row.id] : []));
  for (const id of ids) failures.delete(id);
  if (ids.length) uppy.removeFiles(ids);
};
/** Forget what ended. */
export function close(): void {
  clearFailed();
  ended.clear();
  batch.value = "";
  show();
}

/**
 * Forget all uploads and what the browser keeps of them: photos, and the addresses at which they could continue. Photos
 * of other users, whose sessions ended before these were sent, stay.
 */
export async function forgetAll(): Promise<void> {
  uppy.cancelAll();
  ended.clear();
  forgetSent();
  for (const name of names("tus::")) forget(name);
  const mine = uppy.getID();
  await empty("uppy-blobs", ({ id, store }) => id === mine || store === mine);
}

/** Keep uploads in progress in the browser's own database, and continue with them after a reload. */
function keepFiles(): void {
  uppy.use(Retriever, {
    expires: 23 * 3600 * 1000,
    // The limits of its store are not in its types.
    indexedDB: { maxFileSize: LARGEST_KEPT, maxTotalSize: MOST_KEPT } as object,
  });
  // Restored files replace the current ones, and may include files that were added and even sent since this page was
  // opened, because reading the browser's database takes time. Only files from before count, and of these only what was
  // not sent: the retriever writes its state late, so after a quick reload it has files that the server already has.
  let restored: string[] = [];
  uppy.on("state-update", (before, _, patch) => {
    // Removing the last file has the same effect, and allows new uploads.
    if (!patch?.files || !("recoveredState" in patch) || "allowNewUpload" in patch) return;
    const known = new Set([...added, ...sent()]);
    const files = Object.entries(patch.files).filter(([id]) => !known.has(id));
    const uploads = Object.entries(patch.currentUploads ?? {}).filter(([, { fileIDs }]) => fileIDs.some((id) => !known.has(id)));
    restored = uploads.map(([id]) => id);
    uppy.setState({
      files: { ...Object.fromEntries(files), ...before.files },
      currentUploads: { ...Object.fromEntries(uploads), ...before.currentUploads },
    });
  });
  uppy.on("restored", () => {
    const ghosts = uppy.getFiles().filter((file) => file.isGhost);
    const missing = ghosts.filter((file) => !file.meta.refused);
    for (const file of ghosts) uppy.removeFile(file.id);
    if (missing.length) say(words.notKept(missing.map((file) => file.name ?? "").slice(0, NAMED)), "bad");
    const resumed = uppy.getFiles().filter((file) => file.isRestored);
    if (resumed.length) {
      if (resumed.some((file) => !file.error)) say(words.restored);
      for (const file of resumed) uppy.setFileState(file.id, { isPaused: false });
      for (const id of restored) void uppy.restore(id).catch(() => undefined);
      if (restored.length === 0 && !review.value) send();
      uppy.setState({ recoveredState: null });
    }
    show();
  });
}

/** One tab at a time keeps uploads; another would take up what the first is still sending. */
export function start(owner: string): void {
  if (started) return;
  started = true;
  // The browser keeps the uploads of each user under another name, so that nobody sends those of somebody else.
  uppy.setOptions({ id: `safelight ${owner}` });
  if (!navigator.locks) keepFiles(); // a browser has locks only over HTTPS or on the machine itself
  else
    void navigator.locks.request(LOCK, () => {
      keepFiles();
      return new Promise(() => undefined);
    }).catch(() => undefined); // where a browser may keep nothing, it has no locks either
}
