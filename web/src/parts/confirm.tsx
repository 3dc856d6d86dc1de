// "Really?" before what cannot be undone.

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

interface Question {
  title: string;
  words: string;
  action: string;
  answer: (yes: boolean) => void;
}
const question = signal<Question | undefined>(undefined);

export const confirmed = (title: string, words: string, action: string) =>
  new Promise<boolean>((resolve) => {
    question.value = {
      title,
      words,
      action,
      answer: (yes) => {
        question.value = undefined;
        resolve(yes);
      },
    };
  });

export function Confirm() {
  const dialog = useRef<HTMLDialogElement>(null);
  const asked = question.value;
  useEffect(() => {
    if (asked) dialog.current?.showModal();
  }, [asked]);
  if (!asked) return null;
  return (
    <dialog ref={dialog} class="confirm" aria-labelledby="asked" onCancel={() => asked.answer(false)}>
      <h2 id="asked">{asked.title}</h2>
      <p>{asked.words}</p>
      <div class="actions">
        <button onClick={() => asked.answer(false)}>Keep</button>
        <button class="main danger" onClick={() => asked.answer(true)}>
          {asked.action}
        </button>
      </div>
    </dialog>
  );
}
