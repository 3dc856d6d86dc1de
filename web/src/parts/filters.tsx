// Search and filters above a list, with how many tasks each choice has. They change the address, and the address the list.

import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { countTasks, type StateName, type TaskCounts } from "../api/api";
import { type Filter, fromQuery, isEmpty, toQuery } from "../api/filter";
import { count, reasonLabel, stateLabel } from "../format";
import { follow } from "../api/live";
import { recipes } from "../state/recipes";
import { acting, detail, go, query, replace, type View } from "../router";
import { others, loadOthers } from "../state/tenants";
import { texts } from "../texts";
import { Icon } from "./icons";

const words = texts.filters;
const SEARCH_AFTER = 250;
const COUNT_EVERY = 1500;
const TIMES = ["1h", "24h", "7d", "30d"] as const;

const counts = signal<TaskCounts | undefined>(undefined);

/** Keep the counts of a filter current while its bar is shown. */
function useCounts(filter: Filter) {
  const key = JSON.stringify(filter);
  useEffect(() => {
    let timer: number | undefined;
    let left = false;
    const read = async () => {
      timer = undefined;
      const found = await countTasks(filter).catch(() => undefined);
      if (!left && found) counts.value = found;
    };
    const soon = () => void (timer ??= window.setTimeout(() => void read(), COUNT_EVERY));
    counts.value = undefined;
    void read();
    const stop = follow({ changed: soon, missed: soon });
    return () => {
      left = true;
      clearTimeout(timer);
      stop();
    };
  }, [key]);
}

interface Props {
  view: View;
  filter: Filter;
  states: readonly StateName[];
}

export function FilterBar({ view, filter, states }: Props) {
  useCounts(filter);
  useEffect(() => void loadOthers().catch(() => undefined), []);
  const shown = view === "batches" ? detail.value : "";
  // The current address, which may be newer than what is drawn.
  const changed = (next: Filter) => toQuery({ ...fromQuery(query.value), ...next });
  const change = (next: Filter) => go(view, shown, changed(next));
  const [cleared, setCleared] = useState(0);
  return (
    <div class="filter-bar">
      <Search key={`${view} ${cleared}`} value={filter.search ?? ""} change={(search) => replace(view, shown, changed({ search }))} />
      <States states={states} chosen={filter.state} change={change} />
      <span class="choices">
        <Choices filter={filter} change={change} />
        {others.value.length > 0 && (
          <Choice
            label={texts.tenant.label}
            value={acting}
            options={others.value.map((id) => [id, id])}
            change={(tenant) => go(view === "batches" ? "photos" : view, "", { ...toQuery(fromQuery(query.value)), tenant })}
          />
        )}
        {filter.batch && view !== "batches" && (
          <button class="chip" onClick={() => change({ batch: "" })} aria-label={words.removeBatch(filter.batch)}>
            {filter.batch} <Icon name="close" />
          </button>
        )}
        {!isEmpty({ ...filter, ...(view === "batches" && { batch: "" }) }) && (
          <button class="plain" onClick={() => (setCleared(cleared + 1), go(view, shown))}>
            {words.clear}
          </button>
        )}
      </span>
      {counts.value && !counts.value.complete && <p class="quiet">{words.incomplete}</p>}
    </div>
  );
}

interface StatesProps {
  states: readonly StateName[];
  chosen: Filter["state"];
  change: (next: Filter) => void;
}

function States({ states, chosen, change }: StatesProps) {
  const by = counts.value?.states ?? {};
  const known = states.reduce((sum, state) => sum + (by[state] ?? 0), 0);
  const number = (value: number | undefined) => counts.value && <small>{count(value ?? 0)}</small>;
  return (
    <span class="filters" role="group" aria-label={words.states}>
      <button aria-pressed={!chosen} onClick={() => change({ state: "" })}>
        {words.all} {number(known)}
      </button>
      {states.map((state) => (
        <button key={state} aria-pressed={chosen === state} onClick={() => change({ state })}>
          {stateLabel(state)} {number(by[state])}
        </button>
      ))}
    </span>
  );
}

/** The recipe, the reason and the time. */
const Choices = ({ filter, change }: { filter: Filter; change: (next: Filter) => void }) => (
  <>
    <Choice
      label={words.recipe}
      value={filter.recipe ?? ""}
      options={(counts.value ? Object.keys(counts.value.recipes) : recipes.value.map((one) => one.name)).map((name) => [
        name,
        counts.value ? `${name} (${count(counts.value.recipes[name] ?? 0)})` : name,
      ])}
      change={(recipe) => change({ recipe })}
    />
    <Choice
      label={words.reason}
      value={filter.reason ?? ""}
      options={Object.entries(counts.value?.reasons ?? {}).map(([code, held]) => [code, `${reasonLabel(code)} (${count(held)})`])}
      change={(reason) => change({ reason })}
    />
    <Choice
      label={words.time}
      value={filter.since ?? ""}
      options={TIMES.map((time) => [time, words.since[time]])}
      change={(since) => change({ since, until: "" })}
    />
  </>
);

let isFocusWanted = false;

/** Focus the search of this view, or that of the view which is shown next; return whether this one has a search. */
export function focusSearch(): boolean {
  const field = document.getElementById("search");
  field?.focus();
  isFocusWanted = !field;
  return field !== null;
}

/** The address follows what is typed, and never the other way round while it does. */
function Search({ value, change }: { value: string; change: (text: string) => void }) {
  const field = useRef<HTMLInputElement>(null);
  const timer = useRef<number | undefined>(undefined);
  const sent = useRef(value);
  const changing = useRef(change);
  changing.current = change;
  useLayoutEffect(() => {
    if (isFocusWanted) field.current!.focus();
    isFocusWanted = false;
    return () => clearTimeout(timer.current);
  }, []);
  useLayoutEffect(() => {
    if (value === sent.current) return;
    clearTimeout(timer.current); // the user went back, or to another address
    sent.current = value;
    field.current!.value = value;
  }, [value]);
  const later = () => {
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => {
      sent.current = field.current!.value.trim();
      changing.current(sent.current);
    }, SEARCH_AFTER);
  };
  return (
    <label class="search">
      <span class="hidden">{words.search}</span>
      <Icon name="search" />
      <input ref={field} type="search" id="search" defaultValue={value} placeholder={words.search} onInput={later} />
      <kbd aria-hidden="true">/</kbd>
    </label>
  );
}

interface ChoiceProps {
  label: string;
  value: string;
  options: [string, string][];
  change: (value: string) => void;
}

function Choice({ label, value, options, change }: ChoiceProps) {
  const known = value === "" || options.some(([one]) => one === value);
  return (
    <select class={value ? "set" : ""} aria-label={label} value={value} onChange={(event) => change(event.currentTarget.value)}>
      <option value="">{label}</option>
      {!known && <option value={value}>{value}</option>}
      {options.map(([one, text]) => (
        <option key={one} value={one}>
          {text}
        </option>
      ))}
    </select>
  );
}
