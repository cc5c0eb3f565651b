// Files on their way into the index: each with its progress, and with the reason where it is refused.

import { call, isAbort } from "./api.js";
import { el, fill } from "./dom.js";
import { problemBox } from "./problems.js";
import { bytes, duration, maybe, t } from "./words.js";

const AT_ONCE = 2;
const LOOK_MS = 1000;

/** `changed()` is called whenever documents have been written. */
export function uploads(changed) {
  const list = el("ul.uploads");
  const waiting = [];
  let sending = 0;

  function add(files, collection) {
    for (const file of files) {
      const row = el("li");
      fill(row, head(file.name, bytes(file.size)), el("p.muted", {}, t("upload.waiting")));
      list.prepend(row);
      waiting.push({ file, collection, row });
    }
    next();
  }

  function next() {
    while (sending < AT_ONCE && waiting.length) {
      sending += 1;
      send(waiting.shift()).finally(() => {
        sending -= 1;
        next();
      });
    }
  }

  async function send({ file, collection, row }) {
    fill(row, head(file.name, bytes(file.size)), el("p.state", {}, t("upload.sending")));
    const form = new FormData();
    form.append("collection", collection);
    form.append("files", file);
    try {
      const found = await call("POST", "documents", { form });
      if ("state" in found) watchJob(row, found, changed);
      else fill(row, head(file.name, bytes(file.size)), outcome(found));
      changed();
    } catch (problem) {
      fill(row, head(file.name, bytes(file.size)), problemBox(problem, () => add([file], collection)));
    }
  }

  return { list, add };
}

const head = (name, size) => el("div.hit-head", {}, el("strong", { dir: "auto" }, name), el("span.muted", {}, size));

/** What became of the documents of a file: how many were indexed, and why others were refused. */
function outcome(found) {
  const indexed = found.created + found.updated + found.unchanged;
  const passages = found.results.reduce((sum, one) => sum + one.passages, 0);
  const good = indexed > 0 && el("p.good", {}, t(found.created || found.updated ? "upload.done" : "upload.unchanged", { n: indexed }), " ", t("passages", { n: passages }));
  return [good, refusals(found.results)];
}

function refusals(results) {
  const failed = results.filter((one) => one.status === "failed");
  if (!failed.length) return null;
  const shown = failed.slice(0, 20).map((one) => el("li", {}, el("strong", {}, maybe(`reason.${one.reason}`) || one.reason || t("upload.refused")), one.detail && ` ${one.detail}`, failed.length > 1 && one.source ? el("span.muted", {}, ` · ${one.source}`) : null));
  return el("div.problem", { role: "alert" }, el("ul", {}, shown), failed.length > 20 && el("p", {}, t("upload.more", { n: failed.length - 20 })));
}

/** Shows a job until it has ended; it goes on without this page as well. */
export async function watchJob(row, job, changed) {
  const cancel = el("button.plain", { type: "button", onclick: stop }, t("cancel"));
  async function stop() {
    cancel.disabled = true;
    await call("DELETE", `jobs/${job.id}`).catch((problem) => row.append(problemBox(problem)));
  }
  const isLive = () => ["queued", "running"].includes(job.state);
  const lived = isLive();
  while (isLive()) {
    fill(row, jobHead(job), progress(job), el("div.line.spread", {}, el("span.muted", {}, left(job)), cancel), job.detail && el("p.muted", {}, job.detail));
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    if (!row.parentElement) return; // another list has taken its place
    try {
      job = await call("GET", `jobs/${job.id}`);
    } catch (problem) {
      if (!isAbort(problem)) fill(row, problemBox(problem));
      return;
    }
  }
  fill(row, jobHead(job), el("p", {}, t("upload.done", { n: job.created + job.updated + job.unchanged })), job.detail && el("p.muted", {}, job.detail), refusals(job.errors));
  if (lived) changed();
}

const jobHead = (job) => el("div.hit-head", {}, el("strong", {}, t("job.title", { id: job.id.slice(0, 8) })), el("span.badge", {}, t(`job.${job.state}`)));

const done = (job) => job.created + job.updated + job.unchanged + job.failed;

function progress(job) {
  return el("progress", { max: String(Math.max(job.documents, 1)), value: done(job), "aria-label": t("job.progress", { done: done(job), n: job.documents }) });
}

function left(job) {
  const counted = t("job.progress", { done: done(job), n: job.documents });
  return job.seconds_left === null ? counted : `${counted} · ${t("job.left", { time: duration(1000 * job.seconds_left) })}`;
}
