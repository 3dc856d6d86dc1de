import { effect, signal } from "@preact/signals";
import { render } from "preact";
import * as live from "./live";
import { Confirm } from "./parts/confirm";
import { Icon, type IconName } from "./parts/icons";
import { Toasts } from "./parts/toast";
import * as recipes from "./recipes";
import { link, view, type View, VIEWS } from "./router";
import * as uploads from "./uploads";
import { Photos } from "./views/photos";
import { Queue } from "./views/queue";
import { Recipes } from "./views/recipes";
import { System } from "./views/system";

const PLACES: Record<View, { title: string; icon: IconName; page: () => preact.JSX.Element }> = {
  photos: { title: "Photos", icon: "photos", page: Photos },
  tasks: { title: "Tasks", icon: "tasks", page: Queue },
  recipes: { title: "Recipes", icon: "recipes", page: Recipes },
  system: { title: "System", icon: "system", page: System },
};
const THEMES = ["auto", "light", "dark"] as const;
const THEME_KEY = "safelight.theme";
const theme = signal(THEMES.find((name) => name === localStorage.getItem(THEME_KEY)) ?? "auto");
const LIVE = {
  connecting: "Connecting …",
  live: "Live: changes appear as they happen",
  lost: "No connection to the service; it is tried again",
};

effect(() => {
  document.documentElement.dataset.theme = theme.value;
  localStorage.setItem(THEME_KEY, theme.value);
});
effect(() => {
  document.title = `${PLACES[view.value].title} · safelight`;
});

function Page() {
  const Shown = PLACES[view.value].page;
  const state = live.connection.value;
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <header class="top">
        <a class="mark" href={link("photos")}>
          <Icon name="lamp" />
          <span>safelight</span>
        </a>
        <nav aria-label="Main">
          {VIEWS.map((name) => (
            <a key={name} href={link(name)} aria-current={view.value === name ? "page" : undefined}>
              <Icon name={PLACES[name].icon} />
              <span>{PLACES[name].title}</span>
            </a>
          ))}
        </nav>
        <span class={`lamp ${state}`} role="status" title={LIVE[state]}>
          <i />
          <span>{state === "live" ? "Live" : state === "lost" ? "No connection" : "Connecting"}</span>
        </span>
        <ThemeButton />
      </header>
      <main id="main" tabIndex={-1}>
        <Shown />
      </main>
      <Toasts />
      <Confirm />
    </>
  );
}

/** The hash says where one is, so the link moves the focus itself. */
function skip(event: Event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function ThemeButton() {
  const next = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length]!;
  const icons: Record<string, IconName> = { auto: "auto", light: "sun", dark: "moon" };
  return (
    <button
      class="plain round"
      onClick={() => (theme.value = next)}
      aria-label={`Colours: ${theme.value}. Change to ${next}`}
      title={`Colours: ${theme.value}`}
    >
      <Icon name={icons[theme.value]!} />
    </button>
  );
}

live.start();
uploads.start();
void recipes.load().catch(() => undefined);
render(<Page />, document.getElementById("page")!);
