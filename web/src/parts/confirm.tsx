// The dialog of a question.

import { useLayoutEffect, useRef } from "preact/hooks";
import { type Asked, question } from "../state/questions";
import { texts } from "../texts";
import { shown } from "./dialog";

export const Confirm = () => question.value && <Question asked={question.value} />;

function Question({ asked }: { asked: Asked }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const choice = useRef<HTMLSelectElement>(null);
  useLayoutEffect(() => shown(dialog.current!), [asked]);
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
        {asked.other && <button onClick={() => asked.answer(asked.other)}>{asked.other}</button>}
        <button class={`main ${asked.danger ? "danger" : ""}`} onClick={() => asked.answer(choice.current?.value ?? "")}>
          {asked.action}
        </button>
      </div>
    </dialog>
  );
}
