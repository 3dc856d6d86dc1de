// The uploads that were sent, as the browser remembers them across a reload.

const KEY = "safelight-sent";
/** More than are sent before the uploader writes its state. */
const MOST = 500;

export function sent(): string[] {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "[]") as string[];
  } catch {
    return [];
  }
}

export function rememberSent(id: string): void {
  try {
    localStorage.setItem(KEY, JSON.stringify([...sent(), id].slice(-MOST)));
  } catch {
    // The browser has no room, and keeps no uploads across a reload either.
  }
}

/** Forget all, or those of which the files are added once more. */
export function forgetSent(gone?: ReadonlySet<string>): void {
  const known = sent();
  if (!gone) localStorage.removeItem(KEY);
  else if (known.some((id) => gone.has(id))) localStorage.setItem(KEY, JSON.stringify(known.filter((id) => !gone.has(id))));
}
