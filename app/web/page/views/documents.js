// Documents: put them in, see what became of them, delete them; collections.

import { call, ifAllowed } from "../api.js";
import { catalog, chooseCollection, chosenCollection, collectionChoice, forgetCatalog } from "../catalog.js";
import { confirmed, el, field, fill } from "../dom.js";
import { problemBox } from "../problems.js";
import { openDocument } from "../reader.js";
import { snippet } from "../snippet.js";
import { uploads, watchJob } from "../uploads.js";
import { bytes, maybe, number, t, when } from "../words.js";

const PAGE = 50;

export function documentsView() {
  const collection = collectionChoice(() => load());
  const sent = uploads(refresh);
  const input = el("input.unseen", { type: "file", multiple: true, id: "files", "aria-label": t("documents.choose"), onchange: () => take(input.files) });
  const drop = el("div.drop", { ondragover: over, ondragleave: leave, ondrop: dropped }, el("p", {}, t("documents.drop")), el("label.primary", { for: "files" }, t("documents.choose")), input, el("p.muted", {}, t("documents.formats")));
  const about = el("div.about");
  const jobs = el("ul.uploads");
  const list = el("div");
  const name = el("input", { required: true, maxlength: "255", placeholder: t("collection.new.placeholder") });
  const create = el("form.line.end", { onsubmit: make }, field(t("collection.new"), name), el("button.plain", { type: "submit" }, t("collection.create")));
  const request = () => ({ method: "POST", path: "documents", files: [["collection", chosenCollection()], ["files", "@FILE"]] });
  const root = el("section.view", {}, el("h1", {}, t("view.documents")), el("div.panel", {}, el("div.line.spread.end", {}, field(t("collection"), collection.select), create), about), drop, sent.list, jobs, snippet(request), list);

  let refreshing = false;
  let stale = false;

  /** `asked`: of an address that names a document, as links of citations do. */
  async function open(asked = new URLSearchParams()) {
    const inside = asked.get("collection") ?? "default";
    if (asked.has("document")) chooseCollection(inside);
    forgetCatalog();
    await load();
    if (!asked.has("document")) return;
    const [start, end] = (asked.get("quote") ?? "0,0").split(",").map(Number);
    openDocument({ document_id: asked.get("document"), collection: inside, tenant: asked.get("tenant"), start, end });
  }

  async function load() {
    await collection.refresh();
    fill(about, await described());
    fill(list, el("p.muted", {}, t("loading")));
    await Promise.all([showDocuments(), showJobs()]);
  }

  /** One at a time: of two at once, the one that saw less might end last. */
  async function refresh() {
    stale = true;
    if (refreshing) return;
    refreshing = true;
    try {
      while (stale) {
        stale = false;
        forgetCatalog();
        await collection.refresh();
        fill(about, await described());
        await showDocuments();
      }
    } catch (problem) {
      fill(about, problemBox(problem));
    } finally {
      refreshing = false;
    }
  }

  async function described() {
    const { collections } = await catalog();
    const one = collections.find((each) => each.name === chosenCollection());
    if (!one) return el("p.muted", {}, t("collection.missing", { name: chosenCollection() }));
    const facts = [t("documents.count", { n: one.documents }), t("passages", { n: one.passages }), one.bytes === null ? null : bytes(one.bytes), one.embedder.split(";")[0]];
    const bad = one.status === "ready" ? null : el("p.problem", {}, el("strong", {}, maybe(`status.${one.status}`) || one.status), ` ${one.detail || maybe(`fix.${one.status}`)}`);
    return [el("div.line.spread", {}, el("span.muted", {}, facts.filter(Boolean).join(" · ")), el("button.danger", { type: "button", onclick: erase }, t("collection.delete"))), bad];
  }

  function over(event) {
    event.preventDefault();
    drop.classList.add("over");
  }

  function leave() {
    drop.classList.remove("over");
  }

  function dropped(event) {
    event.preventDefault();
    leave();
    take(event.dataTransfer.files);
  }

  function take(files) {
    sent.add([...files], chosenCollection());
    input.value = "";
  }

  async function make(event) {
    event.preventDefault();
    try {
      await call("PUT", `collections/${encodeURIComponent(name.value.trim())}`);
      chooseCollection(name.value.trim());
      name.value = "";
      await open();
    } catch (problem) {
      fill(about, problemBox(problem));
    }
  }

  async function erase() {
    const doomed = chosenCollection();
    if (!(await confirmed(t("collection.delete.sure", { name: doomed }), t("delete"), t("cancel")))) return;
    try {
      await call("DELETE", `collections/${encodeURIComponent(doomed)}`);
      chooseCollection("default");
      await open();
    } catch (problem) {
      fill(about, problemBox(problem));
    }
  }

  /** Those that are under way, and the newest that had to refuse something, with the reasons. */
  async function showJobs() {
    try {
      const found = await ifAllowed(call("GET", "jobs", { query: { collection: chosenCollection(), limit: 20 } }), { jobs: [] });
      const shown = found.jobs.filter((job) => ["queued", "running", "failed"].includes(job.state) || job.failed).slice(0, 5);
      const whole = await Promise.all(shown.map((job) => call("GET", `jobs/${job.id}`)));
      fill(jobs, whole.map(() => el("li")));
      whole.forEach((job, index) => watchJob(jobs.children[index], job, refresh));
    } catch (problem) {
      fill(jobs, el("li", {}, problemBox(problem)));
    }
  }

  async function showDocuments() {
    const rows = el("tbody");
    const more = el("button.plain", { type: "button" }, t("documents.more"));
    try {
      await page(rows, more, "");
    } catch (problem) {
      fill(list, problem.status === 404 ? el("p.empty", {}, t("documents.empty")) : problemBox(problem));
      return;
    }
    if (!rows.childElementCount) {
      fill(list, el("p.empty", {}, t("documents.empty")));
      return;
    }
    const heads = ["reader.title", "column.passages", "column.indexed", "delete"].map((key) => el(key === "column.passages" ? "th.number" : "th", { scope: "col" }, key === "delete" ? el("span.unseen", {}, t(key)) : t(key)));
    fill(list, el("div.card.scroll", {}, el("table", {}, el("thead", {}, el("tr", {}, heads)), rows)), more);
  }

  async function page(rows, more, cursor) {
    const found = await call("GET", "documents", { query: { collection: chosenCollection(), limit: PAGE, cursor: cursor || null } });
    rows.append(...found.documents.map((one) => documentRow(one, found.collection)));
    more.hidden = found.next_cursor === null;
    more.onclick = () => page(rows, more, found.next_cursor).catch((problem) => more.replaceWith(problemBox(problem)));
  }

  function documentRow(one, inside) {
    const title = one.title || one.source || one.id;
    const show = () => openDocument({ document_id: one.id, tenant: one.tenant, title, collection: inside });
    const row = el("tr", {}, el("td", {}, el("button.link", { type: "button", onclick: show }, title), el("div.muted", {}, [one.source || one.id, one.tenant].filter(Boolean).join(" · "))), el("td.number", {}, number(one.passages)), el("td.muted", {}, when(one.indexed_at)), el("td.number", {}, el("button.danger", { type: "button", "aria-label": t("documents.delete", { title }), onclick: remove }, t("delete"))));
    async function remove() {
      const warning = one.origin === "file" ? ` ${t("documents.delete.file")}` : "";
      if (!(await confirmed(t("documents.delete.sure", { title }) + warning, t("delete"), t("cancel")))) return;
      try {
        await call("DELETE", `documents/${encodeURIComponent(one.id)}`, { query: { collection: inside, tenant: one.tenant || null } });
        row.remove();
        await refresh();
      } catch (problem) {
        row.after(el("tr", {}, el("td", { colspan: "4" }, problemBox(problem))));
      }
    }
    return row;
  }

  return { root, open };
}
