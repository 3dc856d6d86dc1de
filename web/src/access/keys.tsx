// List, create, rotate and revoke the API keys of the tenant.

import { useCallback, useState } from "preact/hooks";
import { now } from "../api/clock";
import { ago, date } from "../format";
import { Loading, useReading } from "../parts/reading";
import { copy } from "../state/clipboard";
import { attempt } from "../state/messages";
import { type CreatedKey, createKey, getKeys, type KeyInfo, revokeKey, rotateKey, type Scope, SCOPES } from "../state/session";
import { texts as all } from "../texts";

const texts = all.access;
const words = texts.keys;

export function Keys() {
  const [keys, setKeys] = useState<KeyInfo[]>();
  const [made, setMade] = useState<CreatedKey>();
  const read = useCallback(async () => setKeys(await getKeys()), []);
  const error = useReading(read);
  const take = async (action: () => Promise<CreatedKey | void>) => {
    const created = await attempt(action);
    if (created) setMade(created);
    await attempt(read);
  };
  return (
    <section class="panel" aria-labelledby="api-keys">
      <h3 id="api-keys">{words.title}</h3>
      {made && <Made token={made.token} />}
      {error && <p class="error">{error}</p>}
      {!keys && !error && <Loading />}
      {keys?.length === 0 && <p class="quiet">{words.none}</p>}
      <ul class="keys">
        {keys?.map((key) => (
          <Key key={key.id} of={key} take={take} />
        ))}
      </ul>
      <NewKey create={take} />
    </section>
  );
}

function Made({ token }: { token: string }) {
  return (
    <p class="made" role="status">
      {words.shown} <code>{token}</code> <button onClick={() => void copy(token, words.copied)}>{words.copy}</button>
    </p>
  );
}

function state(key: KeyInfo): string {
  if (key.revoked) return words.revoked;
  if (key.expires) return key.expires < now() ? words.ended(date(key.expires)) : words.until(date(key.expires));
  return "";
}

function Key({ of: key, take }: { of: KeyInfo; take: (action: () => Promise<CreatedKey | void>) => void }) {
  const [asked, setAsked] = useState(false);
  const valid = !key.revoked;
  return (
    <li class={valid ? "" : "quiet"}>
      <span>
        <b>{key.name || key.id}</b>
        <span class="quiet">
          {[key.id, key.scopes.join(", "), key.last_used ? words.used(ago(key.last_used)) : words.never, state(key)]
            .filter(Boolean)
            .join(" · ")}
        </span>
      </span>
      {valid && (
        <span class="actions">
          <button onClick={() => take(() => rotateKey(key.id))}>{words.rotate}</button>
          <button class={asked ? "main danger" : ""} onClick={() => (asked ? take(() => revokeKey(key.id)) : setAsked(true))}>
            {asked ? words.really : words.revoke}
          </button>
        </span>
      )}
    </li>
  );
}

function NewKey({ create }: { create: (action: () => Promise<CreatedKey | void>) => void }) {
  const [name, setName] = useState("");
  const [days, setDays] = useState("");
  const [scopes, setScopes] = useState<Scope[]>(["upload", "read"]);
  const toggle = (scope: Scope) =>
    setScopes(scopes.includes(scope) ? scopes.filter((one) => one !== scope) : [...scopes, scope]);
  const submit = (event: Event) => {
    event.preventDefault();
    create(() => createKey(name, scopes, Number(days) || undefined));
    setName("");
  };
  return (
    <form class="new" aria-label={words.new} onSubmit={submit}>
      <label>
        <span>{words.name}</span>
        <input required maxLength={100} value={name} onInput={(event) => setName(event.currentTarget.value)} />
      </label>
      <fieldset>
        <legend>{words.scopes}</legend>
        {SCOPES.map((scope) => (
          <label key={scope} class="switch">
            <input type="checkbox" checked={scopes.includes(scope)} onChange={() => toggle(scope)} />
            <span>{scope}</span>
          </label>
        ))}
      </fieldset>
      <label>
        <span>{words.expires}</span>
        <input type="number" min={1} max={3660} value={days} onInput={(event) => setDays(event.currentTarget.value)} />
      </label>
      <button class="main" disabled={scopes.length === 0}>
        {words.create}
      </button>
    </form>
  );
}
