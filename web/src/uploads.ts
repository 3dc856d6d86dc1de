// Uploads: Uppy sends them by tus, goes on after a broken connection, and after a reloaded page.

import { computed, signal } from "@preact/signals";
import Uppy, { type UppyFile } from "@uppy/core";
import { getDroppedFiles } from "@uppy/core/utils";
import GoldenRetriever from "@uppy/golden-retriever";
import Tus, { type TusBody } from "@uppy/tus";
import { Problem } from "./api";
import { connection } from "./live";
import { chosen } from "./recipes";
import { say } from "./parts/toast";

type Meta = { recipe: string; relativePath?: string };
type File_ = UppyFile<Meta, TusBody>;

export interface Row {
  id: string;
  name: string;
  size: number;
  sent: number;
  state: "waiting" | "sending" | "paused" | "failed" | "missing";
  error: string;
}

const SHOW_EVERY = 120;
const SMALL = 1024 ** 2;
/** Passing failures are tried again for about ten minutes; after that, a person or a new connection does it. */
const RETRY_AFTER = [0, 300, 1000, 2000, 4000, 8000, ...Array<number>(36).fill(15000)];
const PICTURE = /\.(jpe?g|png|webp|avif|hei[cf]|gif|tiff?|jxl)$/i;
const LOCK = "safelight-uploads";
const LARGEST_KEPT = 256 * 1024 ** 2;
const MOST_KEPT = 2 * 1024 ** 3;

export const rows = signal<Row[]>([]);
export const done = signal({ files: 0, bytes: 0 });
export const paused = computed(() => rows.value.length > 0 && rows.value.every((row) => row.state === "paused"));
export const overall = computed(() => {
  const total = rows.value.reduce((sum, row) => sum + row.size, done.value.bytes);
  const sent = rows.value.reduce((sum, row) => sum + row.sent, done.value.bytes);
  return { total, sent, files: rows.value.length + done.value.files };
});

/** What goes wrong is told in the tray. */
const silent = { debug: () => undefined, warn: () => undefined, error: () => undefined };
const uppy = new Uppy<Meta, TusBody>({
  id: "safelight",
  autoProceed: true,
  logger: silent,
  restrictions: { minFileSize: 1 },
});
const failures = new Map<string, { words: string; passing: boolean }>();

uppy.use(Tus, {
  endpoint: new URL("uploads", location.href).href,
  limit: 3,
  retryDelays: RETRY_AFTER,
  removeFingerprintOnSuccess: true,
  allowedMetaFields: ["name", "type", "recipe"],
});

// A small file goes with the request that announces it; there is little to resume.
uppy.on("file-added", (file) => {
  if ((file.size ?? 0) <= SMALL) uppy.setFileState(file.id, { tus: { uploadDataDuringCreation: true } });
});

uppy.on("upload-success", (file) => {
  if (!file) return;
  done.value = { files: done.value.files + 1, bytes: done.value.bytes + (file.size ?? 0) };
  failures.delete(file.id);
  // Its bytes are on the server now; the browser need not hold them.
  queueMicrotask(() => uppy.removeFile(file.id));
});

uppy.on("upload-error", (file, error, response) => {
  if (!file) return;
  const xhr = (response?.body as TusBody | undefined)?.xhr;
  const status = xhr?.status ?? 0;
  const words = xhr?.responseText ? Problem.from(xhr.responseText).message : "";
  failures.set(file.id, {
    words: words || (status ? error.message : "The connection broke. It goes on when the service is back."),
    passing: status === 0 || status >= 500 || status === 429,
  });
  show();
});

let timer: number | undefined;
uppy.on("state-update", () => {
  timer ??= window.setTimeout(show, SHOW_EVERY);
});

function show(): void {
  clearTimeout(timer);
  timer = undefined;
  rows.value = uppy.getFiles().filter((file) => !file.progress.uploadComplete).map(row);
}

function row(file: File_): Row {
  const failed = file.error ? (failures.get(file.id)?.words ?? file.error) : "";
  const sent = file.progress.bytesUploaded || 0;
  const state = file.isGhost
    ? "missing"
    : failed
      ? "failed"
      : file.isPaused
        ? "paused"
        : sent > 0
          ? "sending"
          : "waiting";
  return { id: file.id, name: file.name ?? "", size: file.size ?? 0, sent, state, error: failed };
}

// A new connection to the service means that uploads which gave up have something to talk to again.
connection.subscribe((now) => {
  if (now !== "live") return;
  for (const file of uppy.getFiles()) if (file.error && failures.get(file.id)?.passing) void retry(file.id);
});

export function add(files: readonly File[]): void {
  const pictures = files.filter((file) => file.type.startsWith("image/") || PICTURE.test(file.name));
  const left = files.length - pictures.length;
  if (left) say(left === 1 ? "One file is no picture and was left out." : `${left} files are no pictures and were left out.`);
  if (rows.value.length === 0) done.value = { files: 0, bytes: 0 };
  for (const file of pictures) {
    try {
      uppy.addFile({
        name: file.name || "pasted.png",
        type: file.type,
        data: file,
        source: "page",
        meta: { recipe: chosen.value, relativePath: relativePath(file) },
      });
    } catch (error) {
      say(error instanceof Error ? error.message : String(error), "bad");
    }
  }
  show();
}

/** Uppy tells files apart by path, size and time: the same photo for another recipe is another upload. */
function relativePath(file: File): string {
  const path = (file as File & { relativePath?: string | null }).relativePath || file.webkitRelativePath || file.name;
  return `${chosen.value}/${path}`;
}

export async function addDropped(transfer: DataTransfer): Promise<void> {
  add(await getDroppedFiles(transfer));
}

export const pauseAll = () => uppy.pauseAll();
export const resumeAll = () => uppy.resumeAll();
export const toggle = (id: string) => uppy.pauseResume(id);
export const remove = (id: string) => {
  failures.delete(id);
  uppy.removeFile(id);
};
export async function retry(id: string): Promise<void> {
  failures.delete(id);
  await uppy.retryUpload(id).catch(() => undefined);
}
export const clearFailed = () => {
  for (const row of rows.value) if (row.state === "failed") remove(row.id);
};

/** Keep what is under way in the browser's own database, and go on with it after a reload. */
function keep(): void {
  uppy.use(GoldenRetriever, {
    expires: 23 * 3600 * 1000,
    // The limits of its store are not in its types.
    indexedDB: { maxFileSize: LARGEST_KEPT, maxTotalSize: MOST_KEPT } as object,
  });
  uppy.on("restored", () => {
    const missing = uppy.getFiles().filter((file) => file.isGhost);
    for (const file of missing) uppy.removeFile(file.id);
    if (missing.length) say("Some uploads were too large to be kept over the reload. Add them again: they go on.");
    if (uppy.getFiles().length) {
      say("Going on with the uploads from before the reload.");
      uppy.emit("restore-confirmed");
    }
    show();
  });
}

/** One tab at a time keeps uploads; another would take up what the first is still sending. */
export function start(): void {
  if (!navigator.locks) keep(); // a browser has locks only over HTTPS or on the machine itself
  else
    void navigator.locks.request(LOCK, () => {
      keep();
      return new Promise(() => undefined);
    });
}
