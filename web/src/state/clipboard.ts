// Copying text, also over plain HTTP: browsers offer `navigator.clipboard` only over HTTPS or on the machine itself.

import { say } from "./messages";
import { texts } from "../texts";

/** Copy a text and say `done`, or show the text so that it can be copied by hand. */
export async function copy(text: string, done: string): Promise<void> {
  if ((await byPermission(text)) || bySelection(text)) say(done);
  else say(texts.notCopied(text), "bad");
}

async function byPermission(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Outside an open dialog nothing can be selected, so the text stands for a moment where the focus is. */
function bySelection(text: string): boolean {
  const focused = document.activeElement as HTMLElement | null;
  const field = document.createElement("textarea");
  field.className = "hidden";
  field.value = text;
  (focused?.closest("dialog") ?? document.body).append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return done;
}
