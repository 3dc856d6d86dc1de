// The bar with the selection and its actions.

import { useEffect, useState } from "preact/hooks";
import { type Action, countChosen, countMatching, ELIGIBLE, eligible, mayHold, type Plan, progress, run, soFar, stop } from "../state/actions";
import { address, archiveUrl, asked, hasArchive, type Task } from "../api/api";
import { type Filter } from "../api/filter";
import { recipes } from "../state/recipes";
import { clear, isSelecting, type Selection, selection, selectMatching } from "../state/selection";
import { may } from "../state/session";
import type { TaskList } from "../state/tasks";
import { texts } from "../texts";
import { asking, confirmed } from "../state/questions";
import { Icon, type IconName } from "./icons";
import { attempt, say } from "../state/messages";

const words = texts.selection;
const ACTIONS: { action: Action; icon: IconName }[] = [
  { action: "retry", icon: "retry" },
  { action: "cancel", icon: "close" },
  { action: "release", icon: "release" },
  { action: "rerun", icon: "recipes" },
  { action: "delete", icon: "trash" },
];

export function SelectionBar({ list, filter }: { list: TaskList; filter: Filter }) {
  const known = selection.value;
  const items = list.items.value;
  const found = usePlan(known, items);
  if (progress.value) return <UnderWay />;
  if (!isSelecting.value) {
    if (items.length === 0) return null;
    return (
      <div class="selection-bar idle">
        <button class="plain" onClick={() => selectMatching(filter)}>
          <Icon name="check" /> {words.selectAll}
        </button>
      </div>
    );
  }
  return (
    <div class="selection-bar" role="region" aria-label={words.selection}>
      <b role="status">{found ? words.selected(found.total, found.complete) : words.counting}</b>
      {"ids" in known && <button onClick={() => selectMatching(filter)}>{words.selectAll}</button>}
      <button onClick={clear}>{words.clear}</button>
      <span class="actions">
        {found &&
          may("operate") &&
          ACTIONS.filter(({ action }) => mayHold(found, ELIGIBLE[action])).map(({ action, icon }) => (
            <button key={action} onClick={() => void act(action, found, list)}>
              <Icon name={icon} /> {words.actions[action]}
            </button>
          ))}
        {found && mayHold(found, ["finished"]) && <Download />}
      </span>
    </div>
  );
}

/** What the selection holds, and never what the one before it held: that is what the question and the action speak of. */
function usePlan(known: Selection, items: readonly Task[]): Plan | undefined {
  const [counted, setCounted] = useState<{ of: Selection; plan: Plan } | undefined>();
  const matching = "filter" in known ? known.filter : undefined;
  useEffect(() => {
    let left = false;
    if (!matching) return undefined;
    void countMatching(matching)
      .then((plan) => void (left || setCounted({ of: known, plan })))
      .catch(() => undefined);
    return () => {
      left = true;
    };
  }, [known, matching ? items.length : 0]);
  if ("ids" in known) return countChosen(known.ids, items);
  return counted?.of === known ? counted.plan : undefined;
}

function UnderWay() {
  const { action, done, total, held } = progress.value!;
  return (
    <div class="selection-bar" role="region" aria-label={words.selection}>
      <b role="status">{words.progress(action, done, total)}</b>
      <progress max={total || 1} value={done} aria-label={words.actions[action]} />
      <button onClick={stop}>{words.stop}</button>
      {held && (
        <p class="quiet" role="status">
          {texts.uploads.held(held)}
        </p>
      )}
    </div>
  );
}

async function act(action: Action, found: Plan, list: TaskList): Promise<void> {
  const chosen = await attempt(() => soFar(selection.value));
  if (!chosen) return;
  const touched = eligible(action, found);
  const question = {
    title: words.question(action, touched, found.complete),
    text: [
      words.consequence[action],
      found.total > touched ? words.untouched(found.total - touched) : "",
      found.complete ? "" : words.estimate,
    ]
      .filter(Boolean)
      .join(" "),
    action: words.actions[action],
  };
  let recipe: string | undefined;
  if (action === "rerun") {
    recipe = await asking({ ...question, choice: { label: texts.filters.recipe, options: recipes.value.map((one) => one.name) } });
    if (recipe === undefined) return;
  } else if (!(await confirmed({ ...question, danger: action === "delete" || action === "cancel" }))) return;
  const result = await attempt(() => run(action, chosen, found.total, recipe));
  if (!result) return;
  if (action === "delete" && "ids" in chosen) for (const id of chosen.ids) list.forget(id);
  clear();
  void list.head();
  say(words.result(action, result.changed, result.skipped) + (result.stopped ? ` ${words.stopped}` : ""));
  if (result.problem) say(result.problem, "bad");
}

/** Have the browser save it, unless the service refuses. */
async function download(event: SubmitEvent & { currentTarget: HTMLFormElement }, tasks: string): Promise<void> {
  event.preventDefault();
  const form = event.currentTarget;
  await attempt(async () => {
    await hasArchive(tasks);
    form.submit();
  });
}

/** A form, because a selection may be longer than an address. */
function Download() {
  const known = selection.value;
  if ("filter" in known) {
    return (
      <a class="button main" href={archiveUrl(asked(known.filter))} download>
        <Icon name="download" /> {words.download}
      </a>
    );
  }
  const tasks = [...known.ids].join(",");
  return (
    <form method="post" action={address("archive")} onSubmit={(event) => void download(event, tasks)}>
      <input type="hidden" name="tasks" value={tasks} />
      <button class="main">
        <Icon name="download" /> {words.download}
      </button>
    </form>
  );
}

