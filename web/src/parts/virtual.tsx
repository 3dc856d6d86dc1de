// A virtual list, which renders only the visible rows.

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

const AHEAD = 700;

export interface VirtualRow {
  key: string;
  /** In CSS pixels. */
  height: number;
  render: () => ComponentChildren;
}

interface Props {
  rows: readonly VirtualRow[];
  /** Called whenever the end is in sight and there may be more. */
  more: () => void;
  complete: boolean;
  class?: string;
  /** For tables: the ARIA roles of the list and its rows. */
  table?: boolean;
}

export function Virtual({ rows, more, complete, class: name, table }: Props) {
  const list = useRef<HTMLDivElement>(null);
  const sight = useSight(list);
  const tops = useMemo(() => {
    let top = 0;
    return rows.map((row) => (top += row.height) - row.height);
  }, [rows]);
  const total = rows.length ? tops.at(-1)! + rows.at(-1)!.height : 0;

  useEffect(() => {
    if (!complete && sight.bottom >= total) more();
  }, [rows, sight, complete, more]);

  let first = firstBelow(tops, sight.top);
  if (first > 0) first -= 1;
  const last = firstBelow(tops, sight.bottom);
  return (
    <div ref={list} class={`virtual ${name ?? ""}`} role={table ? "rowgroup" : undefined} style={{ height: `${total}px` }}>
      {rows.slice(first, last).map((row, offset) => (
        <div
          key={row.key}
          class="row"
          role={table ? "row" : undefined}
          aria-rowindex={table ? first + offset + 2 : undefined}
          style={{ transform: `translateY(${tops[first + offset]}px)`, height: `${row.height}px` }}
        >
          {row.render()}
        </div>
      ))}
    </div>
  );
}

/** What of a list is in sight or close to it, in pixels from its top. */
function useSight(list: { current: HTMLDivElement | null }) {
  const [sight, setSight] = useState({ top: 0, bottom: 1600 });
  useLayoutEffect(() => {
    const look = () => {
      if (!list.current) return;
      const above = -list.current.getBoundingClientRect().top;
      // Steps of a few hundred pixels: scrolling within one renders nothing.
      const top = Math.floor((above - AHEAD) / 300) * 300;
      const bottom = Math.ceil((above + window.innerHeight + AHEAD) / 300) * 300;
      setSight((known) => (known.top === top && known.bottom === bottom ? known : { top, bottom }));
    };
    look();
    const watcher = new ResizeObserver(look);
    watcher.observe(document.body);
    window.addEventListener("scroll", look, { passive: true });
    window.addEventListener("resize", look);
    return () => {
      watcher.disconnect();
      window.removeEventListener("scroll", look);
      window.removeEventListener("resize", look);
    };
  }, []);
  return sight;
}

/** The index of the first row that begins at or below a position. */
function firstBelow(tops: readonly number[], position: number): number {
  let low = 0;
  let high = tops.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tops[middle]! < position) low = middle + 1;
    else high = middle;
  }
  return low;
}
