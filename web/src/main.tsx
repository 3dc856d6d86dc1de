import { effect, signal } from "@preact/signals";
import { render } from "preact";
import { AccessButton } from "./access/access";
import { Gate } from "./access/gate";
import { keepFocus } from "./focus";
import { keep, kept } from "./kept";
import * as live from "./api/live";
import { Confirm } from "./parts/confirm";
import { DropOverlay } from "./parts/drop";
import { Help } from "./parts/help";
import { Icon, type IconName } from "./parts/icons";
import { Toasts } from "./parts/toast";
import * as offline from "./offline/offline";
import * as recipes from "./state/recipes";
import { may, offered, place, whose } from "./state/session";
import { acting, link, subject, type View } from "./router";
import * as uploads from "./state/uploads";
import { language, texts } from "./texts";
import { Batches } from "./views/batches";
import { Photos } from "./views/photos/photos";
import { Recipes } from "./views/recipes/recipes";
import { System } from "./views/system/system";
import { Tasks } from "./views/tasks/tasks";

const PLACES: Record<View, { icon: IconName; page: () => preact.JSX.Element | null }> = {
  photos: { icon: "photos", page: Photos },
  tasks: { icon: "tasks", page: Tasks },
  batches: { icon: "batches", page: Batches },
  recipes: { icon: "recipes", page: Recipes },
  system: { icon: "system", page: System },
};
const THEMES = ["auto", "light", "dark"] as const;
const THEME_KEY = "safelight.theme";
const theme = signal(THEMES.find((name) => name === kept(THEME_KEY)) ?? "auto");

effect(() => {
  document.documentElement.dataset.theme = theme.value;
  keep(THEME_KEY, theme.value);
});
effect(() => {
  document.title = `${subject.value || texts.views[place.value]} · safelight`;
});
document.documentElement.lang = language;

function Page() {
  const Shown = PLACES[place.value].page;
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        {texts.skip}
      </a>
      <Top />
      <main id="main" tabIndex={-1}>
        {acting && <Acting />}
        <Shown />
      </main>
      <DropOverlay />
      <Toasts />
      <Confirm />
    </>
  );
}

/** The mark, the views, the connection and what there is in every view. */
function Top() {
  const state = live.connection.value;
  return (
    <header class="top">
      <a class="mark" href={link("photos")}>
        <Icon name="lamp" />
        <span>safelight</span>
      </a>
      <nav aria-label={texts.navigation}>
        {offered.value.map((name) => (
          <a key={name} href={link(name)} aria-current={place.value === name ? "page" : undefined}>
            <Icon name={PLACES[name].icon} />
            <span>{texts.views[name]}</span>
          </a>
        ))}
      </nav>
      <span class={`lamp ${state}`} role="status" title={texts.connection.long[state]}>
        <i />
        <span>{texts.connection.short[state]}</span>
      </span>
      <Help />
      <span class="actions">
        <AccessButton />
        <ThemeButton />
      </span>
    </header>
  );
}

/** For whom an administrator of the system acts here. */
const Acting = () => (
  <p class="panel notice" role="status">
    <span>{texts.tenant.acting(acting)}</span>
    <a class="button" href={link(place.value, "", { tenant: "" })}>
      {texts.tenant.leave}
    </a>
  </p>
);

/** The hash says where one is, so the link moves the focus itself. */
function skip(event: Event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function ThemeButton() {
  const next = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length]!;
  const icons: Record<string, IconName> = { auto: "auto", light: "sun", dark: "moon" };
  const label = texts.theme(theme.value, next);
  return (
    <button class="plain round" onClick={() => (theme.value = next)} aria-label={label} title={label}>
      <Icon name={icons[theme.value]!} />
    </button>
  );
}

function start() {
  live.start(() => may("read"));
  uploads.start(whose());
  void recipes.load().catch(() => undefined);
  offline.whenLive(() => recipes.recipes.value.length || void recipes.load().catch(() => undefined));
  offline.start();
  keepFocus();
}
// Draw in a separate task, since evaluating the script and drawing the page in one would block for too long.
setTimeout(() =>
  render(
    <Gate start={start}>
      <Page />
    </Gate>,
    document.getElementById("page")!,
  ),
);
