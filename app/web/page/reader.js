// A document, opened at a quote.

import { call } from "./api.js";
import { units } from "./answer_text.js";
import { el, fill, sourceOf } from "./dom.js";
import { problemBox } from "./problems.js";
import { flowing, t } from "./words.js";

const BEFORE = 20_000;
const AFTER = 40_000;
/** Units of a long document that are shown around the quote: a browser takes seconds to lay out megabytes. */

/** `place`: collection, document_id, its tenant if it has one, and start, end (code points) and page of the quote, if
 *  there is one. */
export async function openDocument(place) {
  const heading = el("h2", { tabindex: "-1" }, place.title || place.source || t("reader.title"));
  const about = el("p.muted");
  const text = el("div.reader-text", { dir: "auto", tabindex: "0", role: "region", "aria-label": t("reader.text") }, t("loading"));
  const close = el("button.plain", { type: "button", onclick: () => dialog.close() }, t("close"));
  const head = el("header", {}, el("div", {}, heading, about), close);
  const dialog = el("dialog.reader", { onclose: () => dialog.remove(), onclick: (event) => event.target === dialog && dialog.close() }, head, text);
  dialog.setAttribute("aria-label", t("reader.title"));
  document.body.append(dialog);
  dialog.showModal();
  heading.focus();
  try {
    const path = `documents/${encodeURIComponent(place.document_id)}`;
    const found = await call("GET", path, { query: { collection: place.collection, tenant: place.tenant || null } });
    fill(heading, found.title || found.source || found.id);
    fill(about, aboutOf(found, place));
    show(text, found, place);
  } catch (problem) {
    fill(text, problemBox(problem));
  }
}

function aboutOf(found, place) {
  const page = place.page ? t("page", { page: place.page }) : null;
  const facts = [sourceOf(found.source), page, t("passages", { n: found.passages })].filter(Boolean);
  return facts.flatMap((fact, index) => (index ? [" · ", fact] : [fact]));
}

function show(root, found, place, whole = false) {
  const text = flowing(found.text);
  const unit = units(text);
  const quote = place.end > place.start ? [unit(place.start), unit(place.end)] : [0, 0];
  const from = whole ? 0 : Math.max(0, quote[0] - BEFORE);
  const to = whole ? text.length : Math.min(text.length, quote[1] + AFTER);
  const more = to - from < text.length;
  const rest = more && el("button.plain", { type: "button", onclick: () => show(root, found, place, true) }, t("reader.all"));
  const parts = [];
  let at = from;
  for (const [start, page] of pagesOf(found.ranges, unit)) {
    if (start < from || start > to) continue;
    parts.push(...marked(text, at, start, quote), el("h3.page", {}, t("page", { page })));
    at = start;
  }
  parts.push(...marked(text, at, to, quote));
  fill(root, from > 0 && rest, parts, from === 0 && rest);
  root.querySelector("mark")?.scrollIntoView({ block: "center" });
}

/** [offset, page] for each passage with which a page begins. */
function pagesOf(ranges, unit) {
  const begins = [];
  for (const { start, page } of ranges) {
    if (page !== null && page !== begins.at(-1)?.[1]) begins.push([unit(start), page]);
  }
  return begins;
}

function marked(text, start, end, [from, to]) {
  const begin = Math.min(Math.max(from, start), end);
  const stop = Math.max(begin, Math.min(to, end));
  return [text.slice(start, begin), stop > begin && el("mark", {}, text.slice(begin, stop)), text.slice(stop, end)];
}
