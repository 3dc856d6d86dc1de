// An image that appears when the service has made it, with a placeholder until then.

import { useEffect, useState } from "preact/hooks";
import { load } from "../images";
import { texts } from "../texts";

export function Thumbnail(props: { src: string; alt: string; class?: string }) {
  const { image, setImage, state, setState } = useImage(props.src);
  if (image) {
    return (
      <img
        class={`${props.class ?? ""} ${state === "shown" ? "shown" : "loading"}`}
        src={image}
        alt={props.alt}
        decoding="async"
        draggable={false}
        onLoad={() => setState("shown")}
        onError={() => setImage("")}
      />
    );
  }
  return (
    <span class={`no-image ${state} ${props.class ?? ""}`} role={props.alt ? "img" : undefined} aria-label={props.alt || undefined}>
      {state === "preparing" ? texts.image.preparing : state === "failed" ? texts.image.failed : ""}
    </span>
  );
}

/** Load an image again whenever its address changes. */
function useImage(src: string) {
  const [image, setImage] = useState("");
  const [state, setState] = useState<"loading" | "preparing" | "failed" | "shown">("loading");
  useEffect(() => {
    const leaving = new AbortController();
    let made = "";
    load(
      src,
      leaving.signal,
      (found) => {
        if (leaving.signal.aborted) return URL.revokeObjectURL(found);
        made = found;
        setImage(found);
      },
      setState,
    );
    return () => {
      leaving.abort();
      if (made) URL.revokeObjectURL(made);
      setImage("");
      setState("loading");
    };
  }, [src]);
  return { image, setImage, state, setState };
}
