// The request behind a view, to copy: as curl and as Python.

import { hasKey } from "./api.js";
import { announce, el } from "./dom.js";
import { t } from "./words.js";

/** A part that can be unfolded. `request()`: { method, path, query, body } as it is when it is unfolded. */
export function snippet(request) {
  const box = el("div");
  const details = el("details.snippet", { ontoggle: () => details.open && box.replaceChildren(...shown(request())) });
  details.append(el("summary", {}, t("snippet.title")), box);
  return details;
}

function shown(request) {
  return [["curl", curl(request)], ["Python", python(request)]].map(([name, code]) => {
    const copy = el("button.plain", { type: "button", "aria-label": t("snippet.copy", { name }) }, t("copy"));
    const block = el("pre", { tabindex: "0" }, code);
    copy.addEventListener("click", () => copyText(code, copy, block));
    return el("figure.code", {}, el("figcaption", {}, name, copy), block);
  });
}

async function copyText(code, button, block) {
  try {
    await navigator.clipboard.writeText(code);
    button.textContent = t("copied");
    announce(t("copied"));
    setTimeout(() => (button.textContent = t("copy")), 2000);
  } catch {
    getSelection().selectAllChildren(block); // no clipboard without https: then Ctrl+C does it
  }
}

function address({ path, query }) {
  const parameters = new URLSearchParams(Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined));
  return new URL(parameters.size ? `${path}?${parameters}` : path, document.baseURI).href;
}

/** For a POSIX shell. */
export function curl(request) {
  const { method, body, files } = request;
  const parts = ["curl -s"];
  if (body?.stream) parts[0] += "N";
  if (method !== "GET" && body === undefined && !files) parts.push(`-X ${method}`);
  parts.push(quoted(address(request)));
  if (hasKey()) parts.push('-H "Authorization: Bearer $WINNOW_KEY"');
  if (files) parts.push(...files.map(([name, value]) => `-F ${quoted(`${name}=${value}`)}`));
  if (body !== undefined) parts.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(body))}`);
  return parts.join(" \\\n  ");
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export function python(request) {
  const { method, body, files } = request;
  const given = [JSON.stringify(address(request))];
  if (hasKey()) given.push('headers={"Authorization": f"Bearer {os.environ[\'WINNOW_KEY\']}"}');
  if (files) given.push(`data=${literal(Object.fromEntries(files.filter(([name]) => name !== "files")))}`, 'files={"files": open("FILE", "rb")}');
  if (body !== undefined) given.push(`json=${literal({ ...body, ...("stream" in body ? { stream: false } : {}) })}`);
  const imports = hasKey() ? "import os\n\nimport httpx\n\n" : "import httpx\n\n";
  const lines = `${imports}response = httpx.${method.toLowerCase()}(\n    ${given.join(",\n    ")},\n    timeout=60,\n)\n`;
  return `${lines}response.raise_for_status()${method === "DELETE" ? "" : "\nprint(response.json())"}`;
}

/** As Python writes it. JSON's strings are Python's, too, as long as no surrogate is written as an escape. */
function literal(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${literal(one)}`).join(", ")}}`;
  return JSON.stringify(value);
}
