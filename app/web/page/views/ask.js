// Ask: a conversation whose answers cite the documents.

import { AnswerText } from "../answer_text.js";
import { call, isAbort } from "../api.js";
import { backendLabel, canAnswer, catalog, chosenCollection, collectionChoice, roles } from "../catalog.js";
import { announce, choice, el, field, fill, offer, tick } from "../dom.js";
import { streamed } from "../events.js";
import { problemBox } from "../problems.js";
import { openDocument } from "../reader.js";
import { flagsOf, notesOf, placeOf, receipt, titleOf } from "../results.js";
import { snippet } from "../snippet.js";
import { number, t } from "../words.js";

const SAMPLES = {
  "employee-handbook.md": "When does dental cover start?",
  "annual-report-2025.pdf": "How many kettles were repaired in 2025?",
  "ruecksendungen-de.md": "Wie lange kann ich eine Bestellung zurücksenden?",
  "shouhou-fuwu-zh.md": "电水壶的保修期是多久？",
};
/** By the sample document that answers it. */

const MOST_TURNS = 50;

export function askView() {
  const collection = collectionChoice(() => begin());
  const backend = choice([["", t("backend.default")]], "");
  const checked = tick(t("ask.check"), false);
  const thread = el("div.thread");
  const question = el("textarea", { rows: "1", required: true, maxlength: "8192", placeholder: t("ask.placeholder"), "aria-label": t("ask.question"), onkeydown: submitOnEnter });
  const send = el("button.primary", { type: "submit" }, t("view.ask"));
  const stop = el("button.plain", { type: "button", hidden: true, onclick: () => running?.abort() }, t("stop"));
  const fresh = el("button.plain", { type: "button", hidden: true, onclick: begin }, t("ask.new"));
  const options = el("details.options", {}, el("summary", {}, t("options")), el("div.controls", {}, field(t("collection"), collection.select), field(t("backend"), backend), checked.root));
  const form = el("form.composer", { onsubmit: submit }, el("div.line", {}, question, send, stop), el("div.line.spread", {}, options, fresh));
  const root = el("section.view.ask", {}, thread, form);
  let running = null;
  let turns = [];

  async function open(params) {
    await offered();
    if (!thread.querySelector(".turn")) await begin();
    if (params.get("q")) question.value = params.get("q");
    question.focus({ preventScroll: true });
  }

  async function offered() {
    const { backends } = await catalog();
    const names = backends.filter(canAnswer).map((one) => [one.name, backendLabel(one)]);
    offer(backend, [["", t("backend.default")], ...names]);
    await collection.refresh();
  }

  async function begin() {
    running?.abort();
    turns = [];
    fresh.hidden = true;
    fill(thread);
    const shown = await welcome((text) => ask(text));
    if (!thread.childElementCount) fill(thread, shown); // else somebody was quicker to ask
    question.focus({ preventScroll: true });
  }

  function submitOnEnter(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  }

  function submit(event) {
    event.preventDefault();
    const text = question.value.trim();
    if (text && !running) ask(text);
  }

  function request(text, backends) {
    const chosen = backends.find((one) => one.name === backend.value);
    const messages = turns.flatMap((turn) => [{ role: "user", content: turn.question }, { role: "assistant", content: turn.answer }]);
    return {
      query: text,
      collection: chosenCollection(),
      ...roles(chosen),
      ...(messages.length ? { messages: messages.slice(-MOST_TURNS) } : {}),
      ...(checked.box.checked ? { check_citations: "model" } : {}),
      stream: true,
    };
  }

  async function ask(text) {
    const { backends } = await catalog();
    if (!turns.length) fill(thread, el("h1.unseen", {}, t("ask.title")));
    question.value = "";
    const body = request(text, backends);
    const turn = new Turn(text, body, () => ask(text));
    thread.append(turn.root);
    busy(new AbortController());
    turn.root.scrollIntoView({ block: "start" });
    try {
      for await (const event of streamed("answer", body, running.signal)) turn.take(event);
      turns.push({ question: text, answer: turn.text });
    } catch (problem) {
      turn.fail(problem);
    } finally {
      busy(null);
    }
  }

  function busy(controller) {
    running = controller;
    send.hidden = controller !== null;
    stop.hidden = controller === null;
    fresh.hidden = controller !== null || !turns.length;
  }

  return { root, open };
}

/** What to do when nothing has been asked yet. */
async function welcome(ask) {
  const heading = [el("h1", {}, t("ask.title")), el("p.lead", {}, t("ask.lead"))];
  const collection = chosenCollection();
  let documents = [];
  try {
    ({ documents } = await call("GET", "documents", { query: { collection, limit: 20 } }));
  } catch (problem) {
    if (problem.status === 403) return el("div.hero", {}, heading); // this key may ask, but not list
    if (problem.status !== 404) return problemBox(problem);
  }
  if (!documents.length) {
    return el("div.hero", {}, heading, el("p", {}, t("ask.empty", { collection })), el("a.button.primary", { href: "#/documents" }, t("ask.add")));
  }
  const { collections } = await catalog();
  const n = collections.find((one) => one.name === collection)?.documents ?? documents.length;
  const sources = new Set(documents.map((one) => one.source));
  const questions = Object.entries(SAMPLES).filter(([source]) => sources.has(source)).map(([, text]) => text);
  const examples = questions.map((text) => el("button.example", { type: "button", onclick: () => ask(text) }, text));
  return el("div.hero", {}, heading, el("p.muted", {}, t("ask.over", { n, collection })), examples.length > 0 && el("div.examples", {}, examples));
}

/** A question, and its answer as it comes. */
class Turn {
  #answer;
  #state;
  #sources;
  #after;
  #again;
  #body;
  #results = [];

  constructor(question, body, again) {
    this.#body = body;
    this.#again = again;
    this.#state = el("p.state", {}, t("ask.searching"));
    this.#answer = new AnswerText((citation) => this.#open(citation));
    this.#sources = el("div.sources");
    this.#after = el("div.after");
    const card = el("div.answer", {}, this.#state, this.#answer.root, this.#sources, this.#after);
    this.root = el("article.turn", { "aria-label": question }, el("h2.question", { dir: "auto" }, question), card);
    announce(t("ask.searching"));
  }

  get text() {
    return this.#answer.text;
  }

  take({ name, data }) {
    if (name === "sources") {
      this.#results = data.results;
      this.#state.textContent = t("ask.reading", { n: data.results.length });
    } else if (name === "delta") {
      if (!this.#answer.text) this.#state.textContent = t("ask.writing");
      this.#answer.append(data.text);
    } else if (name === "citation") {
      this.#answer.cite(data);
    } else if (name === "done") {
      this.#finish(data);
    }
  }

  fail(problem) {
    this.#state.remove();
    this.#answer.finish();
    this.#after.append(isAbort(problem) ? el("p.muted", {}, t("stopped")) : problemBox(problem, this.#again));
  }

  #finish(done) {
    this.#results = done.results;
    this.#answer.finish(done);
    this.#state.remove();
    if (!done.answerable) this.#abstain(done);
    if (done.unsupported.length) this.#after.append(el("p.legend", {}, el("mark.unsupported", {}, t("ask.marked")), ` ${t("ask.unsupported.legend")}`));
    fill(this.#sources, this.#sourceList(done));
    this.#after.append(...[notesOf(done), receipt(done), snippet(() => ({ method: "POST", path: "answer", body: this.#body }))].filter(Boolean));
    announce(t(done.answerable ? "ask.answered" : "ask.abstained.title", { n: done.citations.length }));
  }

  #abstain(done) {
    this.#answer.root.before(
      el("p.abstained", {}, el("strong", {}, t("ask.abstained.title")), " ", t(`abstain.${done.abstain_reason}`)),
    );
  }

  /** The quotes, and below them what was read without being cited. */
  #sourceList(done) {
    const cited = new Set(done.citations.map((one) => one.result_id));
    const rest = this.#results.filter((hit) => !cited.has(hit.id));
    const quotes = done.citations.map((citation) => this.#quote(citation));
    const others = el("details", {}, el("summary", {}, t("ask.read", { n: rest.length })), el("ul.others", {}, rest.map((hit) => this.#other(hit))));
    return [quotes.length > 0 && el("ol.quotes", {}, quotes), rest.length > 0 && others];
  }

  #quote(citation) {
    const hit = this.#results.find((one) => one.id === citation.result_id) ?? citation;
    const label = [el("span.cite", {}, String(citation.marker)), el("span.title", {}, titleOf(hit))];
    return el(
      "li",
      {},
      el("button.quote", { type: "button", onclick: () => this.#open(citation) }, label, el("q", { dir: "auto" }, citation.quote)),
      el("p.place", {}, placeOf({ ...hit, page: citation.page, page_end: citation.page_end }), " · ", t(citation.verified ? `support.${citation.support}` : "support.none"), flagsOf(hit.flags)),
    );
  }

  #other(hit) {
    return el("li", {}, el("button.link", { type: "button", onclick: () => this.#open({ ...hit }) }, titleOf(hit)), ` · ${number(hit.score, 2)}`, flagsOf(hit.flags));
  }

  #open(place) {
    const hit = this.#results.find((one) => one.id === place.result_id); // it says whose document it is
    openDocument({ ...hit, ...place, collection: this.#body.collection });
  }
}
