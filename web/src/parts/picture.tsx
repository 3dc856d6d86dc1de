// A picture that says so when it cannot be shown.

import { useEffect, useState } from "preact/hooks";

export function Picture(props: { src: string; alt: string; class?: string; eager?: boolean }) {
  const [state, setState] = useState<"loading" | "shown" | "failed">("loading");
  useEffect(() => setState("loading"), [props.src]);
  if (state === "failed") {
    return (
      <span class={`no-picture ${props.class ?? ""}`} role="img" aria-label={props.alt}>
        No view of this yet
      </span>
    );
  }
  return (
    <img
      class={`${props.class ?? ""} ${state}`}
      src={props.src}
      alt={props.alt}
      loading={props.eager ? "eager" : "lazy"}
      decoding="async"
      draggable={false}
      onLoad={() => setState("shown")}
      onError={() => setState("failed")}
    />
  );
}
