// What responses have in common: passages with their scores, the time of each stage, tokens and dollars.

import { el, sourceOf } from "./dom.js";
import { fallbackText } from "./problems.js";
import { dollars, duration, maybe, number, t } from "./words.js";

/** One bar of a score: `share` of the widest, and the value in figures. */
export function bar(label, value, share, hint = "") {
  return el(
    "div.bar",
    { title: hint },
    el("span.bar-label", {}, label),
    el("span.bar-track", { "aria-hidden": "true" }, el("span.bar-fill", { vars: { "--share": Math.max(0, Math.min(1, share)) } })),
    el("span.bar-value", {}, value),
  );
}

/** The evidence of each side. `best` are the highest values of the list, as a BM25 score has no bound of its own. */
export function scoreBars(scores, best) {
  const sides = [
    ["dense", scores.dense, scores.dense],
    ["sparse", scores.sparse, scores.sparse / best.sparse],
    ["fused", scores.fused, scores.fused / best.fused],
    ["grade", scores.grade, scores.grade],
  ];
  return sides
    .filter(([, value]) => value !== undefined)
    .map(([name, value, share]) => bar(t(`score.${name}`), number(value, 2), share, t(`score.${name}.hint`)));
}

export function highest(results) {
  const of = (name) => Math.max(...results.map((hit) => hit.scores[name] ?? 0), Number.MIN_VALUE);
  return { sparse: of("sparse"), fused: of("fused") };
}

/** Where a passage stands: source, page, headings. */
export function placeOf(hit) {
  const pages = hit.page_end > hit.page ? `${hit.page}–${hit.page_end}` : hit.page;
  const parts = [sourceOf(hit.source), hit.page ? t("page", { page: pages }) : null, hit.heading?.join(" › ")];
  return parts.filter(Boolean).flatMap((part, index) => (index ? [" · ", part] : [part]));
}

export const titleOf = (hit) => hit.title || hit.source || hit.document_id;

export const flagsOf = (flags = []) => flags.map((flag) => el("span.badge.warn", { title: maybe(`flag.${flag}.hint`) }, maybe(`flag.${flag}`) || flag));

/** Who served, how long each stage took, and what it cost; unfolds. */
export function receipt(response) {
  const { usage, timings_ms: timings } = response;
  const used = [response.answer_backend ?? response.backend, response.backend].map((one) => one.used);
  const names = [...new Set(used)].filter((name) => name !== "none").join(" + ") || t("backend.none");
  const tokens = usage.input_tokens + usage.output_tokens;
  const facts = [names, duration(timings.total ?? 0), tokens ? t("tokens", { n: tokens }) : null, dollars(usage.cost_usd)];
  return el(
    "details.receipt",
    {},
    el("summary", {}, facts.filter(Boolean).join(" · ")),
    stageBars(timings),
    usageTable(usage),
    fallbacksOf(response),
  );
}

/** The time of each stage, the longest of them as wide as the column. */
export function stageBars(timings) {
  const stages = Object.entries(timings).filter(([name]) => name !== "total");
  const longest = Math.max(...stages.map(([, ms]) => ms), 1);
  return el("div.bars", {}, stages.map(([name, ms]) => bar(maybe(`stage.${name}`) || name, duration(ms), ms / longest)));
}

export function usageTable(usage) {
  const stages = Object.entries(usage.by_stage);
  if (!stages.length) return el("p.muted", {}, t("usage.nomodel"));
  const row = (name, one) =>
    el("tr", {}, el("th", { scope: "row" }, name), [one.requests, one.input_tokens, one.output_tokens].map((n) => el("td.number", {}, number(n))), el("td.number", {}, dollars(one.cost_usd)));
  const heads = ["stage", "calls", "input", "output", "cost"].map((name, index) => el(index ? "th.number" : "th", { scope: "col" }, t(`column.${name}`)));
  return el("div.scroll", {}, el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, stages.map(([name, one]) => row(maybe(`stage.${name}`) || name, one)))));
}

function fallbacksOf(response) {
  const failed = [response.backend, response.answer_backend].filter(Boolean).flatMap((one) => one.fallbacks ?? []);
  return failed.length ? el("ul.notes", {}, failed.map((one) => el("li", {}, fallbackText(one)))) : null;
}

/** What was left out because a model failed, and what had no effect. */
export function notesOf(response) {
  const notes = [...(response.degraded ?? []), ...(response.warnings ?? [])];
  return notes.length ? el("ul.notes", {}, notes.map((note) => el("li", {}, note))) : null;
}
