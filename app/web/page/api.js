// Calls of the service. What it refuses is a Problem (RFC 9457), whose type says what mends it.

import { remember, remembered } from "./words.js";

const KEY = "winnow-key";
let key = remembered(KEY, "sessionStorage") ?? "";

/** Called when the service wants a key; resolves to whether there is a new one. */
let askForKey = async () => false;

export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const hasKey = () => key !== "";

/** Kept for this tab only, and sent as a header: it is in no URL, no cookie and no file. */
export function setKey(value) {
  key = value.trim();
  remember(KEY, key, "sessionStorage");
}

export class Problem extends Error {
  constructor(problem, retryAfter = null) {
    super(problem.detail ?? problem.title ?? "");
    this.kind = String(problem.type ?? "").split(":").pop();
    this.title = problem.title ?? "";
    this.detail = problem.detail ?? "";
    this.status = problem.status ?? 0;
    this.instance = problem.instance ?? "";
    this.errors = problem.errors ?? [];
    this.fallbacks = problem.fallbacks ?? [];
    this.retryAfter = retryAfter;
  }
}

/** The body of the response, or null. `options`: query, body (JSON), form, signal, also (statuses that are no failure).
 *  Throws Problem. */
export async function call(method, path, options = {}) {
  const response = await send(method, path, options);
  return response.status === 204 ? null : await response.json();
}

/** The response itself, for streams. Throws Problem. */
export async function send(method, path, { query = {}, body, form, signal, also = [], accept = "application/json" } = {}) {
  for (;;) {
    const sentWith = key;
    const response = await fetched(method, path, { query, body, form, signal, accept });
    // Another call may have asked for the key meanwhile: then this one is sent again with it.
    if (response.status !== 401 || (key === sentWith && !(await askForKey(key !== "")))) return await checked(response, also);
  }
}

async function fetched(method, path, { query, body, form, signal, accept }) {
  const headers = { Accept: accept };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== null && value !== undefined));
  const url = parameters.size ? `${path}?${parameters}` : path;
  try {
    return await fetch(url, { method, headers, body: form ?? (body && JSON.stringify(body)), signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ type: "unreachable" });
  }
}

async function checked(response, also) {
  if (response.ok || also.includes(response.status)) return response;
  const retryAfter = Number(response.headers.get("retry-after")) || null;
  const text = await response.text();
  let problem = { type: "unexpected", status: response.status, detail: text.slice(0, 500) };
  try {
    problem = { status: response.status, ...JSON.parse(text) };
  } catch {
    // A proxy in between has answered in its own words.
  }
  throw new Problem(problem, retryAfter);
}

/** What a call gives, or `otherwise` where the key does not have the scope for it. */
export async function ifAllowed(calling, otherwise) {
  try {
    return await calling;
  } catch (problem) {
    if (problem.status === 403) return otherwise;
    throw problem;
  }
}

/** Whether the call was ended by the reader, which is no failure. */
export const isAbort = (error) => error?.name === "AbortError";
