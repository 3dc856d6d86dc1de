// The keyboard shortcuts of the page, and the list of them.

import { useLayoutEffect, useRef } from "preact/hooks";
import { go, type View } from "../router";
import { clear } from "../state/selection";
import { offered } from "../state/session";
import { texts } from "../texts";
import { focusSearch } from "./filters";
import { Icon } from "./icons";

const words = texts.keys;
const LETTERS: Record<string, View> = { p: "photos", t: "tasks", b: "batches", r: "recipes", s: "system" };
const AFTER_G = 1500;

const isTyping = (target: EventTarget | null) =>
  target instanceof HTMLElement && (target.isContentEditable || ["INPUT", "SELECT", "TEXTAREA"].includes(target.tagName));

export function Help() {
  const dialog = useRef<HTMLDialogElement>(null);
  useShortcuts(dialog);
  return (
    <>
      <button class="plain round help" aria-label={words.title} title={words.title} onClick={() => dialog.current?.showModal()}>
        <Icon name="keyboard" />
      </button>
      <dialog ref={dialog} class="keys" aria-labelledby="keys">
        <h2 id="keys">{words.title}</h2>
        <dl>
          {words.list.map(([keys, action]) => (
            <div key={keys}>
              <dt>
                {keys.split(" ").map((key) => (
                  <kbd key={key}>{key}</kbd>
                ))}
              </dt>
              <dd>{action}</dd>
            </div>
          ))}
        </dl>
        <form method="dialog" class="actions">
          <button>{words.close}</button>
        </form>
      </dialog>
    </>
  );
}

function useShortcuts(help: { current: HTMLDialogElement | null }) {
  // Runs before painting, since a later effect would miss the first keys.
  useLayoutEffect(() => {
    let g = -Infinity;
    const heard = (event: KeyboardEvent) => {
      if (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "?" && !document.querySelector("dialog.confirm[open]")) {
        event.preventDefault();
        return help.current?.open ? help.current.close() : help.current?.showModal();
      }
      if (document.querySelector("dialog[open]")) return;
      if (event.key === "/") {
        if (!focusSearch()) go("photos");
        event.preventDefault();
      } else if (event.key === "g") {
        g = event.timeStamp;
      } else if (event.key in LETTERS && event.timeStamp - g < AFTER_G) {
        g = -Infinity;
        const to = LETTERS[event.key]!;
        if (offered.value.includes(to)) go(to);
      } else if (event.key === "Escape") clear();
    };
    document.addEventListener("keydown", heard);
    return () => document.removeEventListener("keydown", heard);
  }, []);
}
