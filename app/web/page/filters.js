// Filters, built from the fields and values that the documents have.

import { metadataOf } from "./catalog.js";
import { choice, el, fill, offer } from "./dom.js";
import { problemBox } from "./problems.js";
import { t } from "./words.js";

const OPERATORS = ["is", "ne", "text", "gte", "lte", "exists"];

let lists = 0;

/** `where()`: { collection, query } of the search. `filter()`: what goes into the request, null if there is none. */
export function filterBuilder(where) {
  const rows = el("div.filter-rows");
  const note = el("p.muted");
  const add = el("button.plain", { type: "button", onclick: addRow }, t("filter.add"));
  const root = el("fieldset.filters", {}, el("legend", {}, t("filter.title")), rows, note, add);
  const conditions = new Set();
  let known = null;

  async function addRow() {
    try {
      const { collection, query } = where();
      known = await metadataOf(collection, query);
      fill(note);
    } catch (problem) {
      fill(note, problemBox(problem));
      return;
    }
    const condition = conditionRow(known, () => {
      conditions.delete(condition);
      condition.root.remove();
    });
    conditions.add(condition);
    rows.append(condition.root);
    condition.root.querySelector("select").focus();
  }

  function filter() {
    const parts = [...conditions].map((one) => one.read()).filter(Boolean);
    return parts.length > 1 ? { and: parts } : (parts[0] ?? null);
  }

  return { root, filter };
}

function conditionRow(known, remove) {
  const values = el("datalist", { id: `values-${++lists}` });
  const value = el("input", { list: values.id, "aria-label": t("filter.value"), placeholder: t("filter.value") });
  const names = [...known.keys()].map((name) => [name, name]);
  const suggest = () => {
    fill(values, [...known.get(field.value)].slice(0, 100).map((one) => el("option", { value: String(one) })));
    const numeric = isNumeric(known.get(field.value));
    offer(operator, OPERATORS.filter((name) => numeric || !["gte", "lte"].includes(name)).map((name) => [name, t(`filter.${name}`)]));
  };
  const field = choice(names, names[0][0], suggest);
  const operator = choice([], "is", (name) => (value.hidden = name === "exists"));
  field.setAttribute("aria-label", t("filter.field"));
  operator.setAttribute("aria-label", t("filter.operator"));
  suggest();
  const away = el("button.plain", { type: "button", "aria-label": t("filter.remove"), onclick: remove }, "✕");

  function read() {
    if (operator.value === "exists") return { [keyOf(field.value)]: { exists: true } };
    if (!value.value.trim()) return null;
    const given = typed(value.value.trim(), known.get(field.value));
    return { [keyOf(field.value)]: operator.value === "is" ? given : { [operator.value]: operator.value === "text" ? value.value.trim() : given } };
  }

  return { root: el("div.filter-row", {}, field, operator, value, values, away), read };
}

/** A dot that belongs to a key is written "\.". */
const keyOf = (name) => name.replaceAll(".", "\\.");

/** Dates can be compared as well. */
const isNumeric = (values) => values.size === 0 || [...values].some((one) => typeof one === "number" || /^\d{4}-\d\d-\d\d/.test(String(one)));

/** Of the type that the documents have: "3" is a number where theirs are. */
function typed(text, values) {
  const kinds = new Set([...values].map((one) => typeof one));
  if (kinds.has("number") && text !== "" && Number.isFinite(Number(text))) return Number(text);
  if (kinds.has("boolean") && ["true", "false"].includes(text)) return text === "true";
  if (!kinds.size && Number.isFinite(Number(text))) return Number(text);
  return text;
}
