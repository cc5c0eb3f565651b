// Search: the passages, and why each stands where it stands.

import { call } from "../api.js";
import { backendLabel, canRank, catalog, chooseCollection, chosenCollection, collectionChoice } from "../catalog.js";
import { announce, choice, el, field, fill, offer, tick } from "../dom.js";
import { filterBuilder } from "../filters.js";
import { problemBox } from "../problems.js";
import { openDocument } from "../reader.js";
import { flagsOf, highest, notesOf, placeOf, receipt, scoreBars, titleOf } from "../results.js";
import { snippet } from "../snippet.js";
import { flowing, number, t } from "../words.js";

const CANDIDATES = 50;

export function searchView() {
  const query = el("input", { type: "search", required: true, maxlength: "8192", placeholder: t("search.placeholder"), "aria-label": t("search.query") });
  const collection = collectionChoice();
  const backend = choice([["", t("backend.default")]], "");
  const mode = choice(["hybrid", "dense", "sparse"].map((name) => [name, t(`mode.${name}`)]), "hybrid");
  const limit = choice(["5", "10", "20", "50", "100"].map((n) => [n, n]), "10");
  const grouped = tick(t("search.grouped"), false);
  const filters = filterBuilder(() => ({ collection: chosenCollection(), query: query.value.trim() }));
  const out = el("div.out", { "aria-busy": "false" });
  const form = el(
    "form.panel",
    { onsubmit: submit },
    el("div.line", {}, query, el("button.primary", { type: "submit" }, t("view.search"))),
    el(
      "details.options",
      {},
      el("summary", {}, t("options")),
      el("div.controls", {}, field(t("collection"), collection.select), field(t("search.ranked"), backend), field(t("search.mode"), mode), field(t("search.limit"), limit), grouped.root),
      filters.root,
    ),
  );
  const root = el("section.view", {}, el("h1", {}, t("view.search")), form, out);
  let running = null;

  async function open(params) {
    const { backends } = await catalog();
    offer(backend, [["", t("backend.default")], ["none", t("backend.none")], ...backends.filter(canRank).map((one) => [one.name, backendLabel(one)])]);
    if (params.get("collection")) chooseCollection(params.get("collection"));
    await collection.refresh();
    const asked = params.get("q");
    if (asked && asked !== query.value) {
      query.value = asked;
      await search();
    } else if (!out.childElementCount) {
      fill(out, el("p.empty", {}, t("search.empty")));
    }
    query.focus({ preventScroll: true });
  }

  function submit(event) {
    event.preventDefault();
    if (!query.value.trim()) return;
    history.pushState(null, "", `#/search?${new URLSearchParams({ q: query.value.trim(), collection: chosenCollection() })}`);
    search();
  }

  function request() {
    const filter = filters.filter();
    return {
      query: query.value.trim(),
      collection: chosenCollection(),
      limit: Number(limit.value),
      ...(mode.value === "hybrid" ? {} : { mode: mode.value }),
      ...(backend.value ? { backend: backend.value } : {}),
      ...(grouped.box.checked ? { group_by_document: true } : {}),
      ...(filter ? { filter } : {}),
    };
  }

  async function search() {
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    const body = request();
    out.setAttribute("aria-busy", "true");
    if (!out.querySelector("ol")) fill(out, el("p.state", {}, t("ask.searching")));
    try {
      const found = await call("POST", "search", { body, signal });
      const before = found.backend.used === "none" ? null : await retrieved(body, signal);
      fill(out, shown(found, before, body));
      announce(t("search.found", { n: found.results.length }));
    } catch (problem) {
      if (!signal.aborted) fill(out, problemBox(problem, search));
    } finally {
      if (!signal.aborted) out.setAttribute("aria-busy", "false");
    }
  }

  return { root, open };
}

/** The place of each passage before a model read it. It costs no model call. */
async function retrieved(body, signal) {
  const limit = Math.max(CANDIDATES, body.limit);
  const { results } = await call("POST", "search", { body: { ...body, backend: "none", limit, include_text: false }, signal });
  return new Map(results.map((hit, index) => [hit.id, index + 1]));
}

function shown(found, before, body) {
  if (!found.results.length) return el("p.empty", {}, t(body.filter ? "search.nothing.filtered" : "search.nothing", { collection: body.collection }));
  const best = highest(found.results);
  const hits = found.results.map((hit, index) => shownHit(hit, index + 1, before, best, body.collection));
  return [notesOf(found), receipt(found), snippet(() => ({ method: "POST", path: "search", body })), el("ol.hits", {}, hits)];
}

function shownHit(hit, place, before, best, collection) {
  const open = () => openDocument({ ...hit, collection });
  return el(
    "li.hit",
    {},
    el("div.hit-head", {}, el("span.rank", {}, String(place)), el("button.link.title", { type: "button", onclick: open }, titleOf(hit)), el("span.score", { title: t("score.hint") }, number(hit.score, 2)), moved(hit.id, place, before), flagsOf(hit.flags)),
    el("p.place", {}, placeOf(hit)),
    el("p.passage", { dir: "auto" }, flowing(hit.text)),
    el("details.why", {}, el("summary", {}, t("search.why")), el("div.bars", {}, scoreBars(hit.scores, best)), el("p.muted", {}, ranker(hit)), metadata(hit.metadata)),
  );
}

const ranker = (hit) => (hit.ranked_by === "none" ? t("search.unread") : t("search.readby", { backend: hit.ranked_by }));

/** How far a model moved it. */
function moved(id, place, before) {
  if (!before) return null;
  const from = before.get(id);
  if (from === undefined) return el("span.badge", {}, t("moved.new"));
  if (from === place) return el("span.badge", {}, t("moved.same"));
  const up = from > place;
  return el(up ? "span.badge.up" : "span.badge.down", { title: t("moved.from", { from }) }, t(up ? "moved.up" : "moved.down", { by: Math.abs(from - place) }));
}

function metadata(fields) {
  const entries = Object.entries(fields);
  if (!entries.length) return null;
  return el("dl.metadata", {}, entries.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, typeof value === "string" ? value : JSON.stringify(value))]));
}
