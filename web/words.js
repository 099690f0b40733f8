// Words in the user's language.

import { app } from "../../scripts/app.js";

/** The entry of `words` for ComfyUI's language, English where there is none. */
export function inLanguage(words) {
  const locale = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
  return words[locale.slice(0, 2)] ?? words.en;
}
