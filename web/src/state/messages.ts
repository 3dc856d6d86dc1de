// Short messages that disappear by themselves; parts/toast.tsx shows them.

import { signal } from "@preact/signals";

export interface Toast {
  id: number;
  text: string;
  tone: "good" | "bad";
}

const STAYS = 7000;
export const toasts = signal<Toast[]>([]);
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
