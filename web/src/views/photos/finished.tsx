// A finished photo: before and after, its outputs and their sizes, EXIF data, downloads.

import { ShareButton } from "../../access/share";
import { useEffect, useState } from "preact/hooks";
import { archiveUrl, originalUrl, type Output, renditionUrl, resultUrl, shownUrl, type Task } from "../../api/api";
import { type PhotoData, photoData } from "../../exif";
import { bytes, change, dimensions, kind, outputNotes } from "../../format";
import { Icon } from "../../parts/icons";
import { Stage } from "../../parts/stage";
import { link } from "../../router";
import { texts } from "../../texts";

const words = texts.viewer;
const SHOWN_BY_BROWSERS = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"];

export function Finished({ task, name, swipe }: { task: Task; name: string; swipe: (by: -1 | 1) => void }) {
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
        <Files task={task} shown={shown} show={setShown} />
        <Together task={task} />
        <Photo task={task} />
      </div>
    </div>
  );
}

/** The outputs, of which one is shown, and the original. */
const Files = ({ task, shown, show }: { task: Task; shown: string; show: (output: string) => void }) => (
  <ul>
    {task.outputs.map((one) => (
      <li key={one.name}>
        <label>
          <input type="radio" name="output" checked={one.name === shown} onChange={() => show(one.name)} />
          <span class="name">{one.name}</span>
          <OutputFacts output={one} original={task.input?.size} />
        </label>
        <Download href={resultUrl(task.id, one.name)} label={texts.task.download(one.name)} />
      </li>
    ))}
    <li class="original">
      <span class="name">
        {texts.task.original}
        <span class="quiet">{task.input ? `${kind(task.media_type)} · ${bytes(task.input.size)}` : ""}</span>
      </span>
      <Download href={originalUrl(task.id)} label={texts.task.downloadOriginal} />
    </li>
  </ul>
);

const Download = ({ href, label }: { href: string; label: string }) => (
  <a class="button plain round" href={href} download aria-label={label}>
    <Icon name="download" />
  </a>
);

/** What concerns all outputs: links to them, one archive, and what was noted when they were made. */
const Together = ({ task }: { task: Task }) => (
  <>
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
  </>
);

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
