// Before and after in one frame, with a slider between them; zoom by wheel, pinch, double click and keys, pan by dragging.

import { useRef, useState } from "preact/hooks";
import { texts } from "../../texts";
import { Icon } from "../icons";
import { Thumbnail } from "../thumbnail";
import { STEP, useKeys, usePointers, useWheel } from "./input";
import { useView, type View } from "./view";

const words = texts.stage;
/** The longest side of a large rendition: zoomed in further, the file itself is shown. */
const RENDITION_SIDE = 2048;

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

export function Stage(props: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [share, setShare] = useState(50);
  const seen = useView(box, props, props.before.rendition);
  const { view, zoom } = seen;
  const pointers = usePointers(box, { ...seen, share, setShare, ...(props.swipe && { swipe: props.swipe }) });
  useWheel(box, view, zoom);
  useKeys(box, (key) => {
    const scales: Record<string, number> = { "+": view.scale * STEP, "=": view.scale * STEP, "-": view.scale / STEP, "0": 1 };
    const scale = scales[key];
    if (scale !== undefined) zoom(scale);
    else if (key === "1") seen.zoomToActual();
    else if (key === "b") setShare((now) => (now === 100 ? 0 : 100));
    else return false;
    return true;
  });

  const shownSide = Math.max(props.width, props.height) * seen.fit * view.scale * devicePixelRatio;
  const isClose = shownSide > RENDITION_SIDE * 1.05;
  const source = (side: Side) => (isClose && side.full ? side.full : side.rendition);
  const [left, right] = props.labels ?? [words.before, words.after];
  return (
    <div class={`stage ${props.busy ? "busy" : ""}`} aria-busy={props.busy}>
      <div ref={box} class={`glass ${view.scale > 1 ? "zoomed" : ""}`} {...pointers}>
        <Layer side="after" view={view} src={source(props.after)} alt={`${props.name}, ${right}`} />
        <Layer side="before" view={view} src={source(props.before)} alt={`${props.name}, ${left}`} share={share} />
        <span class="tag one" aria-hidden="true">
          {left}
        </span>
        <span class="tag two" aria-hidden="true">
          {right}
        </span>
        <Slider share={share} setShare={setShare} />
      </div>
      <ZoomButtons {...seen} />
    </div>
  );
}

interface LayerProps {
  side: "before" | "after";
  view: View;
  src: string;
  alt: string;
  /** How much of it is seen, from the left. */
  share?: number;
}

const Layer = ({ side, view, src, alt, share }: LayerProps) => (
  <div class={`layer ${side}`} style={share === undefined ? undefined : { clipPath: `inset(0 ${100 - share}% 0 0)` }}>
    <div class="frame" style={{ transform: `translate(${view.x}px, ${view.y}px) scale(${view.scale})` }}>
      <Thumbnail src={src} alt={alt} />
    </div>
  </div>
);

/** What is moved between before and after, and the line that shows where it is. */
const Slider = ({ share, setShare }: { share: number; setShare: (share: number) => void }) => (
  <>
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
  </>
);

function ZoomButtons({ view, actual, least, most, zoom, zoomToActual }: ReturnType<typeof useView>) {
  const percent = Math.round((view.scale / actual) * 100);
  return (
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
  );
}
