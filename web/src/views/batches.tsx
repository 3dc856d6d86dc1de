// The view of batches, which are photos that were uploaded together.

import { useCallback, useRef, useState } from "preact/hooks";
import { archiveUrl, type Batch, type BatchPage, getBatch, getBatches, type StateName } from "../api/api";
import { fromQuery } from "../api/filter";
import { ago, bytes, stateLabel } from "../format";
import { Icon } from "../parts/icons";
import { ALL, Loading, useReading } from "../parts/reading";
import { copy } from "../state/clipboard";
import { detail, link, query, useSubject } from "../router";
import { texts } from "../texts";
import { Results } from "./photos/photos";

const words = texts.batches;
const PAGE = 50;
/** The most that the service gives at once. */
const MOST = 1000;

export function Batches() {
  return detail.value ? <One key={detail.value} name={detail.value} /> : <All />;
}

function All() {
  const [batches, setBatches] = useState<Batch[] | undefined>();
  const [next, setNext] = useState<string | null>(null);
  const [pages, setPages] = useState(1);
  const newest = useRef(0);
  const read = useCallback(async () => {
    const asked = ++newest.current;
    const page = await newestBatches(PAGE * pages);
    if (asked !== newest.current) return; // a newer request has answered
    setBatches(page.batches);
    setNext(page.next ?? null);
  }, [pages]);
  const error = useReading(read, ALL);
  return (
    <section aria-labelledby="batches">
      <div class="bar">
        <h1 id="batches">{words.title}</h1>
      </div>
      {error && <p class="error">{error}</p>}
      {!batches && !error && <Loading />}
      {batches?.length === 0 && (
        <div class="empty">
          <Icon name="batches" />
          <p>{words.empty}</p>
        </div>
      )}
      <ul class="batch-list">
        {batches?.map((batch) => (
          <li key={batch.name} class="panel">
            <h2>
              <a href={link("batches", batch.name)}>{batch.name}</a>
            </h2>
            <Progress batch={batch} />
          </li>
        ))}
      </ul>
      {next && <button onClick={() => setPages(pages + 1)}>{texts.more}</button>}
    </section>
  );
}

async function newestBatches(count: number): Promise<BatchPage> {
  const batches: Batch[] = [];
  let next: string | null = null;
  do {
    const page: BatchPage = await getBatches({ limit: Math.min(count - batches.length, MOST), ...(next && { before: next }) });
    batches.push(...page.batches);
    next = page.next ?? null;
  } while (next && batches.length < count);
  return { batches, next };
}

const of = (batch: Batch, ...states: StateName[]) => states.reduce((sum, state) => sum + (batch.tasks[state] ?? 0), 0);

function Progress({ batch }: { batch: Batch }) {
  const total = Object.values(batch.tasks).reduce((sum, held) => sum + held, 0);
  const over = of(batch, "finished", "failed", "quarantined", "cancelled");
  const failed = of(batch, "failed", "quarantined");
  const exact = batch.complete ?? true;
  const lasting = exact && over < total;
  return (
    <>
      <p class="quiet">
        {words.summary(total, bytes(batch.size), ago(batch.created))}
        {lasting ? ` · ${words.done(over, total)}` : ""}
      </p>
      {!exact && <p class="quiet">{words.incomplete}</p>}
      {lasting && <progress max={total} value={over} aria-label={words.progress(batch.name)} />}
      <p class="actions">
        {(of(batch, "finished") > 0 || !exact) && (
          <a class="button" href={archiveUrl({ batch: batch.name })} download>
            <Icon name="download" /> {words.download(of(batch, "finished"), exact)}
          </a>
        )}
        {failed > 0 && (
          <a class="button" href={link("tasks", "", { batch: batch.name, state: "failed,quarantined" })}>
            <Icon name="warning" /> {words.failed(failed, exact)}
          </a>
        )}
      </p>
    </>
  );
}

function One({ name }: { name: string }) {
  const [batch, setBatch] = useState<Batch | undefined>();
  const error = useReading(useCallback(() => getBatch(name).then(setBatch), [name]), ALL);
  useSubject(name);
  return (
    <section aria-labelledby="batch">
      <a href={link("batches")}>
        <Icon name="left" /> {words.title}
      </a>
      <div class="bar">
        <h1 id="batch">{name}</h1>
        <span class="actions">
          <button class="plain round" aria-label={texts.task.copy} title={texts.task.copy} onClick={() => void copy(location.href, texts.task.copied)}>
            <Icon name="link" />
          </button>
          <a class="button" href={link("tasks", "", { batch: name })}>
            <Icon name="tasks" /> {texts.tasks.title}
          </a>
        </span>
      </div>
      {error && <p class="error">{error}</p>}
      {batch && (
        <div class="panel">
          {Object.entries(batch.tasks).length > 0 && (
            <p>
              {(Object.keys(texts.states) as StateName[])
                .filter((state) => batch.tasks[state])
                .map((state) => `${stateLabel(state)}: ${batch.tasks[state]}`)
                .join(" · ")}
            </p>
          )}
          <Progress batch={batch} />
        </div>
      )}
      <Results filter={{ ...fromQuery(query.value), batch: name }} />
    </section>
  );
}
