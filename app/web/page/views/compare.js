// Compare: two to four backends on one question, side by side.

import { AnswerText } from "../answer_text.js";
import { call } from "../api.js";
import { backendLabel, canAnswer, catalog, chosenCollection, collectionChoice, roles } from "../catalog.js";
import { announce, choice, el, field, fill, offer } from "../dom.js";
import { problemBox } from "../problems.js";
import { openDocument } from "../reader.js";
import { bar, notesOf, titleOf } from "../results.js";
import { snippet } from "../snippet.js";
import { dollars, duration, maybe, number, t } from "../words.js";

const MOST = 4;
const SHOWN = 8;

export function compareView() {
  const collection = collectionChoice();
  const question = el("input", { required: true, maxlength: "8192", placeholder: t("ask.placeholder"), "aria-label": t("ask.question") });
  const send = el("button.primary", { type: "submit" }, t("view.compare"));
  const chosen = el("div.controls");
  const more = el("button.plain", { type: "button", onclick: () => addChoice() }, t("compare.more"));
  const out = el("div");
  const form = el("form.panel", { onsubmit: submit }, el("div.line", {}, question, send), el("div.controls", {}, field(t("collection"), collection.select)), chosen, more);
  const root = el("section.view", {}, el("h1", {}, t("compare.title")), form, out);
  let selects = [];
  let options = [];
  let running = null;

  async function open() {
    const { backends } = await catalog();
    options = backends.filter(canAnswer);
    selects.forEach((select) => offer(select, named(options)));
    while (selects.length < Math.min(2, options.length)) addChoice();
    await collection.refresh();
    send.disabled = options.length < 2;
    if (!out.childElementCount) fill(out, el("p.empty", {}, t(options.length < 2 ? "compare.one" : "compare.empty")));
    question.focus({ preventScroll: true });
  }

  function addChoice() {
    const free = options.find((one) => !selects.some((select) => select.value === one.name)) ?? options[0];
    const select = choice(named(options), free.name);
    const away = el("button.plain", { type: "button", "aria-label": t("compare.less"), onclick: () => remove(select) }, "✕");
    selects.push(select);
    chosen.append(el("div.field.pick", {}, field(t("compare.backend", { n: selects.length }), select), away));
    refreshButtons();
  }

  function remove(select) {
    selects = selects.filter((one) => one !== select);
    select.closest(".pick").remove();
    refreshButtons();
  }

  function refreshButtons() {
    more.hidden = selects.length >= Math.min(MOST, options.length);
    chosen.querySelectorAll(".pick > button").forEach((button) => (button.hidden = selects.length <= 2));
  }

  async function submit(event) {
    event.preventDefault();
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    const names = [...new Set(selects.map((select) => select.value))];
    const columns = names.map((name) => new Column(options.find((one) => one.name === name), { query: question.value.trim(), collection: chosenCollection() }));
    fill(out, el("div.columns-grid", { vars: { "--columns": columns.length } }, columns.map((column) => column.root)));
    await Promise.all(columns.map((column) => column.ask(signal)));
    if (signal.aborted) return;
    const done = columns.filter((column) => column.answer);
    const longest = Math.max(...done.flatMap((column) => Object.values(column.answer.timings_ms)), 1);
    done.forEach((column) => column.compare(done, longest));
    announce(t("compare.done", { n: done.length }));
  }

  return { root, open };
}

const named = (options) => options.map((one) => [one.name, backendLabel(one)]);

/** One backend's answer, and what it took. */
class Column {
  answer = null;
  #box = el("div", {}, el("p.state", {}, t("ask.searching")));

  constructor(backend, { query, collection }) {
    this.body = { query, collection, ...roles(backend) };
    this.root = el("section.column.card", { "aria-label": backend.name }, el("h2", {}, backendLabel(backend)), this.#box);
  }

  async ask(signal) {
    try {
      this.answer = await call("POST", "answer", { body: this.body, signal });
    } catch (problem) {
      if (!signal.aborted) fill(this.#box, problemBox(problem));
    }
  }

  get cost() {
    return this.answer.usage.cost_usd;
  }

  get took() {
    return this.answer.timings_ms.total ?? 0;
  }

  /** Draws it beside the others: `longest` is the time that fills a bar, the first column's order the one to compare with. */
  compare(columns, longest) {
    const { answer } = this;
    const text = new AnswerText((citation) => openDocument({ ...answer.results.find((hit) => hit.id === citation.result_id), ...citation, collection: this.body.collection }));
    text.text = answer.answer;
    text.finish(answer);
    const least = (of) => columns.length > 1 && columns.every((one) => one === this || of(one) > of(this));
    const tokens = answer.usage.input_tokens + answer.usage.output_tokens;
    fill(
      this.#box,
      el("p.figures", {}, figure(duration(this.took), least((one) => one.took) && t("compare.fastest")), figure(t("tokens", { n: tokens })), figure(dollars(this.cost), least((one) => one.cost) && t("compare.cheapest"))),
      answer.answerable ? null : el("p.abstained", {}, t("ask.abstained.title")),
      text.root,
      el("p.muted", {}, t("compare.citations", { n: answer.citations.length }), answer.unsupported.length ? ` · ${t("compare.unsupported", { n: answer.unsupported.length })}` : ""),
      notesOf(answer),
      el("h3", {}, t("compare.order")),
      this.#order(columns[0]),
      el("h3", {}, t("compare.stages")),
      el("div.bars", {}, stages(answer.timings_ms).map(([name, ms]) => bar(maybe(`stage.${name}`) || name, duration(ms), ms / longest))),
      snippet(() => ({ method: "POST", path: "answer", body: this.body })),
    );
  }

  #order(first) {
    if (!this.answer.results.length) return el("p.muted", {}, t("compare.nothing"));
    const places = new Map(first.answer.results.map((hit, index) => [hit.id, index]));
    const rows = this.answer.results.slice(0, SHOWN).map((hit, index) =>
      el("li", {}, el("button.link", { type: "button", onclick: () => openDocument({ ...hit, collection: this.body.collection }) }, titleOf(hit)), ` ${number(hit.score, 2)} `, first === this ? null : shift(places.get(hit.id), index)),
    );
    return el("ol.order", {}, rows);
  }
}

const stages = (timings) => Object.entries(timings).filter(([name]) => name !== "total");

const figure = (text, praise) => el("span", {}, text, praise && el("span.badge.up", {}, praise));

/** The difference to the order of the first column. */
function shift(from, to) {
  if (from === to) return null;
  if (from === undefined) return el("span.badge", {}, t("compare.only"));
  return from > to ? el("span.badge.up", {}, t("moved.up", { by: from - to })) : el("span.badge.down", {}, t("moved.down", { by: to - from }));
}
