// The uploads that were sent, as the browser remembers them across a reload.

import { forget, keep, kept } from "./kept";

const KEY = "safelight-sent";
/** More than are sent before the uploader writes its state. */
const MOST = 500;

export function sent(): string[] {
  try {
    return JSON.parse(kept(KEY) ?? "[]") as string[];
  } catch {
    return [];
  }
}

export const rememberSent = (id: string): void => keep(KEY, JSON.stringify([...sent(), id].slice(-MOST)));

/** Forget all, or those of which the files are added once more. */
export function forgetSent(gone?: ReadonlySet<string>): void {
  const known = sent();
  if (!gone) forget(KEY);
  else if (known.some((id) => gone.has(id))) keep(KEY, JSON.stringify(known.filter((id) => !gone.has(id))));
}
