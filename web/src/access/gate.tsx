// The sign-in, which is shown before the page if it is needed.

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { refused } from "../api/api";
import { connection } from "../api/live";
import { Icon } from "../parts/icons";
import { begin, me, signIn } from "../state/session";
import { unsent } from "../state/uploads";
import { texts as all } from "../texts";

const texts = all.access;

/** Shows the page to whoever is signed in; `start` is called once, when it may ask the service for things. */
export function Gate({ start, children }: { start: () => void; children: ComponentChildren }) {
  const [problem, setProblem] = useState("");
  const [started, setStarted] = useState(false);
  const look = () => {
    setProblem("");
    begin().catch((error: Error) => {
      setProblem(error.message);
      me.value ??= undefined;
    });
  };
  useEffect(look, []);
  // The page notices that a session has ended when the live connection or a request is refused.
  useEffect(() => refused.subscribe((count) => count > 0 && started && void begin().catch(() => undefined)), [started]);
  useEffect(() => connection.subscribe((state) => state === "lost" && started && void begin().catch(() => undefined)), [started]);
  const in_ = me.value?.signed_in ?? false;
  useEffect(() => {
    if (in_ && !started) {
      setStarted(true);
      start();
    }
  }, [in_]);
  if (in_ && started) return <>{children}</>;
  if (problem && !me.value) return <Problem words={problem} again={look} />;
  return me.value && !in_ ? <SignIn /> : null;
}

function Problem({ words, again }: { words: string; again: () => void }) {
  return (
    <main id="main" class="sign-in">
      <p class="error" role="alert">
        {words}
      </p>
      <button class="main" onClick={again}>
        {texts.signIn.problem}
      </button>
    </main>
  );
}

function SignIn() {
  const [key, setKey] = useState("");
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const words = texts.signIn;
  const submit = (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setProblem("");
    signIn(key.trim())
      .catch((error: Error) => setProblem(error.message))
      .finally(() => setBusy(false));
  };
  return (
    <main id="main" class="sign-in">
      <form class="panel" onSubmit={submit}>
        <h1>
          <Icon name="lamp" /> {words.title}
        </h1>
        <p class="quiet">{words.words}</p>
        {unsent.value > 0 && <p role="status">{words.unsent(unsent.value)}</p>}
        <KeyField value={key} change={setKey} />
        {problem && (
          <p class="error" role="alert">
            {problem}
          </p>
        )}
        <button class="main" disabled={busy}>
          {words.action}
        </button>
        {me.value?.providers.map((name) => (
          <a key={name} class="button" href={`sign-in/${encodeURIComponent(name)}`}>
            {words.provider(name)}
          </a>
        ))}
      </form>
    </main>
  );
}

const KeyField = ({ value, change }: { value: string; change: (key: string) => void }) => (
  <label>
    <span>{texts.signIn.key}</span>
    <input
      type="password"
      name="key"
      autocomplete="current-password"
      required
      value={value}
      onInput={(event) => change(event.currentTarget.value)}
    />
  </label>
);
