// The plugin that keeps uploads in the browser, made fit for thousands of files.

import type { Body, Meta, State, Uppy } from "@uppy/core";
import GoldenRetriever from "@uppy/golden-retriever";
import Store from "../node_modules/@uppy/golden-retriever/lib/IndexedDBStore.js"; // which the package does not export

const SELDOM = 500;
/** Of its time, the store spends one part in so many on adding up what it holds. */
const SHARE = 20;

/** Before it keeps a file, the store reads all that it has, to know their size. A size that is a little old will do. */
const { getSize } = Store.prototype;
let size = 0;
let until = -Infinity;
Store.prototype.getSize = async function (this: Store) {
  const began = performance.now();
  if (began < until) return size;
  size = await getSize.call(this);
  const ended = performance.now();
  until = ended + SHARE * (ended - began);
  return size;
};

type Heard<M extends Meta, B extends Body> = (before: State<M, B>, after: State<M, B>) => void;

/**
 * It looks at all files at each change of Uppy's state, of which there are several for every file. Here it hears of the
 * changes of half a second together, so that one of three thousand files is sent as fast as one of thirty.
 */
export class Retriever<M extends Meta, B extends Body> extends GoldenRetriever<M, B> {
  override install(): void {
    const { uppy } = this;
    const on = uppy.on;
    uppy.on = ((name: never, heard: never) =>
      on.call(uppy, name, name === "state-update" ? (seldom(uppy, heard) as never) : heard)) as typeof on;
    super.install();
    uppy.on = on;
  }
}

/** Tell of a first change at once, and of those that follow it twice a second. */
function seldom<M extends Meta, B extends Body>(uppy: Uppy<M, B>, heard: Heard<M, B>): Heard<M, B> {
  let known: State<M, B> | undefined;
  let timer: number | undefined;
  let changed = false;
  const tell = () => {
    timer = undefined;
    if (!changed) return;
    changed = false;
    timer = window.setTimeout(tell, SELDOM);
    const before = known!;
    known = uppy.getState();
    heard(before, known);
  };
  return (before) => {
    known ??= before;
    changed = true;
    if (timer === undefined) tell();
  };
}
