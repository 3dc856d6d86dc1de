// Short texts that the browser keeps for the page. Where it may not, or has no room, they last as long as the page is open.

const memory = new Map<string, string>();

/** The browser's own store, which even to name is an error where people forbid sites to keep anything. */
function store(): Storage | undefined {
  try {
    return localStorage;
  } catch {
    return undefined;
  }
}

export const kept = (name: string): string | null => memory.get(name) ?? store()?.getItem(name) ?? null;

export function keep(name: string, text: string): void {
  try {
    store()!.setItem(name, text);
    memory.delete(name);
  } catch {
    memory.set(name, text);
  }
}

export function forget(name: string): void {
  memory.delete(name);
  store()?.removeItem(name);
}

/** The names that begin with this. */
export const names = (beginning: string): string[] =>
  [...memory.keys(), ...Object.keys(store() ?? {})].filter((name) => name.startsWith(beginning));
