// Photos dropped or pasted anywhere on the page are uploaded, whatever is shown.

import { useLayoutEffect, useState } from "preact/hooks";
import { detail, go, view } from "../router";
import { texts } from "../texts";
import * as uploads from "../state/uploads";
import { Icon } from "./icons";

const carriesFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;

/** Show where uploads are: not in other views, nor below the viewer of a photo. */
const show = () => {
  if (view.value !== "photos" || detail.value) go("photos");
};

export function DropOverlay() {
  const [isOver, setOver] = useState(false);
  useDrops(setOver);
  if (!isOver) return null;
  return (
    <div class="drop-overlay" aria-hidden="true">
      <Icon name="upload" />
      <p>{texts.uploads.dropHere}</p>
    </div>
  );
}

/** Upload what is dropped or pasted, and tell whether files are being dragged over the page. */
function useDrops(setOver: (isOver: boolean) => void) {
  // Runs before painting, since the browser would navigate to a file that is dropped earlier.
  useLayoutEffect(() => {
    let depth = 0;
    const leaving = new AbortController();
    const on = <K extends keyof DocumentEventMap>(name: K, heard: (event: DocumentEventMap[K]) => void) =>
      document.addEventListener(name, heard, { signal: leaving.signal });
    on("dragenter", (event) => {
      if (!carriesFiles(event)) return;
      depth += 1;
      setOver(true);
    });
    on("dragleave", () => {
      depth = Math.max(0, depth - 1);
      if (depth === 0) setOver(false);
    });
    on("dragover", (event) => carriesFiles(event) && event.preventDefault());
    on("drop", (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      depth = 0;
      setOver(false);
      void uploads.addDropped(event.dataTransfer!).then((any) => any && show());
    });
    on("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      // Cells of a spreadsheet come as text and as a picture of it.
      const isText = event.target instanceof HTMLInputElement && event.clipboardData?.types.includes("text/plain");
      if (!files.length || isText) return;
      if (uploads.add(files)) show();
    });
    return () => leaving.abort();
  }, []);
}
