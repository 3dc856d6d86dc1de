// The viewer of one photo: before and after, its outputs and their sizes, EXIF data, downloads.

import { ShareButton } from "../../access/share";
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { archiveUrl, deleteTask, getTask, originalUrl, type Output, renditionUrl, resultUrl, shownUrl, State, type Task } from "../../api/api";
import { type PhotoData, photoData } from "../../exif";
import { toQuery } from "../../api/filter";
import { bytes, change, dimensions, kind, outputNotes, reason } from "../../format";
import { shown } from "../../parts/dialog";
import { Icon } from "../../parts/icons";
import { Loading, useReading } from "../../parts/reading";
import { Stage } from "../../parts/stage";
import { attempt } from "../../state/messages";
import { link, query, replace, useSubject } from "../../router";
import { may } from "../../state/session";
import type { TaskList } from "../../state/tasks";
import { texts } from "../../texts";
import { confirmDelete } from "../tasks/actions";

const words = texts.viewer;
const SHOWN_BY_BROWSERS = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"];
const AHEAD = 5;
/** Whether the gallery opened it, so that closing goes back to where the gallery was. */
const opened = { from: "" };
window.addEventListener("hashchange", (event) => {
  opened.from = event.oldURL.includes("#/photos/") ? opened.from : event.oldURL;
});

export function Viewer({ id, list }: { id: string; list: TaskList }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [found, setFound] = useState<Task | undefined>();
  const task = found?.id === id ? found : list.items.value.find((one) => one.id === id);
  const read = useCallback(() => getTask(id).then(setFound), [id]);
  const problem = useReading(read, { concerns: (event) => event.task === id, after: 0 });
  useLayoutEffect(() => {
    const close = shown(dialog.current!);
    dialog.current!.focus();
    return close;
  }, []);

  const items = list.items.value.filter((one) => one.state === State.finished);
  const place = items.findIndex((one) => one.id === id);
  const step = (by: number) => {
    const next = items[place + by];
    if (place >= 0 && next) replace("photos", next.id, query.value);
    if (place + by > items.length - AHEAD) void list.more();
  };
  const close = () => {
    if (opened.from) {
      opened.from = "";
      history.back();
    } else replace("photos", "", query.value);
  };
  const keys = (event: KeyboardEvent) => {
    if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) return;
    if ((event.target as Element).closest("dialog") !== dialog.current) return; // in a dialog above
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
    if (event.key === "Delete" && task && may("operate")) void drop(task);
  };
  const drop = async (shown: Task) => {
    if (!(await confirmDelete(shown))) return;
    await attempt(async () => {
      await deleteTask(id);
      list.forget(id);
      const next = items[place + 1] ?? items[place - 1];
      if (next) replace("photos", next.id, query.value);
      else close();
    });
  };
  const name = task?.filename || id;
  useSubject(name);
  // The dialog itself takes the focus, so that no key does anything that cannot be undone.
  return (
    <dialog ref={dialog} class="viewer" aria-label={name} tabIndex={-1} onCancel={(event) => event.target === dialog.current && (event.preventDefault(), close())} onKeyDown={keys}>
      <div class="head">
        <div>
          <h2 title={name} dir="auto">{name}</h2>
          <p class="quiet">
            {task && (
              <>
                {task.recipe} · {reason(task)} · <a href={link("tasks", id)}>{words.task}</a>
              </>
            )}
          </p>
        </div>
        <span class="actions">
          <button class="plain round" aria-label={words.newer} disabled={place <= 0} onClick={() => step(-1)}>
            <Icon name="left" />
          </button>
          <button class="plain round" aria-label={words.older} disabled={place < 0 || place >= items.length - 1} onClick={() => step(1)}>
            <Icon name="right" />
          </button>
          {may("operate") && (
            <button class="plain round" aria-label={texts.selection.actions.delete} onClick={() => task && void drop(task)}>
              <Icon name="trash" />
            </button>
          )}
          <button class="plain round" aria-label={words.close} onClick={close}>
            <Icon name="close" />
          </button>
        </span>
      </div>
      {problem && <p class="error">{problem}</p>}
      {!task && !problem && <Loading />}
      {task?.state === State.finished && <Finished key={task.id} task={task} name={name} swipe={step} />}
      {task && task.state !== State.finished && (
        <p class="empty">
          {reason(task)} <a href={link("tasks", id, toQuery({}))}>{words.task}</a>
        </p>
      )}
    </dialog>
  );
}

function Finished({ task, name, swipe }: { task: Task; name: string; swipe: (by: -1 | 1) => void }) {
  const largest = task.outputs.reduce((best, output) => (output.width > best.width ? output : best), task.outputs[0]!);
  const [shown, setShown] = useState(largest?.name ?? "");
  const output = task.outputs.find((one) => one.name === shown) ?? largest;
  if (!output) {
    return (
      <p class="empty">
        <a href={link("tasks", task.id)}>{words.task}</a>
      </p>
    );
  }
  const canShow = (mediaType: string) => SHOWN_BY_BROWSERS.includes(mediaType);
  return (
    <div class="finished">
      <Stage
        name={name}
        before={{
          rendition: renditionUrl(task.id, undefined, "large"),
          ...(canShow(task.media_type) && { full: originalUrl(task.id, false) }),
        }}
        after={{
          rendition: renditionUrl(task.id, shown, "large"),
          ...(canShow(output.media_type) && { full: shownUrl(task.id, shown) }),
        }}
        width={output.width}
        height={output.height}
        swipe={swipe}
      />
      <div class="outputs" tabIndex={0} role="region" aria-label={words.outputs(task.outputs.length)}>
        <h3>{words.outputs(task.outputs.length)}</h3>
        <ul>
          {task.outputs.map((one) => (
            <li key={one.name}>
              <label>
                <input type="radio" name="output" checked={one.name === shown} onChange={() => setShown(one.name)} />
                <span class="name">{one.name}</span>
                <OutputFacts output={one} original={task.input?.size} />
              </label>
              <a class="button plain round" href={resultUrl(task.id, one.name)} download aria-label={texts.task.download(one.name)}>
                <Icon name="download" />
              </a>
            </li>
          ))}
          <li class="original">
            <span class="name">
              {texts.task.original}
              <span class="quiet">{task.input ? `${kind(task.media_type)} · ${bytes(task.input.size)}` : ""}</span>
            </span>
            <a class="button plain round" href={originalUrl(task.id)} download aria-label={texts.task.downloadOriginal}>
              <Icon name="download" />
            </a>
          </li>
        </ul>
        <ShareButton task={task.id} outputs={task.outputs.map((one) => one.name)} />
        {task.outputs.length > 1 && (
          <a class="button" href={archiveUrl({ tasks: task.id })} download>
            <Icon name="download" /> {words.all}
          </a>
        )}
        {outputNotes(task).map((note) => (
          <p key={note} class="quiet">
            {note}
          </p>
        ))}
        <Photo task={task} />
      </div>
    </div>
  );
}

const OutputFacts = ({ output, original }: { output: Output; original: number | undefined }) => (
  <span class="quiet">
    {[kind(output.media_type), dimensions(output.width, output.height), bytes(output.size)].filter(Boolean).join(" · ")}
    {original ? ` (${change(output.size, original)})` : ""}
    {output.frames > 1 ? ` · ${words.frames(output.frames)}` : ""}
  </span>
);

/** What the uploaded file says of itself. */
function Photo({ task }: { task: Task }) {
  const [data, setData] = useState<PhotoData | undefined>();
  useEffect(() => {
    void photoData(originalUrl(task.id, false))
      .then(setData)
      .catch(() => undefined);
  }, [task.id]);
  if (!data) return null;
  return (
    <section class="photo-data" aria-labelledby="photo-data">
      <h3 id="photo-data">{words.data}</h3>
      <dl class="facts">
        {(Object.keys(words.fields) as (keyof PhotoData)[]).map(
          (name) =>
            data[name] && (
              <div key={name}>
                <dt>{words.fields[name]}</dt>
                <dd>{data[name]}</dd>
              </div>
            ),
        )}
      </dl>
    </section>
  );
}
