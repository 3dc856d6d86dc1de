// Questions before something that cannot be undone, or that needs a choice; parts/confirm.tsx asks them.

import { signal } from "@preact/signals";

interface Question {
  title: string;
  text: string;
  action: string;
  danger?: boolean;
  /** The button that changes nothing. */
  keep?: string;
  /** A button that does something else; it answers with its label. */
  other?: string;
  choice?: { label: string; options: readonly string[]; value?: string };
}
export type Asked = Question & { answer: (given: string | undefined) => void };

export const question = signal<Asked | undefined>(undefined);

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
