// What pointers, the wheel and keys do on a stage.

import { useLayoutEffect, useRef } from "preact/hooks";
import type { Extent, Point, View } from "./view";

export const STEP = 1.5;
const SWIPE = 60;
const NEAR_LINE = 36;

type Box = { current: HTMLDivElement | null };
type Zoom = (scale: number, at?: Point) => void;
interface Handles {
  view: View;
  move: (next: View) => void;
  zoom: Zoom;
  share: number;
  setShare: (share: number) => void;
  size: Extent;
  swipe?: (by: -1 | 1) => void;
}
interface Start {
  mode: "slide" | "pan" | "swipe" | "pinch";
  at: Point;
  view: View;
  spread: number;
}

const fromCorner = (element: Element, event: MouseEvent): Point => {
  const bounds = element.getBoundingClientRect();
  return { x: event.clientX - bounds.left, y: event.clientY - bounds.top };
};
const fromMiddle = (element: Element, event: MouseEvent): Point => {
  const bounds = element.getBoundingClientRect();
  return { x: event.clientX - bounds.left - bounds.width / 2, y: event.clientY - bounds.top - bounds.height / 2 };
};
const middle = (points: Point[]) => ({ x: (points[0]!.x + points[1]!.x) / 2, y: (points[0]!.y + points[1]!.y) / 2 });
const spread = (points: Point[]) => Math.hypot(points[0]!.x - points[1]!.x, points[0]!.y - points[1]!.y);

/** One pointer moves the slider, pans or swipes; two zoom. */
export function usePointers(box: Box, handles: Handles) {
  const down = useRef(new Map<number, Point>());
  const start = useRef<Start | undefined>(undefined);
  const keep = (event: PointerEvent): Point => {
    const at = fromCorner(box.current!, event);
    down.current.set(event.pointerId, at);
    return at;
  };
  const forget = (event: PointerEvent) => {
    down.current.delete(event.pointerId);
    if (down.current.size === 0) start.current = undefined;
  };
  return {
    onPointerDown: (event: PointerEvent) => {
      if (event.button !== 0) return;
      box.current!.setPointerCapture(event.pointerId);
      const at = keep(event);
      const points = [...down.current.values()];
      const mode = points.length > 1 ? "pinch" : modeOfOne(event, at, handles);
      start.current = { mode, at, view: handles.view, spread: points.length > 1 ? spread(points) : 0 };
    },
    onPointerMove: (event: PointerEvent) => {
      if (start.current && down.current.has(event.pointerId)) follow(start.current, keep(event), [...down.current.values()], handles);
    },
    onPointerUp: (event: PointerEvent) => {
      const begun = start.current;
      const at = fromCorner(box.current!, event);
      forget(event);
      if (begun?.mode === "slide") slide(at, handles);
      if (begun?.mode === "swipe" && Math.abs(at.x - begun.at.x) > SWIPE) handles.swipe?.(at.x < begun.at.x ? 1 : -1);
    },
    onPointerCancel: forget,
    onDblClick: (event: MouseEvent) =>
      handles.zoom(handles.view.scale > 1 ? 1 : Math.max(2, 1 / devicePixelRatio), fromMiddle(box.current!, event)),
  };
}

/** What one pointer does that goes down at a point. */
function modeOfOne(event: PointerEvent, at: Point, { view, share, size }: Handles): Start["mode"] {
  const nearLine = Math.abs(at.x - (share / 100) * size.width) < NEAR_LINE;
  if (nearLine || (view.scale === 1 && event.pointerType === "mouse")) return "slide";
  return view.scale > 1 ? "pan" : "swipe";
}

/** Do what was begun as far as the pointers have moved; a swipe waits until its pointer goes up. */
function follow(begun: Start, at: Point, points: Point[], handles: Handles) {
  if (begun.mode === "slide") slide(at, handles);
  else if (begun.mode === "pan") {
    handles.move({ ...begun.view, x: begun.view.x + at.x - begun.at.x, y: begun.view.y + at.y - begun.at.y });
  } else if (begun.mode === "pinch" && points.length > 1) {
    const { x, y } = middle(points);
    const from = { x: x - handles.size.width / 2, y: y - handles.size.height / 2 };
    handles.zoom((begun.view.scale * spread(points)) / begun.spread, from);
  }
}

const slide = (at: Point, { setShare, size }: Handles) => setShare(Math.round(Math.min(100, Math.max(0, (at.x / size.width) * 100))));

/** Two quick turns of the wheel must build on each other, so the handler changes with the view at once. */
export function useWheel(box: Box, view: View, zoom: Zoom) {
  useLayoutEffect(() => {
    const element = box.current!;
    const wheel = (event: WheelEvent) => {
      event.preventDefault();
      zoom(view.scale * Math.exp(-event.deltaY / 400), fromMiddle(element, event));
    };
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  });
}

/** Two quick keys must build on each other too. `act` says whether the key was one of the stage's. */
export function useKeys(box: Box, act: (key: string) => boolean) {
  useLayoutEffect(() => {
    const heard = (event: KeyboardEvent) => {
      if (!event.ctrlKey && !event.metaKey && !event.altKey && isForStage(event, box) && act(event.key)) event.preventDefault();
    };
    document.addEventListener("keydown", heard);
    return () => document.removeEventListener("keydown", heard);
  });
}

/** Whether the key is not one of a field, or of a dialog above the stage. */
function isForStage({ target }: KeyboardEvent, box: Box): boolean {
  if (target instanceof HTMLInputElement && target.type !== "range") return false;
  if (target instanceof HTMLSelectElement) return false;
  return [...document.querySelectorAll("dialog[open]")].every((one) => one.contains(box.current));
}
