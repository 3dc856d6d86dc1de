// Numbers, times and states as people read them.

import { stateName, type StateName, type Task } from "./api/api";
import { now } from "./api/clock";
import { language, locale, texts } from "./texts";

const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(size: number): string {
  let unit = 0;
  // What rounding would make a thousand is one of the next unit.
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${UNITS[unit]}`;
}

export function seconds(value: number): string {
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 59.5) return `${value.toFixed(value < 9.95 ? 1 : 0)} s`;
  if (value < 3599.5) return inTwo(Math.round(value), "min", "s");
  return inTwo(Math.round(value / 60), "h", "min");
}

/** A number of small units, sixty of which are a large one. */
const inTwo = (value: number, large: string, small: string) => `${Math.floor(value / 60)} ${large} ${value % 60} ${small}`;

export function ago(moment: number): string {
  const passed = Math.max(0, now() - moment);
  if (passed < 5) return texts.time.now;
  if (passed < 60) return texts.time.ago(`${Math.floor(passed)} s`);
  if (passed < 3600) return texts.time.ago(`${Math.floor(passed / 60)} min`);
  if (passed < 86400) return texts.time.ago(`${Math.floor(passed / 3600)} h`);
  return date(moment);
}

/** Whether people read twelve hours or twenty-four depends on where they are, not on the language of the page. */
const { hourCycle } = new Intl.DateTimeFormat(undefined, { hour: "numeric" }).resolvedOptions();
const hours = hourCycle && { hourCycle };
const TIME = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", ...hours });
const MOMENT = new Intl.DateTimeFormat(locale, { weekday: "short", hour: "2-digit", minute: "2-digit", ...hours });
const DATE = new Intl.DateTimeFormat(locale, { dateStyle: "medium" });
const DATE_TIME = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium", ...hours });
const DAY = new Intl.DateTimeFormat(locale, { weekday: "long", day: "numeric", month: "long", year: "numeric" });

export const date = (moment: number) => DATE.format(moment * 1000);
export const clock = (moment: number) => TIME.format(moment * 1000);
/** A time of the last days. */
export const moment = (at: number) => MOMENT.format(at * 1000);
export const dateTime = (moment: number) => DATE_TIME.format(moment * 1000);

/** The day that was written last: formatting is slow, and photos of one day stand together in long lists. */
let written = { from: 0, to: 0, text: "" };

export function day(moment: number): string {
  const at = moment * 1000;
  if (at < written.from || at >= written.to) {
    const start = new Date(at);
    const from = start.setHours(0, 0, 0, 0);
    written = { from, to: start.setDate(start.getDate() + 1), text: DAY.format(at) };
  }
  return written.text;
}

export const count = (value: number) => value.toLocaleString(language);

export const stateLabel = (state: StateName) => texts.states[state];
export const reasonLabel = (code: string) => texts.reasons[code] ?? humanize(code);

/** Why a task is where it is, in a sentence. */
export function reason(task: Task): string {
  const state = stateName(task.state);
  if (state === "finished") return task.reused ? texts.task.reused : texts.task.took(seconds(task.seconds));
  if (task.failure) return task.failure.detail;
  if (state === "waiting") return task.attempts ? texts.task.waitsAgain : texts.task.waits;
  if (state === "working") return texts.task.works(task.attempts);
  return "";
}

/** The notes on a task's outputs, each once. */
export const outputNotes = (task: Task) => [...new Set(task.outputs.flatMap((output) => output.notes))];

export const dimensions = (width: number, height: number) => (width && height ? `${width} × ${height}` : "");

export const kind = (mediaType: string) => mediaType.replace("image/", "").replace("+xml", "").toUpperCase();

/** A name in code as a label: `smart_crop` is "Smart crop". */
export const humanize = (name: string) => {
  const label = name.replace(/[_-]/g, " ");
  return label.charAt(0).toUpperCase() + label.slice(1);
};

/** How much smaller or larger than something else, in per cent. */
export const change = (size: number, before: number) => {
  const exact = (size / before - 1) * 100;
  // What is left of a photo is never 100 % smaller than the photo.
  const share = exact < -99 ? Math.max(Math.round(exact * 10) / 10, -99.9) : Math.round(exact);
  return `${share > 0 ? "+" : share < 0 ? "−" : "±"}${Math.abs(share)} %`;
};
