// Asking for the API key.

import { hasKey, setKey } from "./api.js";
import { forgetCatalog } from "./catalog.js";
import { el, field } from "./dom.js";
import { t } from "./words.js";

let asking = null;

/** Resolves to whether there is a new key. Several calls that are refused at once ask once. */
export function askKey(reason) {
  asking ??= ask(reason).finally(() => (asking = null));
  return asking;
}

function ask(reason) {
  return new Promise((resolve) => {
    const input = el("input", { type: "password", autocomplete: "off", spellcheck: "false" });
    const finish = (given) => {
      forgetCatalog();
      resolve(given);
      dialog.close();
    };
    const save = (event) => {
      event.preventDefault();
      setKey(input.value);
      finish(input.value.trim() !== "");
    };
    const forget = () => {
      setKey("");
      finish(true);
    };
    const form = el(
      "form",
      { onsubmit: save },
      el("h2", {}, t("key")),
      el("p", {}, reason),
      field(t("key"), input, t("key.kept")),
      el("div.line.spread", {}, el("button.primary", { type: "submit" }, t("key.use")), hasKey() && el("button.plain", { type: "button", onclick: forget }, t("key.forget")), el("button.plain", { type: "button", onclick: () => dialog.close() }, t("cancel"))),
    );
    const dialog = el("dialog.key", { "aria-label": t("key") }, form);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(false);
    });
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
}
