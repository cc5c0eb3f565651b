// The text of an answer: markers become buttons that open the quote, and parts that nothing supports are marked.
// Offsets from the service count code points; JavaScript's count UTF-16 units.

import { el } from "./dom.js";
import { t } from "./words.js";

const MARKER = /\[(\d{1,3})\]/g;

export class AnswerText {
  #waiting = "";
  #frame = 0;
  #citations = [];

  /** `open` is called with a citation. */
  constructor(open) {
    this.open = open;
    this.text = "";
    this.root = el("div.answer-text", { dir: "auto" });
  }

  /** Adds a piece of the stream: many pieces a frame cost one change of the page, and the text before stays as it is. */
  append(text) {
    this.text += text;
    this.#waiting += text;
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  cite(citation) {
    this.#citations.push(citation);
  }

  /** Draws it all once more, now that citations and unsupported parts are known. */
  finish({ citations = this.#citations, unsupported = [] } = {}) {
    cancelAnimationFrame(this.#frame);
    this.#citations = citations;
    const unit = units(this.text);
    const marks = unsupported.map(({ start, end }) => [unit(start), unit(end)]).sort(([a], [b]) => a - b);
    const parts = [];
    let at = 0;
    for (const [start, end] of marks) {
      parts.push(...this.#pieces(at, start));
      parts.push(el("mark.unsupported", { title: t("ask.unsupported") }, this.#pieces(start, end), hidden(t("ask.unsupported"))));
      at = end;
    }
    parts.push(...this.#pieces(at, this.text.length));
    this.root.replaceChildren(...parts);
  }

  #flush() {
    this.#frame = 0;
    // A marker may be split between two pieces: an open bracket at the end waits for its other half.
    const held = /\[\d{0,3}$/.exec(this.#waiting)?.index ?? this.#waiting.length;
    const from = this.text.length - this.#waiting.length;
    for (const part of this.#pieces(from, from + held)) {
      const last = this.root.lastChild;
      if (typeof part === "string" && last instanceof Text) last.appendData(part);
      else this.root.append(part);
    }
    this.#waiting = this.#waiting.slice(held);
  }

  /** The text in [start, end) as strings and buttons. */
  #pieces(start, end) {
    const parts = [];
    let at = start;
    for (const match of this.text.slice(start, end).matchAll(MARKER)) {
      const place = start + match.index;
      if (place > at) parts.push(this.text.slice(at, place));
      parts.push(this.#button(Number(match[1]), place));
      at = place + match[0].length;
    }
    if (end > at) parts.push(this.text.slice(at, end));
    return parts;
  }

  #button(marker, place) {
    const show = () => {
      const citation = this.#meant(marker, place);
      if (citation) this.open(citation);
    };
    return el("button.cite", { type: "button", "aria-label": t("ask.citation", { marker }), onclick: show }, String(marker));
  }

  /** Of the citations with this marker the one whose sentence ends last before it. */
  #meant(marker, place) {
    const unit = units(this.text);
    const same = this.#citations.filter((citation) => citation.marker === marker);
    return same.filter((citation) => unit(citation.answer_end) <= place).at(-1) ?? same[0];
  }
}

/** From an offset in code points to one in UTF-16 units. */
export function units(text) {
  if (!/[\ud800-\udbff]/.test(text)) return (point) => point;
  const starts = [];
  let at = 0;
  for (const character of text) {
    starts.push(at);
    at += character.length;
  }
  starts.push(at);
  return (point) => starts[Math.min(point, starts.length - 1)];
}

const hidden = (text) => el("span.unseen", {}, ` (${text})`);
