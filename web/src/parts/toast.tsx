// Short messages that go by themselves, read out to screen readers.

import { signal } from "@preact/signals";

interface Toast {
  id: number;
  words: string;
  tone: "good" | "bad";
}

const STAYS = 7000;
const toasts = signal<Toast[]>([]);
let number = 0;

export function say(words: string, tone: "good" | "bad" = "good"): void {
  const id = ++number;
  toasts.value = [...toasts.value.filter((toast) => toast.words !== words).slice(-3), { id, words, tone }];
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

export const Toasts = () => (
  <div class="toasts" role="log" aria-live="polite" aria-label="Messages">
    {toasts.value.map((toast) => (
      <p key={toast.id} class={toast.tone}>
        {toast.words}
      </p>
    ))}
  </div>
);
