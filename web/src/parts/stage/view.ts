// What a stage shows of a photo: how large, and which part of it.

import { useEffect, useLayoutEffect, useState } from "preact/hooks";

const LARGEST = 8;

export interface Point {
  x: number;
  y: number;
}
export interface Extent {
  width: number;
  height: number;
}
export interface View extends Point {
  scale: number;
}
interface Limits {
  least: number;
  most: number;
}
const FIT: View = { scale: 1, x: 0, y: 0 };
/** The size of the stage before the browser has told it, a frame after it is there. */
const UNKNOWN: Extent = { width: 1, height: 1 };

const fitOf = (stage: Extent, photo: Extent) => Math.min(stage.width / (photo.width || 1), stage.height / (photo.height || 1));
/** The scale at which one pixel of the photo is one of the screen. */
const actualAt = (fit: number, photo: Extent) => (photo.width ? 1 / (fit * devicePixelRatio) : 1);

const within = (scale: number, { least, most }: Limits) => Math.min(most, Math.max(least, scale));

function clamp(next: View, stage: Extent, limits: Limits): View {
  const scale = within(next.scale, limits);
  const over = Math.max(0, scale - 1) / 2;
  const reach = { x: over * stage.width, y: over * stage.height };
  return {
    scale,
    x: Math.min(reach.x, Math.max(-reach.x, next.x)),
    y: Math.min(reach.y, Math.max(-reach.y, next.y)),
  };
}

/** The view of a photo on a stage, which starts again at the size that fits whenever another photo is shown. */
export function useView(box: { current: HTMLDivElement | null }, photo: Extent, shown: string) {
  const [size, setSize] = useState(UNKNOWN);
  const [view, setView] = useState(FIT);
  useLayoutEffect(() => {
    const watcher = new ResizeObserver(([entry]) => setSize(entry!.contentRect));
    watcher.observe(box.current!);
    return () => watcher.disconnect();
  }, []);
  useEffect(() => setView(FIT), [shown]);

  const fit = fitOf(size, photo);
  const actual = actualAt(fit, photo);
  /** A photo that is smaller than the stage is enlarged to fit it. */
  const limits = { least: Math.min(1, actual), most: Math.max(LARGEST, actual * LARGEST) };
  const move = (next: View) => setView(clamp(next, size, limits));
  /** Zoom so that what is at a point (from the middle) stays there. */
  const zoom = (wanted: number, at: Point = { x: 0, y: 0 }) =>
    setView((now) => {
      const scale = within(wanted, limits);
      const next = scale / now.scale;
      return clamp({ scale, x: at.x - (at.x - now.x) * next, y: at.y - (at.y - now.y) * next }, size, limits);
    });
  const zoomToActual = () => {
    const { clientWidth: width, clientHeight: height } = box.current!;
    zoom(size === UNKNOWN ? actualAt(fitOf({ width, height }, photo), photo) : actual);
  };
  return { view, size, fit, actual, ...limits, move, zoom, zoomToActual };
}
