// Before and after, one above the other, with a slider between them.

import { useState } from "preact/hooks";
import { Picture } from "./picture";

export function Compare(props: { before: string; after: string; name: string; busy?: boolean }) {
  const [share, setShare] = useState(50);
  return (
    <div class={`compare ${props.busy ? "busy" : ""}`} aria-busy={props.busy}>
      <Picture eager class="after" src={props.after} alt={`${props.name}, after`} />
      <div class="before" style={{ clipPath: `inset(0 ${100 - share}% 0 0)` }}>
        <Picture eager src={props.before} alt={`${props.name}, before`} />
      </div>
      <span class="tag one" aria-hidden="true">
        Before
      </span>
      <span class="tag two" aria-hidden="true">
        After
      </span>
      <input
        type="range"
        min="0"
        max="100"
        value={share}
        aria-label="How much of the photo before to show"
        aria-valuetext={`${share} % before, ${100 - share} % after`}
        onInput={(event) => setShare(Number(event.currentTarget.value))}
      />
      <span class="line" aria-hidden="true" style={{ left: `${share}%` }} />
    </div>
  );
}
