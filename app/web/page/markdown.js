// The Markdown that models write, as elements: paragraphs, headings, lists, tables, code, bold and italics. Links and
// HTML stay the text that they are. All places are offsets into the whole text, so that what else is known of it by
// offsets (citations, unsupported parts) keeps its place: `leaf(start, end)` makes the nodes of a piece without markup.

import { el } from "./dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}#{1,6}[ \t]+/;
const ITEM = /^([ \t]*)([-*+•]|\d{1,9}[.)])[ \t]+/;
const QUOTE = /^ {0,3}> ?/;
const RULE = /^ {0,3}(?:-{3,}|\*{3,}|_{3,})[ \t]*$/;
const DELIMITER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const INLINE = /`([^`\n]+)`|\*\*(?=\S)((?:[^*\n]|\*(?!\*))*[^\s*])\*\*|(?<![\w*])\*(?=[^\s*])([^*\n]*[^\s*])\*(?![\w*])/g;
const DEEPEST = 8;

/** The blocks of text[from:] as [start, end) and what makes its element; the last one may go on in a stream. */
export function blocksOf(text, from = 0) {
  const lines = linesOf(text, from);
  const blocks = [];
  for (let i = 0; i < lines.length; ) {
    if (!lines[i].text.trim()) {
      i += 1;
      continue;
    }
    const { length, make } = blockAt(lines, i);
    blocks.push({ start: lines[i].start, end: lines[i + length - 1].end, make });
    i += length;
  }
  return blocks;
}

function linesOf(text, from) {
  const lines = [];
  for (let start = from; start < text.length; ) {
    const at = text.indexOf("\n", start);
    const end = at < 0 ? text.length : at;
    lines.push({ start, end, text: text.slice(start, end) });
    start = end + 1;
  }
  return lines;
}

/** How many lines the block that begins at line `i` has, and its element by `leaf`. */
function blockAt(lines, i) {
  const line = lines[i];
  const fence = FENCE.exec(line.text)?.[1];
  if (fence) return fenced(lines, i, fence);
  const heading = HEADING.exec(line.text)?.[0].length;
  if (heading) return { length: 1, make: (leaf) => el("h3", {}, inline(line.text, line.start, heading, line.text.length, leaf)) };
  if (RULE.test(line.text)) return { length: 1, make: () => el("hr") };
  if (isTable(lines, i)) return table(lines, i);
  if (ITEM.test(line.text)) return list(lines, i);
  if (QUOTE.test(line.text)) return quoted(lines, i);
  const rest = run(lines, i + 1, (next, at) => !startsBlock(next, lines, at));
  return { length: rest - i, make: (leaf) => el("p", {}, several(lines.slice(i, rest), () => 0, leaf)) };
}

const run = (lines, i, goesOn) => {
  while (i < lines.length && lines[i].text.trim() && goesOn(lines[i].text, i)) i += 1;
  return i;
};

const startsBlock = (text, lines, i) =>
  [FENCE, HEADING, RULE, ITEM, QUOTE].some((pattern) => pattern.test(text)) || isTable(lines, i);

function fenced(lines, i, fence) {
  let end = i + 1;
  const closes = ({ text }) => text.trim().length >= fence.length && [...text.trim()].every((character) => character === fence[0]);
  while (end < lines.length && !closes(lines[end])) end += 1;
  const body = lines.slice(i + 1, end);
  const make = (leaf) => el("pre", { tabindex: "0" }, el("code", {}, body.length ? leaf(body[0].start, body.at(-1).end) : ""));
  return { length: Math.min(end + 1, lines.length) - i, make };
}

function quoted(lines, i) {
  const end = run(lines, i, (text) => QUOTE.test(text));
  const make = (leaf) => el("blockquote", {}, several(lines.slice(i, end), (text) => QUOTE.exec(text)[0].length, leaf));
  return { length: end - i, make };
}

const isTable = (lines, i) => lines[i].text.includes("|") && i + 1 < lines.length && lines[i + 1].text.includes("-") && DELIMITER.test(lines[i + 1].text) && cells(lines[i]).length === cells(lines[i + 1]).length;

function table(lines, i) {
  const end = run(lines, i + 2, (text) => text.includes("|"));
  const row = (line, kind, leaf) => el("tr", {}, cells(line).map(([start, stop]) => el(kind, {}, inline(line.text, line.start, start, stop, leaf))));
  const make = (leaf) =>
    el("div.wide", { tabindex: "0" }, el("table", {}, el("thead", {}, row(lines[i], "th", leaf)), el("tbody", {}, lines.slice(i + 2, end).map((line) => row(line, "td", leaf)))));
  return { length: end - i, make };
}

/** The cells of a row as [start, end) in its line, without the blanks around them. */
function cells({ text }) {
  const bars = [...text.matchAll(/(?<!\\)\|/g)].map((match) => match.index);
  const edges = [-1, ...bars, text.length];
  const found = edges.slice(1).map((end, i) => trimmed(text, edges[i] + 1, end));
  if (found.length > 1 && found[0][0] === found[0][1]) found.shift();
  if (found.length > 1 && found.at(-1)[0] === found.at(-1)[1]) found.pop();
  return found;
}

function trimmed(text, start, end) {
  while (start < end && /\s/.test(text[start])) start += 1;
  while (end > start && /\s/.test(text[end - 1])) end -= 1;
  return [start, end];
}

/** A list with the lists in it: what is further in than the item above belongs to it. Blank lines between items are left out. */
function list(lines, i) {
  const items = [];
  let end = i;
  for (let at = i; at < lines.length; at += 1) {
    const { text } = lines[at];
    const item = ITEM.exec(text);
    if (item && !RULE.test(text)) items.push({ indent: item[1].length, number: parseInt(item[2], 10), lines: [lines[at]] });
    else if (!text.trim()) continue;
    else if (end === at && !startsBlock(text, lines, at)) items.at(-1).lines.push(lines[at]);
    else break;
    end = at + 1;
  }
  return { length: end - i, make: (leaf) => nested(items, 0, items.length, leaf, 0)[0] };
}

function nested(items, from, to, leaf, depth) {
  const lists = [];
  for (let i = from; i < to; ) {
    const { indent, number, lines } = items[i];
    let inner = i + 1;
    while (inner < to && items[inner].indent > indent + 1 && depth < DEEPEST) inner += 1;
    const skip = (text, n) => (n === 0 ? ITEM.exec(text)[0].length : text.length - text.trimStart().length);
    const entry = el("li", {}, several(lines, skip, leaf), nested(items, i + 1, inner, leaf, depth + 1));
    const kind = Number.isNaN(number) ? "ul" : "ol";
    if (lists.at(-1)?.localName !== kind) lists.push(el(kind, kind === "ol" && number !== 1 ? { start: number } : {}));
    lists.at(-1).append(entry);
    i = inner;
  }
  // Lists of two kinds on one level are rare: the first one holds the block together.
  return depth || lists.length < 2 ? lists : [el("div", {}, lists)];
}

/** Lines below one another; of each, `skip(text, number)` characters are markup. */
function several(lines, skip, leaf) {
  return lines.map((line, n) => [n > 0 && "\n", inline(line.text, line.start, skip(line.text, n), line.text.length, leaf)]);
}

/** The nodes of [start, end) of a line, which begins at `origin` of the whole text. */
function inline(line, origin, start, end, leaf) {
  const parts = [];
  let at = start;
  for (const match of line.slice(start, end).matchAll(INLINE)) {
    const place = start + match.index;
    const after = place + match[0].length;
    if (place > at) parts.push(leaf(origin + at, origin + place));
    if (match[1] !== undefined) parts.push(el("code", {}, leaf(origin + place + 1, origin + after - 1)));
    else if (match[2] !== undefined) parts.push(el("strong", {}, inline(line, origin, place + 2, after - 2, leaf)));
    else parts.push(el("em", {}, inline(line, origin, place + 1, after - 1, leaf)));
    at = after;
  }
  if (end > at) parts.push(leaf(origin + at, origin + end));
  return parts;
}
