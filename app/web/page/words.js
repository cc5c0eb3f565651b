// The page's texts in three languages, and numbers, dates and sizes as that language writes them.

export const LANGUAGES = { en: "English", de: "Deutsch", zh: "中文" };

let words = {};
export let language = "en";

/** Takes the language that was chosen before, or else the first of the browser's that there is. */
export async function startLanguage() {
  const wanted = [remembered("winnow-language"), ...navigator.languages].filter(Boolean);
  const known = wanted.map((name) => name.slice(0, 2)).find((name) => name in LANGUAGES);
  await setLanguage(known ?? "en");
}

export async function setLanguage(name) {
  words = (await import(`./words/${name}.js`)).default;
  language = name;
  document.documentElement.lang = name === "zh" ? "zh-Hans" : name;
}

/** The text of that key; {name} in it is replaced. "one|many" is chosen by `values.n`. */
export function t(key, values = {}) {
  let text = words[key] ?? key;
  if ("n" in values && text.includes("|")) text = text.split("|")[values.n === 1 ? 0 : 1];
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    return value === undefined ? whole : typeof value === "number" ? number(value) : String(value);
  });
}

/** The text of that key, or "" if there is none. */
export const maybe = (key, values) => (key in words ? t(key, values) : "");

export function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

/** Dollars with as many digits as tell something: $0.0004, $1.25. */
export function dollars(value) {
  const small = value !== 0 && Math.abs(value) < 0.01;
  const digits = small ? { maximumSignificantDigits: 2 } : { minimumFractionDigits: 2, maximumFractionDigits: 2 };
  return new Intl.NumberFormat(language, { style: "currency", currency: "USD", currencyDisplay: "narrowSymbol", ...digits }).format(value);
}

/** 0.4 ms, 188 ms, 1.2 s. */
export function duration(ms) {
  if (ms < 1000) return `${number(ms, ms < 10 ? 1 : 0)} ms`;
  return ms < 120_000 ? `${number(ms / 1000, 1)} s` : `${number(ms / 60_000, 1)} min`;
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, count < 1 ? 0 : Math.floor(Math.log10(count) / 3));
  return `${number(count / 1000 ** power, power ? 1 : 0)} ${units[power]}`;
}

export function when(iso) {
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(new Date(iso));
}

export function remembered(name, storage = "localStorage") {
  try {
    return window[storage].getItem(name);
  } catch {
    return null; // forbidden in some private windows
  }
}

export function remember(name, value, storage = "localStorage") {
  try {
    if (value) window[storage].setItem(name, value);
    else window[storage].removeItem(name);
  } catch {
    // It then holds until the page is left.
  }
}

/** Lines of prose that were broken by hand flow again. Offsets stay: each line feed becomes one blank. */
export const flowing = (text) => text.replace(/(?<=[^\n]{60})\n(?=\p{Ll})/gu, " ");
