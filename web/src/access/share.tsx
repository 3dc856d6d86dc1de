// Share one result, or the original, by a signed link.

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { Icon } from "../parts/icons";
import { copy } from "../state/clipboard";
import { attempt } from "../state/messages";
import { makeLink } from "../state/session";
import { texts as all } from "../texts";

const texts = all.access;
const words = texts.share;
const ORIGINAL = "";
const DAYS = [1, 7, 30, 365];

export function ShareButton({ task, outputs }: { task: string; outputs: string[] }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <button onClick={() => setOpen(true)}>
        <Icon name="copy" /> {words.open}
      </button>
      {open && <Share task={task} outputs={outputs} close={() => setOpen(false)} />}
    </>
  );
}

function Share({ task, outputs, close }: { task: string; outputs: string[]; close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [link, setLink] = useState("");
  useLayoutEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog
      ref={dialog}
      class="share"
      aria-labelledby="share"
      onClose={(event) => {
        event.stopPropagation();
        close();
      }}
    >
      <h2 id="share">{words.title}</h2>
      <p class="quiet">{words.words}</p>
      <LinkForm task={task} outputs={outputs} made={setLink} />
      {link && (
        <p class="made">
          <input readOnly aria-label={words.made} value={link} /> <button onClick={() => void copy(link, texts.keys.copied)}>{words.copy}</button>
        </p>
      )}
      <div class="actions">
        <button onClick={() => dialog.current?.close()}>{words.close}</button>
      </div>
    </dialog>
  );
}

/** What is shared, and for how long. */
function LinkForm({ task, outputs, made }: { task: string; outputs: string[]; made: (link: string) => void }) {
  const [what, setWhat] = useState(outputs[0] ?? ORIGINAL);
  const [days, setDays] = useState(7);
  const make = (event: Event) => {
    event.preventDefault();
    const chosen = what === ORIGINAL ? { original: true } : { output: what };
    void attempt(async () => made((await makeLink(task, { ...chosen, expires_in: days * 86400 })).url));
  };
  return (
    <form onSubmit={make}>
      <label>
        <span>{words.what}</span>
        <select value={what} onChange={(event) => setWhat(event.currentTarget.value)}>
          {outputs.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
          <option value={ORIGINAL}>{words.original}</option>
        </select>
      </label>
      <label>
        <span>{words.days}</span>
        <select value={days} onChange={(event) => setDays(Number(event.currentTarget.value))}>
          {DAYS.map((count) => (
            <option key={count} value={count}>
              {count}
            </option>
          ))}
        </select>
      </label>
      <button class="main">{words.create}</button>
    </form>
  );
}
