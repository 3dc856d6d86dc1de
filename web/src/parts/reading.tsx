// What a view reads from the service, and what is said until then.

import { useEffect, useState } from "preact/hooks";
import { Problem, type TaskEvent } from "../api/api";
import { follow } from "../api/live";
import { texts } from "../texts";

const SOON = 1500;

interface Changes {
  /** Of these it is read again, at once or soon. */
  concerns: (event: TaskEvent) => boolean;
  after: number;
}
export const ALL: Changes = { concerns: () => true, after: SOON };
const NONE: Changes = { concerns: () => false, after: SOON };

/**
 * Call `read` at once, again after changes and when some may have been missed, and also while the service cannot
 * answer. Returns why the last call failed; empty if it did not.
 */
export function useReading(read: () => Promise<unknown>, changes = NONE): string {
  const [problem, setProblem] = useState("");
  useEffect(() => {
    let left = false;
    let timer: number | undefined;
    const now = async () => {
      timer = undefined;
      try {
        await read();
        if (!left) setProblem("");
      } catch (error) {
        if (left) return;
        setProblem(error instanceof Error ? error.message : String(error));
        if (!(error instanceof Problem) || error.transient) again();
      }
    };
    const again = (after = SOON) => void (timer ??= window.setTimeout(() => void now(), after));
    setProblem("");
    void now();
    const stop = follow({
      changed: (events) => events.some(changes.concerns) && again(changes.after),
      missed: () => again(),
    });
    return () => {
      left = true;
      stop();
      clearTimeout(timer);
    };
  }, [read]);
  return problem;
}

/** Said of what was not read yet, unless it comes at once. */
export const Loading = () => (
  <p class="empty not-yet" role="status">
    {texts.loading}
  </p>
);
