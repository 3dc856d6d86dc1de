// Tenants with their use, and for operators their weights and limits.

import { useCallback, useState } from "preact/hooks";
import { bytes } from "../format";
import { Loading, useReading } from "../parts/reading";
import { attempt } from "../state/messages";
import { changeTenant, createTenant, getTenants, type Tenant, type TenantSeen } from "../state/session";
import { texts as all } from "../texts";

const texts = all.access;
const words = texts.tenants;
const LIMITS = ["waiting", "bytes", "uploads", "requests"] as const;

export function Tenants({ operator }: { operator: boolean }) {
  const [tenants, setTenants] = useState<TenantSeen[]>();
  const [id, setId] = useState("");
  const read = useCallback(async () => setTenants(await getTenants()), []);
  const error = useReading(read);
  const create = (event: Event) => {
    event.preventDefault();
    void attempt(async () => {
      await createTenant(id);
      setId("");
      await read();
    });
  };
  return (
    <section class="panel" aria-labelledby="tenants">
      <h3 id="tenants">{words.title}</h3>
      {error && <p class="error">{error}</p>}
      {!tenants && !error && <Loading />}
      <ul class="tenants">
        {tenants?.map((seen) => (
          <One key={seen.tenant.id} seen={seen} operator={operator} changed={() => void attempt(read)} />
        ))}
      </ul>
      {operator && (
        <form class="new" aria-label={words.new} onSubmit={create}>
          <label>
            <span>{words.id}</span>
            <input
              required
              pattern="[a-z0-9][a-z0-9\-]{0,31}"
              value={id}
              onInput={(event) => setId(event.currentTarget.value)}
            />
          </label>
          <button class="main">{words.create}</button>
        </form>
      )}
    </section>
  );
}

function One({ seen, operator, changed }: { seen: TenantSeen; operator: boolean; changed: () => void }) {
  const [tenant, setTenant] = useState<Tenant>(seen.tenant);
  const save = (event: Event) => {
    event.preventDefault();
    void attempt(async () => {
      await changeTenant(tenant);
      changed();
    });
  };
  return (
    <li>
      <details>
        <summary>
          <b>{tenant.id}</b>
          <Use use={seen.use} tenant={tenant} />
        </summary>
        <form onSubmit={save}>
          <Weight tenant={tenant} change={setTenant} operator={operator} />
          {LIMITS.map((name) => (
            <Limit key={name} name={name} tenant={tenant} change={setTenant} operator={operator} />
          ))}
          {operator && tenant.id !== "default" && (
            <label class="switch">
              <input
                type="checkbox"
                checked={tenant.disabled}
                onChange={(event) => setTenant({ ...tenant, disabled: event.currentTarget.checked })}
              />
              <span>{words.disable}</span>
            </label>
          )}
          {operator && <button class="main">{words.save}</button>}
        </form>
      </details>
    </li>
  );
}

function Use({ use, tenant }: { use: TenantSeen["use"]; tenant: Tenant }) {
  const total = Object.values(use.tasks).reduce((sum, count) => sum + count, 0);
  return (
    <span class="quiet">
      {words.tasks}: {total} ({words.waits(use.tasks.waiting ?? 0)}) · {words.kept}: {bytes(use.bytes)} · {words.weight}:{" "}
      {tenant.weight} {tenant.disabled && `· ${words.disable}`}
    </span>
  );
}

interface FieldProps {
  tenant: Tenant;
  change: (next: Tenant) => void;
  operator: boolean;
}

const Weight = ({ tenant, change, operator }: FieldProps) => (
  <label>
    <span>{words.weight}</span>
    <input
      type="number"
      min={0.01}
      max={1000}
      step="any"
      disabled={!operator}
      value={tenant.weight}
      onInput={(event) => change({ ...tenant, weight: Number(event.currentTarget.value) })}
    />
  </label>
);

/** A limit that is empty where there is none. */
function Limit({ name, tenant, change, operator }: FieldProps & { name: (typeof LIMITS)[number] }) {
  const put = (text: string) => change({ ...tenant, limits: { ...tenant.limits, [name]: text === "" ? null : Number(text) } });
  return (
    <label>
      <span>{words[name]}</span>
      <input
        type="number"
        min={0}
        step={name === "requests" ? "any" : 1}
        placeholder={words.none}
        disabled={!operator}
        value={tenant.limits?.[name] ?? ""}
        onInput={(event) => put(event.currentTarget.value)}
      />
    </label>
  );
}
