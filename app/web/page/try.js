// The page at /schema: a form below each call, made from the description of the API, that sends the call to this service.

import { el, fill } from "./dom.js";

const LIMIT = 100_000;
const key = el("input", { type: "password", autocomplete: "off", placeholder: "wnw_…" });
const description = await (await fetch("/schema/openapi.json")).json();

/** A value that fits a schema, as far as it says so: what is required, and what has examples. */
function sample(schema, depth = 0) {
  if (schema.$ref) return depth > 4 ? {} : sample(description.components.schemas[schema.$ref.split("/").at(-1)], depth + 1);
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return sample(options.find((one) => one.type !== "null") ?? options[0], depth + 1);
  if (schema.enum) return schema.enum[0];
  const required = schema.required?.length ? schema.required : Object.keys(schema.properties ?? {}).slice(0, 1);
  if (schema.type === "object") return Object.fromEntries(required.map((name) => [name, sample(schema.properties[name], depth + 1)]));
  if (schema.type === "array") return [sample(schema.items ?? {}, depth + 1)];
  if (schema.type === "integer" || schema.type === "number") return schema.minimum ?? 0;
  return schema.type === "boolean" ? false : "text";
}

function control(label, input) {
  return el("label", {}, label, input);
}

function form(section) {
  const { method, path } = section.dataset;
  const operation = description.paths[path][method];
  const inputs = (operation.parameters ?? []).map((one) => ({ ...one, input: el("input", { placeholder: JSON.stringify(one.schema?.default ?? "") }) }));
  const json = operation.requestBody?.content?.["application/json"]?.schema;
  const body = json && el("textarea", { rows: "6", value: JSON.stringify(sample(json), null, 2) });
  const result = el("div", { role: "status" });
  const send = el("button", { type: "submit" }, method === "delete" ? "Send (this deletes)" : "Send");
  return el(
    "form",
    { onsubmit: (event) => run(event, method, path, inputs, body, send, result) },
    inputs.map((one) => control(one.name, one.input)),
    body && control("Body", body),
    send,
    result,
  );
}

async function run(event, method, path, inputs, body, send, result) {
  event.preventDefault();
  const named = (place) => inputs.filter((one) => one.in === place && one.input.value);
  const filled = named("path").reduce((url, one) => url.replace(`{${one.name}}`, encodeURIComponent(one.input.value)), path);
  const query = new URLSearchParams(named("query").map((one) => [one.name, one.input.value]));
  const headers = { ...(key.value ? { Authorization: `Bearer ${key.value}` } : {}), ...(body ? { "Content-Type": "application/json" } : {}) };
  send.disabled = true;
  const began = performance.now();
  try {
    const reply = await fetch(`${filled}${query.size ? `?${query}` : ""}`, { method: method.toUpperCase(), headers, body: body?.value });
    const text = await reply.text();
    const ms = Math.round(performance.now() - began);
    fill(result, el("p", {}, `${reply.status} ${reply.statusText} · ${ms} ms`), el("pre", { tabindex: "0" }, pretty(text).slice(0, LIMIT)));
  } catch (problem) {
    fill(result, el("p", {}, `The service did not answer: ${problem.message}`));
  } finally {
    send.disabled = false;
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

document.querySelector("#key")?.append(control("Key, for the calls below; it is not kept", key));
for (const section of document.querySelectorAll("section[data-path]")) {
  const details = el("details", { ontoggle: () => details.open && details.childElementCount === 1 && details.append(form(section)) }, el("summary", {}, "Try it"));
  section.append(details);
}
