// The user of the page: a session, or a machine that needs none.

import { computed, signal } from "@preact/signals";
import { ask, Problem } from "../api/api";
import { connect, connection } from "../api/live";
import { forget, keep, kept } from "../kept";
import { empty } from "./shared";
import { acting, replace, view, type View, VIEWS } from "../router";
import { forgetAll as forgetUploads, pauseAll, retryTransient } from "./uploads";
import type { components } from "../api/openapi";

type Schemas = components["schemas"];
export type SignedIn = Schemas["SignedIn"];
export type KeyInfo = Schemas["KeyInfo"];
export type CreatedKey = Schemas["CreatedKey"];
export type Scope = Schemas["Scope"];
export type Tenant = Schemas["Tenant"];
export type TenantSeen = Schemas["TenantSeen"];
export type WebhookSecret = Schemas["WebhookSecret"];
export type Link = Schemas["Link"];

export const SCOPES: Scope[] = ["upload", "read", "operate", "administer"];
const KEY = "safelight.session";
const USER = "safelight.user";
const TICKET = /^#\/sign-in\/([a-z2-7]+)$/;

/** Undefined until the service has said who looks at the page. */
export const me = signal<SignedIn | undefined>(undefined);
/** Whether one looks at the tenant whose people run the system, and so see its workers and its disk. */
export const runsSystem = () => me.value?.tenant === "default" && !acting;
export const may = (scope: Scope) => me.value?.scopes.includes(scope) ?? false;
/** What the requests of a view need, one scope of each. */
const NEEDED: Record<View, readonly Scope[]> = {
  photos: SCOPES, tasks: ["read"], batches: ["read"], recipes: ["upload", "read"], system: ["read"],
};
export const offered = computed(() => VIEWS.filter((name) => NEEDED[name].some(may)));
/** The view that is shown: photos in the place of one that would only be refused. */
export const place = computed(() => (offered.value.includes(view.value) ? view.value : "photos"));
/** Whose the page's memory and its uploads are: who was signed in first since it was opened. */
let owner: string | undefined;
export const whose = () => owner ?? "";

/** Ask who looks; a link that signs in stands in the fragment, which no server sees, and is taken out at once. */
export async function begin(): Promise<void> {
  try {
    await look();
  } catch (error) {
    // Without a connection, the user who was signed in last can still add photos, which that session sends later.
    const known = kept(KEY);
    const user = kept(USER);
    if (!known || !user || !(error instanceof Problem) || error.code !== "unavailable" || me.value) throw error;
    owner = user;
    me.value = JSON.parse(known) as SignedIn;
    connection.subscribe((now) => now === "live" && void look().catch(() => undefined));
  }
}

// A link that signs in may be opened where the page is open already; the page then begins anew with it.
window.addEventListener("hashchange", () => TICKET.test(location.hash) && location.reload());

async function look(): Promise<void> {
  const ticket = TICKET.exec(location.hash)?.[1];
  if (ticket) {
    replace("photos");
    take(await ask<SignedIn>("POST", "session", { ticket }));
  } else {
    take(await ask<SignedIn>("GET", "session"));
  }
}

/** Take in who looks. For another user than before the page begins anew: what it holds would be sent as theirs. */
function take(who: SignedIn): void {
  if (who.signed_in) {
    const user = `${who.tenant} ${who.key || who.name}`;
    if (user !== owner) keep(USER, user);
    if (owner !== undefined && user !== owner) {
      pauseAll();
      return location.reload();
    }
    owner = user;
    keep(KEY, JSON.stringify({ ...who, name: "" }));
  } else forget(KEY);
  me.value = who;
  if (connection.value === "none" && may("read")) connect();
}
// The session is one of the whole browser: in another tab, somebody else may have signed in.
window.addEventListener("storage", ({ key, newValue }) => key === USER && newValue && void look().catch(() => undefined));

export async function signIn(key: string): Promise<void> {
  take(await ask<SignedIn>("POST", "session", { key }));
  if (me.value?.signed_in) retryTransient();
}

export async function signOut(): Promise<void> {
  await ask("DELETE", "session");
  forget(KEY);
  forget(USER);
  await forgetUploads();
  await empty();
  // The memory of the page belongs to the user who was signed in.
  location.reload();
}

export const getKeys = () => ask<KeyInfo[]>("GET", "keys");
export const createKey = (name: string, scopes: Scope[], days: number | undefined) =>
  ask<CreatedKey>("POST", "keys", { name, scopes, ...(days ? { expires_in: days * 86400 } : {}) });
export const rotateKey = (id: string) => ask<CreatedKey>("POST", `keys/${encodeURIComponent(id)}/rotate`, {});
export const revokeKey = (id: string) => ask<void>("DELETE", `keys/${encodeURIComponent(id)}`);
export const getWebhookSecret = () => ask<WebhookSecret>("GET", "webhooks/secret");
export const rotateWebhookSecret = () => ask<WebhookSecret>("POST", "webhooks/secret/rotate", {});
export const getTenants = () => ask<TenantSeen[]>("GET", "tenants");
export const createTenant = (id: string) => ask<Tenant>("POST", "tenants", { id });
export const changeTenant = ({ id, name, weight, limits, disabled }: Tenant) =>
  ask<Tenant>("PUT", `tenants/${encodeURIComponent(id)}`, { name, weight, limits, disabled });
export const makeLink = (task: string, what: { output?: string; original?: boolean; expires_in: number }) =>
  ask<Link>("POST", `task/${encodeURIComponent(task)}/links`, what);
