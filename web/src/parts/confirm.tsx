// A question before something that cannot be undone, or that needs a choice.

import { signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { texts } from "../texts";

interface Question {
  title: string;
  text: string;
  action: string;
  danger?: boolean;
  /** The button that changes nothing. */
  keep?: string;
  choice?: { label: string; options: readonly string[]; value?: string };
}
type Asked = Question & { answer: (given: string | undefined) => void };

const question = signal<Asked | undefined>(undefined);

/** Ask; return the option chosen, or undefined where the person decided against it. */
export const asking = (asked: Question) =>
  new Promise<string | undefined>((resolve) => {
    question.value = {
      ...asked,
      answer: (given) => {
        question.value = undefined;
        resolve(given);
      },
    };
  });

export const confirmed = async (asked: Question) => (await asking(asked)) !== undefined;

export function Confirm() {
  const dialog = useRef<HTMLDialogElement>(null);
  const choice = useRef<HTMLSelectElement>(null);
  const asked = question.value;
  useLayoutEffect(() => {
    if (asked) dialog.current?.showModal();
  }, [asked]);
  if (!asked) return null;
  return (
    <dialog ref={dialog} class="confirm" aria-labelledby="asked" onCancel={() => asked.answer(undefined)}>
      <h2 id="asked">{asked.title}</h2>
      <p>{asked.text}</p>
      {asked.choice && (
        <label>
          <span>{asked.choice.label}</span>
          <select ref={choice} defaultValue={asked.choice.value}>
            {asked.choice.options.map((one) => (
              <option key={one} value={one} selected={one === asked.choice!.value}>
                {one}
              </option>
            ))}
          </select>
        </label>
      )}
      <div class="actions">
        <button onClick={() => asked.answer(undefined)}>{asked.keep ?? texts.keep}</button>
        <button class={`main ${asked.danger ? "danger" : ""}`} onClick={() => asked.answer(choice.current?.value ?? "")}>
          {asked.action}
        </button>
      </div>
    </dialog>
  );
}
