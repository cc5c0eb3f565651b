// Usage: what the calls of models cost, by backend and by day; budgets; when a GPU of one's own would pay.

import { call } from "../api.js";
import { columns } from "../charts.js";
import { choice, el, field, fill } from "../dom.js";
import { problemBox } from "../problems.js";
import { bar } from "../results.js";
import { snippet } from "../snippet.js";
import { dollars, duration, language, number, t, when } from "../words.js";

const MEASURES = {
  cost: [(row) => row.cost_usd, dollars],
  tokens: [(row) => row.input_tokens + row.output_tokens + row.thinking_tokens, number],
  calls: [(row) => row.calls, number],
};

const SPANS = { "24h": 1, "7d": 7, "30d": 30, "90d": 90 };
const MONTH_DAYS = 30;

export function usageView() {
  const span = choice(Object.keys(SPANS).map((name) => [name, t(`span.${name}`)]), "30d", load);
  const measure = choice(Object.keys(MEASURES).map((name) => [name, t(`measure.${name}`)]), "cost", () => draw());
  const out = el("div");
  const estimate = breakEven();
  const root = el("section.view", {}, el("h1", {}, t("usage.title")), el("div.controls.top-controls", {}, field(t("usage.span"), span), field(t("usage.measure"), measure)), out, estimate.root);
  let reports = null;

  async function open() {
    await load();
  }

  async function load() {
    try {
      const ask = (group_by) => call("GET", "usage", { query: { since: span.value, group_by } });
      const [backend, day] = await Promise.all([ask("backend"), ask("day")]);
      reports = { backend, day };
      estimate.suggest(backend.total, MONTH_DAYS / SPANS[span.value]);
      draw();
    } catch (problem) {
      fill(out, problemBox(problem, load));
    }
  }

  function draw() {
    if (!reports) return;
    const { backend, day } = reports;
    const request = () => ({ method: "GET", path: "usage", query: { since: span.value, group_by: "backend" } });
    const some = backend.rows.length ? charts(backend, day, measure.value) : el("p.empty", {}, t("usage.empty"));
    fill(out, totals(backend.total), warnings(backend), some, budgets(backend.budgets), snippet(request));
  }

  return { root, open };
}

function totals(total) {
  const figure = (label, value) => el("div.card.total", {}, el("span.muted", {}, label), el("strong", {}, value));
  return el(
    "div.totals",
    {},
    figure(t("measure.cost"), dollars(total.cost_usd)),
    figure(t("measure.calls"), total.failed ? t("usage.failed", { n: total.calls, failed: total.failed }) : number(total.calls)),
    figure(t("measure.tokens"), t("usage.inout", { input: total.input_tokens, output: total.output_tokens + total.thinking_tokens })),
    figure(t("usage.latency"), total.latency_ms ? `${duration(total.latency_ms.p50)} / ${duration(total.latency_ms.p95)}` : "–"),
  );
}

function warnings({ unpriced, ledger }) {
  const notes = [unpriced.length ? t("usage.unpriced", { names: unpriced.join(", ") }) : null, ledger?.failure ? t("usage.ledger", { failure: ledger.failure }) : null].filter(Boolean);
  return notes.length ? el("ul.notes", {}, notes.map((note) => el("li", {}, note))) : null;
}

function charts(backend, day, measure) {
  const [of, format] = MEASURES[measure];
  const dates = new Intl.DateTimeFormat(language, { month: "short", day: "numeric", timeZone: "UTC" });
  const points = day.rows.map((row) => [dates.format(new Date(row.name)), of(row), format(of(row))]);
  const most = Math.max(...backend.rows.map(of), Number.MIN_VALUE);
  return [
    el("section.card", {}, el("h2", {}, t("usage.byday")), columns(points), el("details", {}, el("summary", {}, t("usage.table")), table(day.rows, t("column.day")))),
    el("section.card", {}, el("h2", {}, t("usage.bybackend")), el("div.bars", { "aria-hidden": "true" }, backend.rows.map((row) => bar(row.name, format(of(row)), of(row) / most))), table(backend.rows, t("backend"))),
  ];
}

function table(rows, first) {
  const heads = [first, ...["calls", "input", "output", "cost"].map((name) => t(`column.${name}`))];
  const cells = (row) => [number(row.calls), number(row.input_tokens), number(row.output_tokens + row.thinking_tokens), dollars(row.cost_usd)];
  return el("div.scroll", {}, el("table", {}, el("thead", {}, el("tr", {}, heads.map((head, index) => el(index ? "th.number" : "th", { scope: "col" }, head)))), el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.name), cells(row).map((cell) => el("td.number", {}, cell)))))));
}

function budgets(states) {
  if (!states.length) return el("section.card", {}, el("h2", {}, t("usage.budgets")), el("p.muted", {}, t("usage.nobudgets")));
  const rows = states.map((one) => [
    bar(one.name || t("usage.all"), `${dollars(one.spent_usd)}`, one.limit_usd ? one.spent_usd / one.limit_usd : 1),
    el("p.muted", {}, t(`period.${one.period}`, { limit: dollars(one.limit_usd), resets: when(one.resets_at) })),
  ]);
  return el("section.card", {}, el("h2", {}, t("usage.budgets")), rows);
}

/** A month on each API and on each GPU. `suggest` fills in the tokens of a month at the present rate. */
function breakEven() {
  const input = el("input", { type: "number", min: "0", step: "1", value: "50000000", required: true });
  const output = el("input", { type: "number", min: "0", step: "1", value: "5000000", required: true });
  const out = el("div");
  const body = () => ({ input_tokens: Number(input.value), output_tokens: Number(output.value) });
  const form = el("form.controls", { onsubmit: ask }, field(t("even.input"), input), field(t("even.output"), output), el("button.primary", { type: "submit" }, t("even.send")));
  const root = el("section.card", {}, el("h2", {}, t("even.title")), el("p.muted", {}, t("even.lead")), form, out, snippet(() => ({ method: "POST", path: "cost/estimate", body: body() })));

  function suggest(total, months) {
    if (!total.input_tokens) return;
    input.value = Math.round(total.input_tokens * months);
    output.value = Math.round((total.output_tokens + total.thinking_tokens) * months);
  }

  async function ask(event) {
    event.preventDefault();
    try {
      fill(out, months(await call("POST", "cost/estimate", { body: body() })));
    } catch (problem) {
      fill(out, problemBox(problem));
    }
  }

  return { root, suggest };
}

function months(estimate) {
  const apis = estimate.apis.map((one) => [one.reference ? one.model : `${one.backend} (${one.model})`, one.usd, one.formula, ""]);
  const own = estimate.self_hosted.map((one) => [`${one.gpus} × ${one.gpu}: ${one.model}`, one.usd, one.formula, one.break_even.map(evenText).join(" ")]);
  const rows = [...apis, ...own].sort(([, a], [, b]) => a - b).slice(0, 12);
  const most = Math.max(...rows.map(([, usd]) => usd), Number.MIN_VALUE);
  const shown = rows.map(([name, usd, formula, even]) => el("li", {}, bar(name, dollars(usd), usd / most), el("p.muted", {}, [even, formula].filter(Boolean).join(" "))));
  const missing = estimate.not_estimated.map((one) => el("li", {}, one));
  const assumptions = el("details", {}, el("summary", {}, t("even.assumptions")), el("ul", {}, estimate.assumptions.map((one) => el("li", {}, `${one.name}: ${one.value} (${one.source})`))));
  return [el("ul.months", {}, shown), missing.length > 0 && el("ul.notes", {}, missing), assumptions];
}

const evenText = (one) => (one.monthly_tokens === null ? t("even.never", { model: one.model }) : t("even.above", { model: one.model, tokens: Math.round(one.monthly_tokens) }));
