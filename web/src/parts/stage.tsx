// Before and after in one frame, with a slider between them; zoom by wheel, pinch, double click and keys, pan by dragging.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { texts } from "../texts";
import { Icon } from "./icons";
import { Thumbnail } from "./thumbnail";

const words = texts.stage;
const LARGEST = 8;
/** The longest side of a large rendition: zoomed in further, the file itself is shown. */
const RENDITION_SIDE = 2048;
const STEP = 1.5;
const SWIPE = 60;
const NEAR_LINE = 36;

export interface Side {
  rendition: string;
  /** The file itself, where browsers show its format. */
  full?: string;
}
interface Props {
  name: string;
  before: Side;
  after: Side;
  /** Pixels of what stands after. */
  width: number;
  height: number;
  labels?: [string, string];
  busy?: boolean;
  /** By touch, at the size that fits: -1 is the photo before, 1 the next. */
  swipe?: (by: -1 | 1) => void;
}
interface View {
  scale: number;
  x: number;
  y: number;
}
const FIT: View = { scale: 1, x: 0, y: 0 };
/** The size of the stage before the browser has told it, a frame after it is there. */
const UNKNOWN = { width: 1, height: 1 };

export function Stage(props: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [size, setSize] = useState(UNKNOWN);
  const [share, setShare] = useState(50);
  const [view, setView] = useState(FIT);
  useLayoutEffect(() => {
    const watcher = new ResizeObserver(([entry]) => setSize(entry!.contentRect));
    watcher.observe(box.current!);
    return () => watcher.disconnect();
  }, []);
  useEffect(() => setView(FIT), [props.before.rendition]);

  const fitOf = (width: number, height: number) => Math.min(width / (props.width || 1), height / (props.height || 1));
  const actualAt = (fit: number) => (props.width ? 1 / (fit * devicePixelRatio) : 1);
  const fit = fitOf(size.width, size.height);
  /** The scale at which one pixel of the photo is one of the screen. */
  const actual = actualAt(fit);
  /** A photo that is smaller than the stage is enlarged to fit it. */
  const least = Math.min(1, actual);
  const most = Math.max(LARGEST, actual * LARGEST);
  const clamp = (next: View): View => {
    const scale = Math.min(most, Math.max(least, next.scale));
    const over = Math.max(0, scale - 1) / 2;
    const reach = { x: over * size.width, y: over * size.height };
    return {
      scale,
      x: Math.min(reach.x, Math.max(-reach.x, next.x)),
      y: Math.min(reach.y, Math.max(-reach.y, next.y)),
    };
  };
  /** Zoom so that what is at a point (from the middle) stays there. */
  const zoom = (wanted: number, at = { x: 0, y: 0 }) =>
    setView((now) => {
      const scale = Math.min(most, Math.max(least, wanted));
      const next = scale / now.scale;
      return clamp({ scale, x: at.x - (at.x - now.x) * next, y: at.y - (at.y - now.y) * next });
    });
  const zoomToActual = () => {
    const { clientWidth, clientHeight } = box.current!;
    zoom(size === UNKNOWN ? actualAt(fitOf(clientWidth, clientHeight)) : actual);
  };
  const pointers = usePointers(box, { view, setView, clamp, zoom, share, setShare, size, ...(props.swipe && { swipe: props.swipe }) });

  // Two quick wheel turns or keys must build on each other, so the handlers change with the view at once.
  useLayoutEffect(() => {
    const element = box.current!;
    const wheel = (event: WheelEvent) => {
      event.preventDefault();
      const bounds = element.getBoundingClientRect();
      const at = { x: event.clientX - bounds.left - bounds.width / 2, y: event.clientY - bounds.top - bounds.height / 2 };
      zoom(view.scale * Math.exp(-event.deltaY / 400), at);
    };
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  });
  const keys = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const scales: Record<string, number> = { "+": view.scale * STEP, "=": view.scale * STEP, "-": view.scale / STEP, "0": 1 };
    const scale = scales[event.key];
    if (scale !== undefined) zoom(scale);
    else if (event.key === "1") zoomToActual();
    else if (event.key === "b") setShare((now) => (now === 100 ? 0 : 100));
    else return;
    event.preventDefault();
  };
  useLayoutEffect(() => {
    const heard = (event: KeyboardEvent) => {
      if (event.target instanceof HTMLInputElement && event.target.type !== "range") return;
      const dialogs = [...document.querySelectorAll("dialog[open]")];
      if (event.target instanceof HTMLSelectElement || dialogs.some((one) => !one.contains(box.current))) return;
      keys(event);
    };
    document.addEventListener("keydown", heard);
    return () => document.removeEventListener("keydown", heard);
  });

  const shownSide = Math.max(props.width, props.height) * fit * view.scale * devicePixelRatio;
  const isClose = shownSide > RENDITION_SIDE * 1.05;
  const source = (side: Side) => (isClose && side.full ? side.full : side.rendition);
  const frame = { transform: `translate(${view.x}px, ${view.y}px) scale(${view.scale})` };
  const percent = Math.round((view.scale / actual) * 100);
  const [left, right] = props.labels ?? [words.before, words.after];
  return (
    <div class={`stage ${props.busy ? "busy" : ""}`} aria-busy={props.busy}>
      <div ref={box} class={`glass ${view.scale > 1 ? "zoomed" : ""}`} {...pointers}>
        <div class="layer after">
          <div class="frame" style={frame}>
            <Thumbnail src={source(props.after)} alt={`${props.name}, ${right}`} />
          </div>
        </div>
        <div class="layer before" style={{ clipPath: `inset(0 ${100 - share}% 0 0)` }}>
          <div class="frame" style={frame}>
            <Thumbnail src={source(props.before)} alt={`${props.name}, ${left}`} />
          </div>
        </div>
        <span class="tag one" aria-hidden="true">
          {left}
        </span>
        <span class="tag two" aria-hidden="true">
          {right}
        </span>
        <input
          type="range"
          min="0"
          max="100"
          value={share}
          aria-label={words.slider}
          aria-valuetext={words.share(share)}
          onInput={(event) => setShare(Number(event.currentTarget.value))}
        />
        <span class="line" aria-hidden="true" style={{ left: `${share}%` }} />
      </div>
      <div class="zoom" role="group" aria-label={words.zoom}>
        <button class="plain round" aria-label={words.zoomOut} disabled={view.scale <= least} onClick={() => zoom(view.scale / STEP)}>
          <Icon name="zoomOut" />
        </button>
        <button class="plain" aria-label={words.actual(percent)} title={words.actual(percent)} onClick={() => (view.scale === 1 ? zoomToActual() : zoom(1))}>
          {percent} %
        </button>
        <button class="plain round" aria-label={words.zoomIn} disabled={view.scale >= most} onClick={() => zoom(view.scale * STEP)}>
          <Icon name="zoomIn" />
        </button>
      </div>
    </div>
  );
}

interface Handles {
  view: View;
  setView: (next: View) => void;
  clamp: (next: View) => View;
  zoom: (scale: number, at?: { x: number; y: number }) => void;
  share: number;
  setShare: (share: number) => void;
  size: { width: number; height: number };
  swipe?: (by: -1 | 1) => void;
}
type Point = { x: number; y: number };

/** One pointer moves the slider, pans or swipes; two zoom. */
function usePointers(box: { current: HTMLDivElement | null }, handles: Handles) {
  const down = useRef(new Map<number, Point>());
  const start = useRef<{ mode: "slide" | "pan" | "swipe" | "pinch"; at: Point; view: View; spread: number } | undefined>(undefined);
  const place = (event: PointerEvent): Point => {
    const bounds = box.current!.getBoundingClientRect();
    return { x: event.clientX - bounds.left, y: event.clientY - bounds.top };
  };
  const middle = (points: Point[]) => ({ x: (points[0]!.x + points[1]!.x) / 2, y: (points[0]!.y + points[1]!.y) / 2 });
  const spread = (points: Point[]) => Math.hypot(points[0]!.x - points[1]!.x, points[0]!.y - points[1]!.y);
  const slide = (at: Point) => handles.setShare(Math.round(Math.min(100, Math.max(0, (at.x / handles.size.width) * 100))));
  return {
    onPointerDown: (event: PointerEvent) => {
      if (event.button !== 0) return;
      box.current!.setPointerCapture(event.pointerId);
      const at = place(event);
      down.current.set(event.pointerId, at);
      const points = [...down.current.values()];
      const nearLine = Math.abs(at.x - (handles.share / 100) * handles.size.width) < NEAR_LINE;
      const mode =
        points.length > 1
          ? "pinch"
          : nearLine || (handles.view.scale === 1 && event.pointerType === "mouse")
            ? "slide"
            : handles.view.scale > 1
              ? "pan"
              : "swipe";
      start.current = { mode, at, view: handles.view, spread: points.length > 1 ? spread(points) : 0 };
    },
    onPointerMove: (event: PointerEvent) => {
      const begun = start.current;
      if (!begun || !down.current.has(event.pointerId)) return;
      const at = place(event);
      down.current.set(event.pointerId, at);
      const points = [...down.current.values()];
      if (begun.mode === "slide") slide(at);
      else if (begun.mode === "pan") {
        handles.setView(handles.clamp({ ...begun.view, x: begun.view.x + at.x - begun.at.x, y: begun.view.y + at.y - begun.at.y }));
      } else if (begun.mode === "pinch" && points.length > 1) {
        const { x, y } = middle(points);
        const from = { x: x - handles.size.width / 2, y: y - handles.size.height / 2 };
        handles.zoom((begun.view.scale * spread(points)) / begun.spread, from);
      }
    },
    onPointerUp: (event: PointerEvent) => {
      const begun = start.current;
      const at = place(event);
      down.current.delete(event.pointerId);
      if (begun?.mode === "slide") slide(at);
      if (begun?.mode === "swipe" && Math.abs(at.x - begun.at.x) > SWIPE) handles.swipe?.(at.x < begun.at.x ? 1 : -1);
      if (down.current.size === 0) start.current = undefined;
    },
    onPointerCancel: (event: PointerEvent) => {
      down.current.delete(event.pointerId);
      if (down.current.size === 0) start.current = undefined;
    },
    onDblClick: (event: MouseEvent) => {
      const bounds = box.current!.getBoundingClientRect();
      const at = { x: event.clientX - bounds.left - bounds.width / 2, y: event.clientY - bounds.top - bounds.height / 2 };
      handles.zoom(handles.view.scale > 1 ? 1 : Math.max(2, 1 / devicePixelRatio), at);
    },
  };
}
