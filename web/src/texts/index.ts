// The texts of the page in the language of the browser, as far as there is a file for it.

import { en } from "./en";

export type Texts = typeof en;
const LANGUAGES: Record<string, Texts> = { en };

export const language = navigator.languages.map((one) => one.slice(0, 2)).find((one) => one in LANGUAGES) ?? "en";
export const texts: Texts = LANGUAGES[language]!;
/** The language of the texts, as the browser's user writes it (en-GB): times stand among the texts. */
export const locale = navigator.languages.find((one) => one.slice(0, 2) === language) ?? language;
