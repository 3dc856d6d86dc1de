// The short messages, read out to screen readers.

import { useLayoutEffect, useRef } from "preact/hooks";
import { toasts } from "../state/messages";
import { texts } from "../texts";

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
