// Starts the page: its frame, and the view that the address names.

import { hasKey, onKeyNeeded } from "./api.js";
import { el, fill } from "./dom.js";
import { askKey } from "./key.js";
import { problemBox } from "./problems.js";
import { askView } from "./views/ask.js";
import { compareView } from "./views/compare.js";
import { documentsView } from "./views/documents.js";
import { searchView } from "./views/search.js";
import { statusView } from "./views/status.js";
import { usageView } from "./views/usage.js";
import { LANGUAGES, language, remember, remembered, setLanguage, startLanguage, t } from "./words.js";

const VIEWS = { ask: askView, search: searchView, compare: compareView, documents: documentsView, usage: usageView, status: statusView };

const THEMES = ["auto", "light", "dark"];

let opened = {};
const main = el("main", { id: "main", tabindex: "-1" });

async function start() {
  await startLanguage();
  document.body.replaceChildren(...frame());
  onKeyNeeded(keyNeeded);
  addEventListener("hashchange", show);
  await show();
  document.documentElement.dataset.ready = "";
}

function frame() {
  const skip = (event) => {
    event.preventDefault(); // the part after # names the view
    main.focus();
  };
  return [
    el("a.skip", { href: "#main", onclick: skip }, t("skip")),
    el("header.top", {}, el("a.brand", { href: "#/ask" }, "Winnow"), el("nav", { "aria-label": t("views") }, Object.keys(VIEWS).map((name) => el("a", { href: `#/${name}`, "data-view": name }, t(`view.${name}`)))), el("div.tools", {}, keyButton(), themeButton(), languageChoice())),
    main,
    el("div.unseen", { id: "status", role: "status" }),
  ];
}

async function show() {
  const [, name, parameters] = /^#\/(\w+)(?:\?(.*))?$/.exec(location.hash) ?? [];
  const view = Object.hasOwn(VIEWS, name) ? name : "ask";
  opened[view] ??= VIEWS[view]();
  const { root, open } = opened[view];
  if (main.firstElementChild !== root) fill(main, root);
  document.title = `${t(`view.${view}`)} · Winnow`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view !== view) link.removeAttribute("aria-current");
    else {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ inline: "center", block: "nearest" }); // on a phone not all of them fit
    }
  }
  try {
    await open(new URLSearchParams(parameters ?? ""));
    root.querySelector(":scope > .problem")?.remove();
  } catch (problem) {
    root.querySelector(":scope > .problem")?.remove();
    root.prepend(problemBox(problem, show));
  }
}

async function keyNeeded(rejected) {
  const given = await askKey(t(rejected ? "key.rejected" : "key.needed"));
  labelKey();
  return given;
}

function keyButton() {
  return el("button.plain", { type: "button", id: "key", onclick: async () => (await askKey(t("key.why"))) && again() }, t(hasKey() ? "key.set" : "key.enter"));
}

function labelKey() {
  const button = document.getElementById("key");
  if (button) button.textContent = t(hasKey() ? "key.set" : "key.enter");
}

function themeButton() {
  const button = el("button.plain", { type: "button", onclick: turn });
  const label = () => {
    button.textContent = t(`theme.${remembered("winnow-theme") ?? "auto"}`);
    button.title = t("theme");
  };
  function turn() {
    const next = THEMES[(THEMES.indexOf(remembered("winnow-theme") ?? "auto") + 1) % THEMES.length];
    remember("winnow-theme", next === "auto" ? "" : next);
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    label();
  }
  label();
  return button;
}

function languageChoice() {
  const options = Object.entries(LANGUAGES).map(([value, name]) => el("option", { value, lang: value }, name));
  const select = el("select", { "aria-label": t("language"), onchange: () => change(select.value) }, options);
  select.value = language;
  return select;
}

async function change(name) {
  remember("winnow-language", name);
  await setLanguage(name);
  await again();
}

/** Everything is drawn anew: in another language, or with another key. */
async function again() {
  opened = {};
  document.body.replaceChildren(...frame());
  fill(main);
  await show();
}

start();
