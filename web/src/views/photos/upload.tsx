// The upload area.

import { useRef } from "preact/hooks";
import { PHOTOS } from "../../kinds";
import { Icon } from "../../parts/icons";
import { choose, chosen, recipes } from "../../state/recipes";
import { texts } from "../../texts";
import * as uploads from "../../state/uploads";
import { Tray } from "./tray";

const words = texts.uploads;

export function Upload() {
  return (
    <section class="upload" aria-label={words.title}>
      <div class="drop">
        <div class="invitation">
          <Icon name="lamp" />
          <div>
            <h1>{words.invitation}</h1>
            <p>{words.hint}</p>
          </div>
        </div>
        <div class="ways">
          <Pick icon="upload" label={words.choose} main multiple accept={PHOTOS} />
          <Pick icon="folder" label={words.directory} webkitdirectory />
          <Pick icon="camera" label={words.camera} accept="image/*" capture="environment" class="touch" />
        </div>
        <Options />
      </div>
      {uploads.rows.value.length > 0 && <Tray />}
    </section>
  );
}

type PickProps = {
  icon: "upload" | "folder" | "camera";
  label: string;
  main?: boolean;
  class?: string;
  multiple?: boolean;
  accept?: string;
  capture?: "environment";
  webkitdirectory?: boolean;
};

function Pick({ icon, label, main, class: name, ...input }: PickProps) {
  const field = useRef<HTMLInputElement>(null);
  const take = () => {
    uploads.add([...(field.current?.files ?? [])]);
    field.current!.value = "";
  };
  return (
    <>
      <button class={`${main ? "main" : ""} ${name ?? ""}`} onClick={() => field.current?.click()}>
        <Icon name={icon} /> {label}
      </button>
      <input ref={field} type="file" hidden aria-label={label} onChange={take} {...input} />
    </>
  );
}

function Options() {
  const described = recipes.value.find((recipe) => recipe.name === chosen.value);
  return (
    <div class="options">
      <label>
        <span>{texts.filters.recipe}</span>
        <select id="recipe" value={chosen.value} onChange={(event) => choose(event.currentTarget.value)}>
          {recipes.value.length === 0 && <option value={chosen.value}>{chosen.value}</option>}
          {recipes.value.map((recipe) => (
            <option key={recipe.name} value={recipe.name}>
              {recipe.name}
            </option>
          ))}
        </select>
      </label>
      <span class="quiet described">{described?.spec.description ?? ""}</span>
      <label>
        <span>{texts.batches.batch}</span>
        <input
          type="text"
          value={uploads.batch.value}
          maxLength={64}
          placeholder={words.batchName}
          onInput={(event) => (uploads.batch.value = event.currentTarget.value)}
        />
      </label>
      <label class="switch">
        <input
          type="checkbox"
          checked={uploads.review.value}
          onChange={(event) => uploads.setReview(event.currentTarget.checked)}
        />
        <span>{words.review}</span>
      </label>
    </div>
  );
}
