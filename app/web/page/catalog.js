// What can be chosen: collections, backends, and the metadata of a collection. Asked once, and again after changes.

import { call, ifAllowed } from "./api.js";
import { choice, offer } from "./dom.js";
import { remember, remembered, t } from "./words.js";

let loading = null;

/** { collections, backends, default, auto }. Throws Problem. */
export function catalog() {
  loading ??= Promise.all([ifAllowed(call("GET", "collections"), { collections: [] }), call("GET", "backends")]).then(
    ([{ collections }, backends]) => ({ collections, ...backends }),
  );
  loading.catch(() => (loading = null));
  return loading;
}

export function forgetCatalog() {
  loading = null;
}

/** The collection of all views, kept while the tab is open. */
export const chosenCollection = () => remembered("winnow-collection", "sessionStorage") || "default";

export function chooseCollection(name) {
  remember("winnow-collection", name, "sessionStorage");
}

/** A select of the collections; `changed` is told of another one. `refresh()` reads them anew. */
export function collectionChoice(changed = () => {}) {
  const select = choice([[chosenCollection(), chosenCollection()]], chosenCollection(), (name) => {
    chooseCollection(name);
    changed(name);
  });
  const refresh = async () => {
    const { collections } = await catalog();
    const names = collections.map((one) => one.name);
    if (names.length && chosenCollection() === "default" && !names.includes("default")) chooseCollection(names[0]);
    // One that is not there is offered all the same: the request says what is wrong with it.
    const missing = names.includes(chosenCollection()) ? [] : [[chosenCollection(), chosenCollection()]];
    const known = collections.map((one) => [one.name, t("collection.option", { name: one.name, n: one.documents })]);
    offer(select, [...missing, ...known], chosenCollection());
  };
  return { select, refresh };
}

export const canRank = (backend) => backend.capabilities.includes("rank");
export const canAnswer = (backend) => backend.capabilities.includes("answer");

/** The name, with its model and that it is out of order, if it is. */
export function backendLabel(backend) {
  const model = backend.model ? ` (${backend.model})` : "";
  return ["down", "resting"].includes(backend.health) ? `${backend.name}${model}: ${t(`health.${backend.health}`)}` : backend.name + model;
}

/** The fields of a request by which this backend ranks and answers; "" is left to the settings. */
export function roles(backend) {
  if (!backend) return {};
  if (canRank(backend)) return { backend: backend.name };
  return { backend: "none", answer_backend: backend.name };
}

/** Values by field of up to 100 documents, of those nearest to `query`. One search, without a model. Throws Problem. */
export async function metadataOf(collection, query) {
  const body = { query: query || collection, collection, limit: 100, candidates: 100, backend: "none", group_by_document: true, include_text: false };
  const { results } = await call("POST", "search", { body });
  const fields = new Map([["title", new Set()], ["source", new Set()], ["page", new Set()]]);
  for (const { title, source, page, metadata } of results) {
    for (const [name, value] of Object.entries({ title, source, page, ...metadata })) {
      const values = fields.get(name) ?? fields.set(name, new Set()).get(name);
      for (const one of [value].flat()) if (["string", "number", "boolean"].includes(typeof one) && one !== "") values.add(one);
    }
  }
  return fields;
}
