// Rows of one height, of which only those in sight exist: a list of any length stays light.

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

const AHEAD = 12;

interface Props<T> {
  items: readonly T[];
  keyOf: (item: T) => string;
  row: (item: T, index: number) => ComponentChildren;
  /** Called when the end comes into sight. */
  more: () => void;
}

export function Virtual<T>({ items, keyOf, row, more }: Props<T>) {
  const list = useRef<HTMLDivElement>(null);
  const [height, setHeight] = useState(64);
  const [range, setRange] = useState({ first: 0, last: 40 });

  useLayoutEffect(() => {
    const look = () => {
      const element = list.current;
      if (!element) return;
      const tall = parseFloat(getComputedStyle(element).getPropertyValue("--row")) || 64;
      const above = -element.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(above / tall) - AHEAD);
      const last = Math.ceil((above + window.innerHeight) / tall) + AHEAD;
      setHeight(tall);
      setRange((known) => (known.first === first && known.last === last ? known : { first, last }));
    };
    look();
    window.addEventListener("scroll", look, { passive: true });
    window.addEventListener("resize", look);
    return () => {
      window.removeEventListener("scroll", look);
      window.removeEventListener("resize", look);
    };
  }, []);

  useEffect(() => {
    if (range.last >= items.length) more();
  }, [range.last, items.length, more]);

  return (
    <div ref={list} class="virtual" role="rowgroup" style={{ height: `${items.length * height}px` }}>
      {items.slice(range.first, range.last).map((item, offset) => (
        <div
          key={keyOf(item)}
          class="row"
          role="row"
          aria-rowindex={range.first + offset + 2}
          style={{ transform: `translateY(${(range.first + offset) * height}px)` }}
        >
          {row(item, range.first + offset)}
        </div>
      ))}
    </div>
  );
}
