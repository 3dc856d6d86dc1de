// The actions on one task.

import type { Action as Name } from "../../state/actions";
import { cancelTask, deleteTask, releaseTask, retryTask, type StateName, type Task } from "../../api/api";
import { confirmed } from "../../state/questions";
import type { IconName } from "../../parts/icons";
import { may } from "../../state/session";
import { texts } from "../../texts";

/** Where a changed task goes: a list, or the page of the task. */
export interface Holder {
  put(task: Task): void;
  forget(id: string): void;
}
interface Action {
  name: Exclude<Name, "rerun">;
  icon: IconName;
  run: (task: Task, holder: Holder) => Promise<void>;
}

const changing = (name: Action["name"], icon: IconName, call: (id: string) => Promise<Task>): Action => ({
  name,
  icon,
  run: async (task, holder) => holder.put(await call(task.id)),
});
const CANCEL = changing("cancel", "close", cancelTask);
const RETRY = changing("retry", "retry", retryTask);
const RELEASE = changing("release", "release", releaseTask);
export const DELETE: Action = {
  name: "delete",
  icon: "trash",
  run: async (task, holder) => {
    if (!(await confirmDelete(task))) return;
    await deleteTask(task.id);
    holder.forget(task.id);
  },
};

export const confirmDelete = (task: Task) =>
  confirmed({
    title: texts.selection.deleteOne(task.filename || task.id),
    text: texts.selection.consequence.delete,
    action: texts.selection.actions.delete,
    danger: true,
  });

export function actionsOf(state: StateName): Action[] {
  if (!may("operate")) return [];
  switch (state) {
    case "waiting":
    case "working":
    case "uploading":
      return [CANCEL];
    case "quarantined":
      return [RELEASE, DELETE];
    case "finished":
      return [DELETE];
    default:
      return [RETRY, DELETE];
  }
}
