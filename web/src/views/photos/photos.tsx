// The view of photos: the upload area and the gallery of results.

import { useEffect, useMemo } from "preact/hooks";
import { type Filter, fromQuery, isEmpty, toQuery } from "../../api/filter";
import { FilterBar } from "../../parts/filters";
import { Icon } from "../../parts/icons";
import { Loading } from "../../parts/reading";
import { SelectionBar } from "../../parts/selection";
import { detail, link, query, view } from "../../router";
import { clear } from "../../state/selection";
import { may } from "../../state/session";
import { TaskList } from "../../state/tasks";
import { texts } from "../../texts";
import { Gallery } from "./gallery";
import { Upload } from "./upload";
import { Viewer } from "./viewer";

const words = texts.photos;
const SHOWN = "finished,failed,quarantined";
const IN_PROGRESS = "waiting,working";

export function Photos() {
  return (
    <>
      {may("upload") && <Upload />}
      {may("read") ? <Results filter={fromQuery(query.value)} /> : <p class="empty">{texts.connection.long.none}</p>}
    </>
  );
}

/** The gallery of all photos that match a filter; also the body of a batch's page. */
export function Results({ filter }: { filter: Filter }) {
  return (
    <section class="gallery" aria-labelledby="results">
      <div class="bar">
        <h2 id="results">{words.results}</h2>
      </div>
      <FilterBar view={view.value} filter={filter} states={["finished", "failed", "quarantined"]} />
      <List key={JSON.stringify(filter)} filter={filter} />
    </section>
  );
}

function List({ filter }: { filter: Filter }) {
  const list = useMemo(() => new TaskList({ ...filter, state: filter.state || SHOWN }, 120), []);
  const waiting = useMemo(() => new TaskList({ ...filter, state: IN_PROGRESS }, 20), []);
  useEffect(() => {
    clear();
    const stops = [list.start(), waiting.start()];
    return () => stops.forEach((stop) => stop());
  }, []);
  const items = list.items.value;
  const inProgress = waiting.items.value;
  const nothing = list.loaded.value && waiting.loaded.value && items.length + inProgress.length === 0;
  return (
    <>
      <div class="bar progress-bar" role="status" hidden={inProgress.length === 0}>
        {inProgress.length > 0 && (
          <a class="in-progress" href={link("tasks", "", { ...toQuery(filter), state: IN_PROGRESS })}>
            <i /> {words.inProgress(inProgress.length, !waiting.complete.value)}
          </a>
        )}
      </div>
      <SelectionBar list={list} filter={list.filter} />
      {list.error.value && <p class="error">{list.error.value}</p>}
      {!list.loaded.value && !list.error.value && <Loading />}
      {nothing && (
        <div class="empty">
          <Icon name="photos" />
          <p>{isEmpty(filter) ? words.empty : texts.filters.nothing}</p>
        </div>
      )}
      <Gallery list={list} inProgress={filter.state ? [] : inProgress} filter={filter} />
      {view.value === "photos" && detail.value && <Viewer id={detail.value} list={list} />}
    </>
  );
}
