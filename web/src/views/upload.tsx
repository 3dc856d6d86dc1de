// Where photos go in, and what is on its way.

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { bytes, plural } from "../format";
import { Icon } from "../parts/icons";
import { choose, chosen, recipes } from "../recipes";
import * as uploads from "../uploads";

const SHOWN = 60;
const over = signal(false);

/** Drops and pastes anywhere on the page count. */
function useDropAndPaste() {
  useEffect(() => {
    let depth = 0;
    const carriesFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const enter = (event: DragEvent) => {
      if (!carriesFiles(event)) return;
      depth += 1;
      over.value = true;
    };
    const leave = () => {
      depth = Math.max(0, depth - 1);
      if (depth === 0) over.value = false;
    };
    const hold = (event: DragEvent) => carriesFiles(event) && event.preventDefault();
    const drop = (event: DragEvent) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      depth = 0;
      over.value = false;
      void uploads.addDropped(event.dataTransfer!);
    };
    const paste = (event: ClipboardEvent) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length) uploads.add(files);
    };
    const leaving = new AbortController();
    const { signal } = leaving;
    document.addEventListener("dragenter", enter, { signal });
    document.addEventListener("dragleave", leave, { signal });
    document.addEventListener("dragover", hold, { signal });
    document.addEventListener("drop", drop, { signal });
    document.addEventListener("paste", paste, { signal });
    return () => leaving.abort();
  }, []);
}

export function Upload() {
  useDropAndPaste();
  return (
    <section class="upload" aria-label="Upload">
      <div class={`drop ${over.value ? "over" : ""}`}>
        <div class="invitation">
          <Icon name="lamp" />
          <div>
            <h1>Add your photos</h1>
            <p>Drop them here, whole folders too, or paste. An upload that breaks off goes on by itself.</p>
          </div>
        </div>
        <div class="ways">
          <Pick icon="upload" words="Choose photos" main multiple accept="image/*" />
          <Pick icon="folder" words="A folder" webkitdirectory />
          <Pick icon="camera" words="Camera" accept="image/*" capture="environment" class="touch" />
        </div>
        <RecipeChoice />
      </div>
      {uploads.rows.value.length > 0 && <Tray />}
    </section>
  );
}

type PickProps = {
  icon: "upload" | "folder" | "camera";
  words: string;
  main?: boolean;
  class?: string;
  multiple?: boolean;
  accept?: string;
  capture?: "environment";
  webkitdirectory?: boolean;
};

function Pick({ icon, words, main, class: name, ...input }: PickProps) {
  const field = useRef<HTMLInputElement>(null);
  const take = () => {
    uploads.add([...(field.current?.files ?? [])]);
    field.current!.value = "";
  };
  return (
    <>
      <button class={`${main ? "main" : ""} ${name ?? ""}`} onClick={() => field.current?.click()}>
        <Icon name={icon} /> {words}
      </button>
      <input ref={field} type="file" hidden aria-label={words} onChange={take} {...input} />
    </>
  );
}

function RecipeChoice() {
  const described = recipes.value.find((recipe) => recipe.name === chosen.value);
  return (
    <p class="choice">
      <label>
        <span>Recipe</span>
        <select value={chosen.value} onChange={(event) => choose(event.currentTarget.value)}>
          {recipes.value.map((recipe) => (
            <option key={recipe.name} value={recipe.name}>
              {recipe.name}
            </option>
          ))}
        </select>
      </label>
      <span class="quiet">{described?.spec.description ?? ""}</span>
    </p>
  );
}

function Tray() {
  const rows = uploads.rows.value;
  const { sent, total, files } = uploads.overall.value;
  const failed = rows.filter((row) => row.state === "failed").length;
  const share = total ? sent / total : 0;
  const ordered = [...rows].sort((one, other) => rank(one) - rank(other));
  return (
    <div class="tray">
      <div class="overall">
        <h2>
          {plural(uploads.done.value.files, "photo")} of {files} uploaded
        </h2>
        <span class="quiet">
          {bytes(sent)} of {bytes(total)}
          {failed ? ` · ${plural(failed, "upload")} failed` : ""}
        </span>
        <span class="actions">
          {failed > 0 && <button onClick={uploads.clearFailed}>Clear failed</button>}
          {uploads.paused.value ? (
            <button onClick={uploads.resumeAll}>
              <Icon name="play" /> Resume all
            </button>
          ) : (
            <button onClick={uploads.pauseAll}>
              <Icon name="pause" /> Pause all
            </button>
          )}
        </span>
        <progress value={share} aria-label="All uploads" />
      </div>
      <ul>
        {ordered.slice(0, SHOWN).map((row) => (
          <Row key={row.id} row={row} />
        ))}
      </ul>
      {rows.length > SHOWN && <p class="quiet">and {plural(rows.length - SHOWN, "more photo")}</p>}
    </div>
  );
}

const RANK = { failed: 0, sending: 1, paused: 2, waiting: 3, missing: 4 };
const rank = (row: uploads.Row) => RANK[row.state];
const WORDS = { waiting: "Waiting", sending: "", paused: "Paused", failed: "Failed", missing: "Add it again" };

function Row({ row }: { row: uploads.Row }) {
  const share = row.size ? row.sent / row.size : 0;
  return (
    <li class={row.state}>
      <span class="name" title={row.name}>
        {row.name}
      </span>
      <span class="quiet">
        {row.state === "sending" ? `${Math.floor(share * 100)} % of ${bytes(row.size)}` : WORDS[row.state]}
      </span>
      <span class="actions">
        {row.state === "failed" ? (
          <button class="plain round" aria-label={`Try ${row.name} again`} onClick={() => void uploads.retry(row.id)}>
            <Icon name="retry" />
          </button>
        ) : (
          <button
            class="plain round"
            aria-label={`${row.state === "paused" ? "Resume" : "Pause"} ${row.name}`}
            onClick={() => uploads.toggle(row.id)}
          >
            <Icon name={row.state === "paused" ? "play" : "pause"} />
          </button>
        )}
        <button class="plain round" aria-label={`Remove ${row.name}`} onClick={() => uploads.remove(row.id)}>
          <Icon name="close" />
        </button>
      </span>
      {row.error ? <p class="error">{row.error}</p> : <progress value={share} aria-label={row.name} />}
    </li>
  );
}
