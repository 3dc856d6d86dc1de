// Short messages that go by themselves, read out to screen readers.

import { signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { texts } from "../texts";

interface Toast {
  id: number;
  text: string;
  tone: "good" | "bad";
}

const STAYS = 7000;
const toasts = signal<Toast[]>([]);
let number = 0;

export function say(text: string, tone: "good" | "bad" = "good"): void {
  const id = ++number;
  toasts.value = [...toasts.value.filter((toast) => toast.text !== text).slice(-3), { id, text, tone }];
  setTimeout(() => {
    toasts.value = toasts.value.filter((toast) => toast.id !== id);
  }, STAYS);
}

/** Do something that the service may refuse, and say why it did. */
export async function attempt<T>(action: () => Promise<T>): Promise<T | undefined> {
  try {
    return await action();
  } catch (error) {
    say(error instanceof Error ? error.message : String(error), "bad");
    return undefined;
  }
}

/** A popover, so that messages stand above open dialogs: each new one is raised anew. */
export function Toasts() {
  const box = useRef<HTMLDivElement>(null);
  const shown = toasts.value;
  useLayoutEffect(() => {
    const popover = box.current;
    if (!popover?.showPopover) return;
    if (popover.matches(":popover-open")) popover.hidePopover();
    if (shown.length) popover.showPopover();
  }, [shown.at(-1)?.id, shown.length === 0]);
  return (
    <div ref={box} popover="manual" class="toasts" role="log" aria-live="polite" aria-label={texts.messages}>
      {shown.map((toast) => (
        <p key={toast.id} class={toast.tone}>
          {toast.text}
        </p>
      ))}
    </div>
  );
}
