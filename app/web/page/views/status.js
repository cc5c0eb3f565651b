// Status: whether everything is there, what the backends can do, how the collections are.

import { call, ifAllowed } from "../api.js";
import { el, fill } from "../dom.js";
import { problemBox } from "../problems.js";
import { snippet } from "../snippet.js";
import { duration, maybe, number, t } from "../words.js";

export function statusView() {
  const out = el("div");
  const again = el("button.plain", { type: "button", onclick: () => open() }, t("status.refresh"));
  const root = el("section.view", {}, el("div.line.spread", {}, el("h1", {}, t("view.status")), again), out);

  async function open() {
    try {
      const [ready, version, backends, { collections }] = await Promise.all([
        call("GET", "health/ready", { also: [503] }),
        call("GET", "version"),
        call("GET", "backends"),
        ifAllowed(call("GET", "collections"), { collections: [] }),
      ]);
      fill(out, health(ready, version), backendsCard(backends), collectionsCard(collections), reference(), snippet(() => ({ method: "GET", path: "backends" })));
    } catch (problem) {
      fill(out, problemBox(problem, open));
    }
  }

  return { root, open };
}

function health(ready, version) {
  const ok = ready.status === "ready";
  const rows = ready.dependencies.map((one) => el("li", {}, light(one.ready), ` ${maybe(`dependency.${one.name}`) || one.name}`, one.detail && el("span.muted", {}, ` · ${one.detail}`)));
  const warnings = ready.warnings.length ? el("ul.notes", {}, ready.warnings.map((one) => el("li", {}, one))) : null;
  return el("section.card", {}, el("h2", {}, light(ok), ` ${t(ok ? "status.ready" : "status.notready")}`), el("p.muted", {}, `${version.name} ${version.version}`), el("ul.lights", {}, rows), warnings);
}

const light = (ok) => el(ok ? "span.light.on" : "span.light.off", { role: "img", "aria-label": t(ok ? "status.ok" : "status.bad") }, ok ? "✓" : "✕");

function backendsCard({ backends, routing, default: first }) {
  const models = backends.some((one) => one.model);
  const heads = ["backend", "column.health", "column.can", "column.latency", "column.flight"].map((key) => el("th", { scope: "col" }, t(key)));
  const rows = backends.map((one) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, el("strong", {}, one.name), el("div.muted", {}, [one.model, one.server].filter(Boolean).join(" · "))),
      el("td", {}, el(one.health === "up" || one.health === "unknown" ? "span.badge" : "span.badge.bad", {}, t(`health.${one.health}`)), one.last_error && el("div.muted", {}, one.last_error)),
      el("td", {}, one.capabilities.map((name) => maybe(`can.${name}`) || name).join(", "), one.context_tokens ? el("div.muted", {}, t("status.context", { n: one.context_tokens })) : null),
      el("td", {}, one.latency_ms === null ? "–" : duration(one.latency_ms), one.first_token_ms === null ? null : el("div.muted", {}, t("status.first", { time: duration(one.first_token_ms) }))),
      el("td", {}, t("status.flight", { n: one.in_flight, waiting: one.waiting })),
    ),
  );
  const order = routing.length ? t("status.routing", { names: routing.join(" → "), first }) : t("status.norouting");
  return el("section.card", {}, el("h2", {}, t("dependency.backends")), el("p.muted", {}, order), models ? null : el("p.abstained", {}, t("status.nomodel")), el("div.scroll", {}, el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows))));
}

function collectionsCard(collections) {
  if (!collections.length) return el("section.card", {}, el("h2", {}, t("status.collections")), el("p", {}, t("documents.empty")));
  const heads = ["collection", "view.documents", "column.passages", "column.embedder", "column.health"].map((key, index) => el(index === 1 || index === 2 ? "th.number" : "th", { scope: "col" }, t(key)));
  const rows = collections.map((one) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, one.name),
      el("td.number", {}, number(one.documents)),
      el("td.number", {}, number(one.passages)),
      el("td", {}, el("code", {}, one.embedder.split(";")[0]), el("div.muted", {}, `${number(one.vector_size)} · ${one.distance}`)),
      el("td", {}, el(one.status === "ready" ? "span.badge" : "span.badge.bad", {}, maybe(`status.${one.status}`) || one.status), one.detail && el("div.muted", {}, one.detail)),
    ),
  );
  return el("section.card", {}, el("h2", {}, t("status.collections")), el("div.scroll", {}, el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows))));
}

const reference = () => el("p", {}, el("a", { href: "schema" }, t("status.reference")), " · ", el("a", { href: "schema/openapi.json" }, "OpenAPI"));
