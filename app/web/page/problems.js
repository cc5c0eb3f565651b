// What went wrong, and what mends it.

import { el } from "./dom.js";
import { maybe, t } from "./words.js";

/** `again`: what a button to try once more does. */
export function problemBox(problem, again = null) {
  const title = maybe(`problem.${problem.kind}`) || problem.title || t("problem.unexpected");
  const detail = problem.detail || (problem.kind ? "" : String(problem.message ?? problem));
  const places = (problem.errors ?? []).filter((one) => !detail.includes(one.detail));
  return el(
    "div.problem",
    { role: "alert" },
    el("strong", {}, title),
    detail && el("p", {}, detail),
    places.length > 0 && el("ul", {}, places.map((one) => el("li", {}, el("code", {}, one.pointer), ` ${one.detail}`))),
    problem.fallbacks?.length > 0 && el("ul", {}, problem.fallbacks.map((one) => el("li", {}, fallbackText(one)))),
    el("p.fix", {}, fixOf(problem)),
    again && el("button.plain", { type: "button", onclick: again }, t("again")),
    problem.instance && el("small", {}, t("request.id", { id: problem.instance })),
  );
}

export const fallbackText = (one) => t("fallback", { backend: one.backend, reason: one.reason });

function fixOf(problem) {
  const wait = problem.retryAfter ? t("fix.wait", { n: problem.retryAfter }) : "";
  const fix = maybe(`fix.${problem.kind}`) || maybe(`fix.${problem.status}`) || t("fix.other");
  return [fix, wait].filter(Boolean).join(" ");
}
