// The upload tray: photos in progress, speed, and outcomes.

import { useEffect, useState } from "preact/hooks";
import { bytes, seconds, stateLabel } from "../../format";
import { Icon } from "../../parts/icons";
import { recipes } from "../../state/recipes";
import { link } from "../../router";
import { texts } from "../../texts";
import * as uploads from "../../state/uploads";

const words = texts.uploads;
const SHOWN = 60;
const PREVIEWED = /^image\/(jpeg|png|webp|gif|avif)$/;
const LARGEST_PREVIEW = 30 * 1024 ** 2;

export function Tray() {
  const rows = uploads.rows.value;
  const isOver = uploads.active.value.length === 0;
  const ordered = [...rows].sort((one, other) => rank(one) - rank(other));
  return (
    <div class="tray" role="region" aria-label={words.tray}>
      <Overall rows={rows} isOver={isOver} />
      {!isOver && uploads.held.value && (
        <p class="quiet" role="status">
          {words.held(uploads.held.value)}
        </p>
      )}
      <ul tabIndex={0} aria-label={words.tray}>
        {ordered.slice(0, SHOWN).map((row) => (
          <Line key={row.id} row={row} />
        ))}
      </ul>
      {rows.length > SHOWN && <p class="quiet">{words.more(rows.length - SHOWN)}</p>}
    </div>
  );
}

/** How far all uploads together are, and what can be done with all of them. */
function Overall({ rows, isOver }: { rows: readonly uploads.Row[]; isOver: boolean }) {
  const { sent, total, uploaded } = uploads.overall.value;
  const failed = rows.filter((row) => row.state === "failed").length;
  return (
    <div class="overall">
      <h2>
        <span role="status">{isOver ? words.ended(uploaded, failed) : words.progress(uploaded, rows.length)}</span>
      </h2>
      <span class="quiet">
        {isOver ? <Outcomes rows={rows} /> : [words.sent(bytes(sent), bytes(total)), ...rate(total - sent)].join(" · ")}
        {failed && !isOver ? ` · ${words.failed(failed)}` : ""}
      </span>
      <span class="actions">
        {failed > 0 && <button onClick={uploads.clearFailed}>{words.clearFailed}</button>}
        {uploads.ready.value.length > 0 && (
          <button class="main" onClick={uploads.send}>
            <Icon name="upload" /> {words.start(uploads.ready.value.length)}
          </button>
        )}
        <CloseOrPause isOver={isOver} />
      </span>
      {!isOver && <progress value={total ? sent / total : 0} aria-label={words.all} />}
    </div>
  );
}

function CloseOrPause({ isOver }: { isOver: boolean }) {
  if (isOver) {
    return (
      <button onClick={uploads.close}>
        <Icon name="close" /> {words.close}
      </button>
    );
  }
  return uploads.paused.value ? (
    <button onClick={uploads.resumeAll}>
      <Icon name="play" /> {words.resumeAll}
    </button>
  ) : (
    <button onClick={uploads.pauseAll}>
      <Icon name="pause" /> {words.pauseAll}
    </button>
  );
}

function rate(left: number): string[] {
  const speed = uploads.speed.value;
  return speed > 0 ? [words.speed(bytes(speed)), words.left(seconds(Math.ceil(left / speed)))] : [];
}

/** How many of the uploaded photos are in which state by now. */
function Outcomes({ rows }: { rows: readonly uploads.Row[] }) {
  const counts = new Map<string, number>();
  for (const row of rows) if (row.outcome) counts.set(stateLabel(row.outcome), (counts.get(stateLabel(row.outcome)) ?? 0) + 1);
  return <>{[...counts].map(([label, held]) => `${label}: ${held}`).join(" · ")}</>;
}

const RANK = { failed: 0, sending: 1, paused: 2, ready: 3, waiting: 3, uploaded: 4 };
const rank = (row: uploads.Row) => RANK[row.state] - (row.outcome === "failed" || row.outcome === "quarantined" ? 4 : 0);

function Line({ row }: { row: uploads.Row }) {
  const [isEditing, setEditing] = useState(false);
  const share = row.size ? row.sent / row.size : 0;
  const isOpen = row.state === "ready" || row.state === "waiting" || row.state === "failed";
  return (
    <li class={row.state}>
      <Preview data={row.data} />
      {isEditing && isOpen ? <Edit row={row} close={() => setEditing(false)} /> : <Facts row={row} share={share} />}
      <span class="actions">
        {isOpen && row.data && !isEditing && (
          <button class="plain round" aria-label={words.edit(row.name)} title={words.edit(row.name)} onClick={() => setEditing(true)}>
            <Icon name="edit" />
          </button>
        )}
        <Actions row={row} />
      </span>
      {row.error || row.reason ? (
        <p class="error">{row.error || row.reason}</p>
      ) : (
        row.state !== "uploaded" && <progress value={share} aria-label={row.name} />
      )}
    </li>
  );
}

const Facts = ({ row, share }: { row: uploads.Row; share: number }) => (
  <>
    <span class="name" title={row.name} dir="auto">
      {row.task ? <a href={link("tasks", row.task)}>{row.name}</a> : row.name}
    </span>
    <span class="quiet">
      {row.outcome ? stateLabel(row.outcome) : row.state === "sending" ? words.share(Math.floor(share * 100), bytes(row.size)) : words.states[row.state]}
      {` · ${row.recipe}`}
    </span>
  </>
);

/** What can be done with one upload besides a change of its name or recipe. */
const Actions = ({ row }: { row: uploads.Row }) => (
  <>
    {row.state === "failed" && (
      <button class="plain round" aria-label={words.retry(row.name)} onClick={() => void uploads.retry(row.id)}>
        <Icon name="retry" />
      </button>
    )}
    {(row.state === "sending" || row.state === "paused") && (
      <button
        class="plain round"
        aria-label={row.state === "paused" ? words.resume(row.name) : words.pause(row.name)}
        onClick={() => uploads.toggle(row.id)}
      >
        <Icon name={row.state === "paused" ? "play" : "pause"} />
      </button>
    )}
    <button class="plain round" aria-label={words.remove(row.name)} onClick={() => uploads.remove(row.id)}>
      <Icon name="close" />
    </button>
  </>
);

function Edit({ row, close }: { row: uploads.Row; close: () => void }) {
  const save = (event: SubmitEvent & { currentTarget: HTMLFormElement }) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    close();
    uploads.change(row.id, { name: String(form.get("name")), recipe: String(form.get("recipe")) });
  };
  return (
    <form class="edit-upload" onSubmit={save}>
      <input name="name" type="text" defaultValue={row.name} aria-label={words.name} required />
      <select name="recipe" aria-label={texts.filters.recipe}>
        {recipes.value.map((recipe) => (
          <option key={recipe.name} value={recipe.name} selected={recipe.name === row.recipe}>
            {recipe.name}
          </option>
        ))}
      </select>
      <button>{words.save}</button>
    </form>
  );
}

/** The photo itself, small, from the file: nothing was made yet. */
function Preview({ data }: { data: Blob | undefined }) {
  const [address, setAddress] = useState("");
  useEffect(() => {
    if (!data || !PREVIEWED.test(data.type) || data.size > LARGEST_PREVIEW) return undefined;
    const made = URL.createObjectURL(data);
    setAddress(made);
    return () => URL.revokeObjectURL(made);
  }, [data]);
  return address ? (
    <img class="preview-small" src={address} alt="" draggable={false} loading="lazy" decoding="async" onError={() => setAddress("")} />
  ) : (
    <span class="preview-small" />
  );
}
