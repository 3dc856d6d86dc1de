// A chart over time: bars that stack, or lines; a table for screen readers.

import { useState } from "preact/hooks";
import { texts } from "../texts";

export interface Series {
  name: string;
  tone: "good" | "bad" | "calm" | "warm";
  values: (number | null)[];
}

interface Props {
  title: string;
  times: number[];
  series: Series[];
  bars?: boolean;
  format: (value: number) => string;
  /** How a time is written. */
  label: (time: number) => string;
}

const WIDTH = 600;
const HEIGHT = 150;

export function Chart({ title, times, series, bars, format, label }: Props) {
  const [at, setAt] = useState<number | undefined>();
  const shown = at ?? times.length - 1;
  return (
    <figure class="chart">
      <figcaption>
        <h2>{title}</h2>
        <p class="legend">
          <time>{at === undefined ? texts.time.present : label(times[shown]!)}</time>
          {series.map((one) => {
            const value = one.values[shown];
            return (
              <span key={one.name} class={one.tone}>
                <i /> {one.name} <b>{value == null ? "–" : format(value)}</b>
              </span>
            );
          })}
        </p>
      </figcaption>
      <Plot {...{ times, series, bars, format, label, at, setAt }} />
      <Numbers {...{ title, times, series, format, label }} />
    </figure>
  );
}

interface PlotProps extends Omit<Props, "title"> {
  /** Which of the times is pointed at. */
  at: number | undefined;
  setAt: (at: number | undefined) => void;
}

function Plot({ times, series, bars, format, label, at, setAt }: PlotProps) {
  const sums = times.map((_, minute) => series.map((one) => one.values[minute] ?? 0));
  const most = Math.max(...sums.map((values) => (bars ? values.reduce((a, b) => a + b, 0) : Math.max(...values))), 0);
  const top = rounded(most);
  const step = WIDTH / times.length;
  const y = (value: number) => HEIGHT - (value / top) * HEIGHT;
  const point = (event: PointerEvent & { currentTarget: SVGSVGElement }) => {
    const box = event.currentTarget.getBoundingClientRect();
    const minute = Math.floor(((event.clientX - box.left) / box.width) * times.length);
    setAt(Math.min(times.length - 1, Math.max(0, minute)));
  };
  return (
    <div class="plot">
      <span class="most" aria-hidden="true">
        {most > 0 ? format(top) : ""}
      </span>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        aria-hidden="true"
        onPointerMove={point}
        onPointerLeave={() => setAt(undefined)}
      >
        <path class="grid" d={`M0 ${HEIGHT - 0.5}H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 0.5H${WIDTH}`} />
        {at !== undefined && <rect class="at" x={at * step} y={0} width={step} height={HEIGHT} />}
        {bars
          ? series.map((one, which) => <path key={one.name} class={`bar ${one.tone}`} d={stack(sums, which, step, y)} />)
          : series.map((one) => <path key={one.name} class={`curve ${one.tone}`} d={curve(one.values, step, y)} />)}
      </svg>
      <p class="ends" aria-hidden="true">
        <span>{label(times[0]!)}</span>
        <span>{texts.time.present}</span>
      </p>
    </div>
  );
}

function stack(sums: number[][], which: number, step: number, y: (value: number) => number): string {
  return sums
    .map((values, minute) => {
      const value = values[which]!;
      if (!value) return "";
      const below = values.slice(0, which).reduce((a, b) => a + b, 0);
      const left = minute * step + step * 0.14;
      return `M${left} ${y(below)}V${y(below + value)}h${step * 0.72}V${y(below)}z`;
    })
    .join("");
}

function curve(values: (number | null)[], step: number, y: (value: number) => number): string {
  let drawing = false;
  return values
    .map((value, minute) => {
      if (value === null) {
        drawing = false;
        return "";
      }
      const x = (minute + 0.5) * step;
      const segment = drawing ? `L${x} ${y(value)}` : `M${x - step * 0.3} ${y(value)}L${x} ${y(value)}`;
      drawing = true;
      return segment;
    })
    .join("");
}

/** The next 1, 2 or 5 times a power of ten. */
function rounded(most: number): number {
  if (most <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= most) ?? most;
}

function Numbers({ title, times, series, format, label }: Omit<Props, "bars">) {
  return (
    <div class="hidden">
      <table>
      <caption>{texts.chart.caption(title)}</caption>
      <thead>
        <tr>
          <th scope="col">{texts.filters.time}</th>
          {series.map((one) => (
            <th key={one.name} scope="col">
              {one.name}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {times.map(
          (time, minute) =>
            series.some((one) => one.values[minute]) && (
              <tr key={time}>
                <th scope="row">{label(time)}</th>
                {series.map((one) => (
                  <td key={one.name}>{one.values[minute] == null ? texts.chart.none : format(one.values[minute]!)}</td>
                ))}
              </tr>
            ),
        )}
      </tbody>
      </table>
    </div>
  );
}
