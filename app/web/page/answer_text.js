// The text of an answer: Markdown becomes elements, markers become buttons that open the quote, and parts that nothing
// supports are marked.
// Offsets from the service count code points; JavaScript's count UTF-16 units.

import { el } from "./dom.js";
import { blocksOf } from "./markdown.js";
import { t } from "./words.js";

const MARKER = /\[(\d{1,3})\]/g;

export class AnswerText {
  #frame = 0;
  #citations = [];
  #marks = [];
  #settled = 0;
  #growing = [];

  /** `open` is called with a citation. */
  constructor(open) {
    this.open = open;
    this.text = "";
    this.root = el("div.answer-text", { dir: "auto" });
  }

  /** Adds a piece of the stream: many pieces a frame cost one change of the page, and finished blocks stay as they are. */
  append(text) {
    this.text += text;
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
    this.#marks = unsupported.map(({ start, end }) => [unit(start), unit(end)]).sort(([a], [b]) => a - b);
    this.root.replaceChildren(...blocksOf(this.text).map((block) => block.make(this.#leaf)));
  }

  /** Draws the last two blocks anew, which may have grown together, and those that begin after them. */
  #flush() {
    this.#frame = 0;
    const blocks = blocksOf(this.text, this.#settled);
    for (const element of this.#growing) element.remove();
    const drawn = blocks.map((block) => block.make(this.#leaf));
    this.root.append(...drawn);
    this.#growing = drawn.slice(-2);
    this.#settled = blocks.at(-2)?.start ?? this.#settled;
  }

  /** The nodes of a piece without markup: it may be cut by the ends of what nothing supports. */
  #leaf = (start, end) => {
    const parts = [];
    let at = start;
    for (const [from, to] of this.#marks) {
      const [first, last] = [Math.max(from, at), Math.min(to, end)];
      if (first >= last) continue;
      parts.push(...this.#pieces(at, first));
      const said = to <= end && hidden(t("ask.unsupported"));
      parts.push(el("mark.unsupported", { title: t("ask.unsupported") }, this.#pieces(first, last), said));
      at = last;
    }
    return [...parts, ...this.#pieces(at, end)];
  };

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
