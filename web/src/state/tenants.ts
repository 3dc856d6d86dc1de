// The other tenants, for administrators of the system.

import { signal } from "@preact/signals";
import { getTenants, me } from "./session";

export const others = signal<string[]>([]);

export async function loadOthers(): Promise<void> {
  if (!me.value?.operator) return;
  others.value = (await getTenants()).map((seen) => seen.tenant.id).filter((id) => id !== me.value?.tenant);
}
