"""A model's text, as it arrives, becomes the text of an answer with verified citations. Pure.

Text passes these stages, character by character; each holds back what later characters may change:

    piece of the reply
      -> PreambleFilter   thoughts and a label at the very beginning are dropped
      -> LinkFilter       live images, tags and foreign addresses are dropped
      -> MarkerScanner    an open bracket waits until it is a marker or cannot become one
      -> Composer         the end of a sentence waits, as follows
      -> AnswerGate       all waits until the first citation is verified

Within the composer a sentence goes out when it has ended and cites something. One that states something and cites
nothing is taken back, unless the passages say the same. After the last word come stops, white space and markers: a
`Boundary`. Whether the sentence ends there ("on 3. [1.1] May") shows only with the next word, of which up to
`_LOOKAHEAD` characters are awaited. Then `_settle` decides: markers go before the stops, a sentence that ends is
checked against what it cites, and markers that a model wrote before their sentence are carried to its end.

    Cover starts on day one. [1.1] It is free ...
    `- sentence -----------'`boundary-'`lookahead
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from app.answering.models import Claim, Source
from app.answering.output import INVISIBLE, LABEL, STOPS, LinkFilter, PreambleFilter, citation_of
from app.answering.stream.markers import (
    CLOSING_BRACKETS,
    MAX_MARKER_LENGTH,
    OPENING_BRACKETS,
    MarkerScanner,
    Reference,
    ReferenceResolver,
    Token,
    would_close,
)
from app.answering.verification.numbers import is_month
from app.answering.verification.support import unsupported, verify
from app.answering.verification.tables import courtesies, offers
from app.domain import Citation, CitationMade, TextDelta, UnsupportedSpan
from app.text.fencing import clean
from app.text.languages import DEFAULT
from app.text.terms import content_terms, fold
from indexing.chunking.sentences import sentence_spans
from indexing.documents import Span

_BULLET = re.compile(r"\s*(?:(?:[-*+•‣◦–—>|]+|#{1,6})(?=\s|$)\s*)*(?:\(?\d{1,3}[.)](?=\s|$)\s*)?")
"""The mark of a list item, a quotation or a heading; it may be empty."""
_HEADING = re.compile(r"\s*#{1,6}\s|\s*(\*\*|__)[^*_]*[^*_.!?。！？؟]\1\s*$")
_EMPHASIS = "*_`~ "
_PUNCTUATION = re.compile(r"[\s,.!;:…，。！；：、،]+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_CLOSING_QUOTES = "\"'”’»)）」』*_"
_FULL_WIDTH_STOPS = frozenset("。！？")
_ORDINAL = re.compile(r"\b\d{1,2}\.$")
_LETTERS = re.compile(r"[^\W\d_]+")

_CONTEXT = 300
"""Characters of a line that are looked at to tell whether a sentence ends after them."""

_LOOKAHEAD = 12
"""Characters of the next word that are awaited to tell whether a full stop ends a sentence: "3. Mai"."""

AnswerPiece = TextDelta | CitationMade
Fate = Literal["kept", "waits", "left out"]
"""Of a sentence that has ended: it goes out; it goes out if a later one does; it is taken back."""
PassageSpan = tuple[int, Span]
"""A passage's number, and a span of its text."""


def states_something(sentence: str) -> bool:
    """Whether a sentence needs support: it is no question, heading, courtesy or announcement of a list."""
    text = _BULLET.sub("", sentence, count=1).strip(_EMPHASIS)
    if _HEADING.match(sentence) or text.endswith(("?", "？", "؟", ":", "：")) or not content_terms(text, DEFAULT):
        return False
    folded = fold(text)
    return _PUNCTUATION.sub(" ", folded).strip() not in courtesies() and not offers().match(folded)


def _is_empty(line: str) -> bool:
    """Whether a line has no words yet; it may have the mark of a list."""
    return not any(map(str.isalnum, _BULLET.sub("", line, count=1)))


class Sentence(msgspec.Struct):
    """The sentence being written: its text without markers, [start, end) of the answer, and what it cites.

    `cited` holds the marker number of each quotation.
    """

    start: int = 0
    end: int = 0
    parts: list[str] = []
    length: int = 0
    cited: dict[PassageSpan, tuple[Source, int]] = {}
    in_code: bool = False

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)


class Boundary(msgspec.Struct):
    """What follows the last word: stops, white space `before` the markers, the markers, and white space `after`.

    `stops_first`: the markers came after the stops.
    """

    stops: str = ""
    before: str = ""
    references: list[Reference] = []
    after: str = ""
    stops_first: bool = False

    def add(self, references: tuple[Reference, ...]) -> None:
        if not self.references:
            self.before, self.stops_first = self.after, bool(self.stops)
        self.after = ""
        self.references.extend(references)

    def takes(self, character: str) -> bool:
        """Whether the character is one of the stops rather than the beginning of the next word."""
        if character in STOPS:
            adjacent = not self.after or (bool(self.references) and not self.stops)
            return adjacent and not self.breaks_line and not self.stops_first
        return character in _CLOSING_QUOTES and bool(self.stops) and not self.after and not self.references

    @property
    def is_plain(self) -> bool:
        """Whether the stops hold no closing quotes or the like, so that markers may stand before them."""
        return not self.stops.strip(STOPS)

    @property
    def breaks_line(self) -> bool:
        """Whether a line ends here."""
        return "\n" in self.before or "\n" in self.after

    @property
    def may_end_sentence(self) -> bool:
        """Whether the next word must be known to tell if the sentence ends here."""
        stops = self.stops
        return bool(stops) and bool(self.after or self.stops_first or not _FULL_WIDTH_STOPS.isdisjoint(stops))

    def ends_sentence(self, line: str, next_word: str) -> bool:
        """Whether the sentence ends between `line` and `next_word`."""
        if len(self.stops) > _CONTEXT:
            return True
        context = line + self.stops
        word = _LETTERS.match(next_word)
        if _ORDINAL.search(context) and word and is_month(word.group()):  # am 3. Mai
            return False
        ends = range(len(line) + 1, len(context) + 1)
        spans = sentence_spans(f"{context}{self.after or self.before or ' '}{next_word}")
        return any(span.end in ends for span in spans)


class _AnswerText:
    """The answer so far: what is kept goes out, what was written since may still be taken back."""

    def __init__(self) -> None:
        self.length = 0
        self._kept: list[str] = []
        self._open: list[str] = []
        self._recent = ""  # of all that was written
        self._kept_recent = ""
        self._events: list[AnswerPiece] = []

    def __str__(self) -> str:
        return "".join(self._kept)

    @property
    def last(self) -> str:
        """The last character; "" at the beginning."""
        return self._recent[-1:]

    @property
    def kept(self) -> int:
        """Characters that are kept."""
        return self.length - sum(map(len, self._open))

    def write(self, text: str) -> None:
        """Append white space, or markers of ours."""
        if not text:
            return
        self._open.append(text)
        self.length += len(text)
        self._recent = (self._recent + text)[-MAX_MARKER_LENGTH:]

    def write_character(self, character: str) -> str:
        """Append a character of the model's, or ")" for one that would complete a false marker; return it."""
        safe = ")" if character in CLOSING_BRACKETS and would_close(self._recent) else character
        self.write(safe)
        return safe

    def keep(self) -> None:
        """All that was written stays."""
        text, self._open = "".join(self._open), []
        if not text:
            return
        self._kept.append(text)
        self._kept_recent = (self._kept_recent + text)[-MAX_MARKER_LENGTH:]
        # One delta for all text between two citations, however many characters arrived.
        if self._events and isinstance(last := self._events[-1], TextDelta):
            self._events[-1] = TextDelta(last.text + text)
        else:
            self._events.append(TextDelta(text))

    def take_back(self, length: int) -> None:
        """Forget what was written after `length` characters, unless it is kept."""
        text, kept = "".join(self._open), self.kept
        self._open = [text[: max(0, length - kept)]]
        self.length = kept + len(self._open[0])
        self._recent = (self._kept_recent + self._open[0])[-MAX_MARKER_LENGTH:]

    def cite(self, citation: Citation) -> None:
        """Add a citation after the text so far, which is kept."""
        self.keep()
        self._events.append(CitationMade(citation))

    def take_events(self) -> list[AnswerPiece]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events


class Composer:
    """Turns a model's text, as it arrives, into the answer's text and citations. See the top of this module.

    Sentences that state something and cite nothing are left out, and counted in `left_out`.
    """

    left_out = 0

    def __init__(self, sources: Sequence[Source]) -> None:
        self._preamble, self._links, self._scanner = PreambleFilter(), LinkFilter(sources), MarkerScanner()
        self._resolver = ReferenceResolver(sources)
        self._answer = _AnswerText()
        self._sentence, self._boundary = Sentence(), Boundary()
        self._lookahead: list[Token] = []  # single characters of the word after a boundary
        self._line = ""  # the end of the current line, markers left out
        self._line_leads = False  # markers stand before their sentences in this line
        self._leading: list[Reference] = []  # markers that wait for the end of the sentence after them
        self._numbers: dict[PassageSpan, int] = {}
        self._citations: list[Citation] = []
        self._claims: list[Claim] = []
        self._end = 0  # of the last sentence that was not taken back
        self._said = ""  # the last statement; small models repeat it without end
        self._in_table = self._cut = self._kept_code = self._supported = False

    @property
    def text(self) -> str:
        """The answer so far: all deltas."""
        return str(self._answer)

    @property
    def citations(self) -> tuple[Citation, ...]:
        """In the order of their sentences."""
        return tuple(self._citations)

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The sentences that are complete."""
        return tuple(self._claims)

    @property
    def unknown_references(self) -> int:
        """How many references named no passage or sentence."""
        return self._resolver.unknown

    @property
    def removed_addresses(self) -> int:
        """How many addresses were removed because no passage holds them."""
        return self._links.removed

    @property
    def is_supported(self) -> bool:
        """Whether any statement has a verified citation; a heading has not stated anything."""
        return self._supported

    @property
    def unsupported(self) -> tuple[UnsupportedSpan, ...]:
        """The statements without any verified citation."""
        return unsupported(self._claims, self._citations)

    def feed(self, text: str) -> list[AnswerPiece]:
        """Take the next piece of the model's text; return what has become certain."""
        self._scan(self._links.feed(self._preamble.feed(clean(INVISIBLE.sub("", text)))))
        return self._answer.take_events()

    def finish(self, *, cut: bool = False) -> list[AnswerPiece]:
        """Return the rest, at the end of the model's text. `cut`: it ends where the model's tokens did."""
        self._scan(self._links.feed(self._preamble.finish()) + self._links.finish())
        self._take_tokens(self._scanner.finish())
        self._end_lookahead()
        self._cut = cut and not self._boundary.stops and not self._boundary.references
        self._settle("")
        self._answer.take_back(self._answer.kept)
        self._claims = [claim for claim in self._claims if claim.end <= self._answer.length]
        return self._answer.take_events()

    def _scan(self, text: str) -> None:
        for character in text:
            self._take_tokens(self._scanner.feed(character))

    def _take_tokens(self, tokens: Iterable[Token]) -> None:
        for token in tokens:
            if token.references:
                self._take_marker(token.references)
            else:
                for character in token.text:
                    self._take(character, token.in_code)

    def _take_marker(self, references: tuple[Reference, ...]) -> None:
        self._end_lookahead()
        if self._boundary.references and "\n" in self._boundary.after:
            # Markers on two lines: the first ones belong to the line before.
            after = self._boundary.after
            self._settle("")
            self._boundary.after = after
        self._boundary.add(references)

    def _take(self, character: str, in_code: bool) -> None:
        boundary = self._boundary
        if self._lookahead:
            self._look_ahead(character, in_code)
        elif character.isspace():
            boundary.after += character
        elif not in_code and boundary.takes(character):
            boundary.stops, boundary.after = boundary.stops + character, ""
        elif not in_code and boundary.may_end_sentence:
            self._look_ahead(character, in_code)
        else:
            self._settle(character)
            self._write_character(character, in_code)

    def _look_ahead(self, character: str, in_code: bool) -> None:
        """Gather the word after a stop."""
        if character.isspace():
            self._end_lookahead()
            self._take(character, in_code)
            return
        self._lookahead.append(Token(character, in_code=in_code))
        if len(self._lookahead) == _LOOKAHEAD or _UNSPACED.match(character):
            self._end_lookahead()

    def _end_lookahead(self) -> None:
        if not self._lookahead:
            return
        word, self._lookahead = self._lookahead, []
        self._settle("".join(token.text for token in word))
        self._write_character(word[0].text, word[0].in_code)
        for token in word[1:]:
            self._take(token.text, token.in_code)

    def _write_character(self, character: str, in_code: bool) -> None:
        """Write a character of a word."""
        self._sentence.in_code = self._sentence.in_code or in_code
        self._write(character)
        self._sentence.end = self._answer.length

    def _write(self, text: str) -> None:
        if not self._sentence.parts:
            self._sentence.start = self._answer.length
        written = "".join(map(self._answer.write_character, text))
        self._sentence.add(written)
        self._line = (self._line + written)[-_CONTEXT:]

    def _settle(self, next_word: str) -> None:
        """Decide what becomes of the boundary, now that the next word is known; it is "" at the end."""
        boundary, self._boundary = self._boundary, Boundary()
        leads = bool(boundary.references) and self._leads(boundary, next_word)
        ends = (
            not next_word
            or boundary.breaks_line
            or (boundary.may_end_sentence and boundary.ends_sentence(self._line, next_word))
        )
        references = [*(self._leading if ends else ()), *(() if leads else boundary.references)]
        if ends and not references and not self._sentence.cited:
            references = self._own_references(boundary.stops)
        cited = self._write_end(boundary, references, ends)
        if ends:
            self._leading = []
            self._close_sentence()
        if leads:
            self._leading.extend(boundary.references)
        self._write_gap(boundary, next_word, leads=leads, cited=cited)
        if boundary.breaks_line:
            self._line, self._line_leads = "", leads
        self._line_leads = self._line_leads or leads

    def _own_references(self, stops: str) -> list[Reference]:
        """What a sentence without markers would cite, if the passages say the same."""
        written = "".join(self._sentence.parts) + stops
        if self._cut or self._sentence.in_code or not states_something(written):
            return []
        claim = _BULLET.sub("", written, count=1).strip(_EMPHASIS)
        references = self._resolver.saying(claim)
        named = self._resolver.resolve(references, claim)
        quotes = [(source.hit.text or "")[span.start : span.end] for source, span in named]
        context = "\n".join(_context(source, span) for source, span in named)
        return references if quotes and all(verify(claim, quotes, context)) else []

    def _leads(self, boundary: Boundary, next_word: str) -> bool:
        """Whether the markers stand before the sentence that they belong to."""
        if not next_word or "\n" in boundary.after:
            return False
        first_in_line = "\n" in boundary.before or _is_empty(self._line + boundary.stops)
        return first_in_line or (self._line_leads and boundary.stops_first)

    def _write_end(self, boundary: Boundary, references: Sequence[Reference], ends: bool) -> bool:
        """Write the stops and the markers, which go first if the sentence ends here; return whether there are any."""
        if (boundary.references and not boundary.stops_first) or (ends and boundary.is_plain):
            cited = self._write_markers(references)
            self._write(boundary.stops)
        else:
            self._write(boundary.stops)
            self._sentence.end = self._answer.length
            cited = self._write_markers(references)
        if not cited:
            self._sentence.end = self._answer.length
        return cited

    def _write_markers(self, references: Sequence[Reference]) -> bool:
        """Write our markers for what `references` name; return whether there are any."""
        stated = self._line[-self._sentence.length :] if self._sentence.length else ""
        if not references or _is_empty(stated):
            return False
        markers = []
        for source, span in self._resolver.resolve(references, stated):
            key = (source.number, span)
            number = self._numbers.setdefault(key, len(self._numbers) + 1)
            self._sentence.cited[key] = (source, number)
            markers.append(f"[{number}]")
        if markers:
            gap = "" if self._answer.last.isspace() or self._answer.last in "([（" else " "
            self._answer.write(gap + "".join(markers))
        return bool(markers)

    def _write_gap(self, boundary: Boundary, next_word: str, *, leads: bool, cited: bool) -> None:
        """Write the white space before the next word."""
        if not next_word or not self._answer.length:
            return
        gap = boundary.after
        if leads or (not gap and not cited and next_word[0].isalnum()):
            gap = boundary.before
        if not gap and boundary.references and not cited and _would_join(self._answer.last, next_word[0]):
            gap = " "
        self._answer.write(gap)
        if self._sentence.parts:
            self._sentence.add(gap)
        self._line += gap

    def _close_sentence(self) -> None:
        """Check the sentence against what it cites and add it to the claims, or take it back if it cites nothing.

        What states nothing, such as a heading, waits for a sentence after it that cites something.
        """
        sentence, self._sentence = self._sentence, Sentence()
        written = "".join(sentence.parts)
        bullet = _BULLET.match(written)
        skipped = bullet.end() if bullet and sentence.start + bullet.end() < sentence.end else 0
        text = written[skipped:].strip()
        if not sentence.cited and not any(map(str.isalnum, text)):
            if sentence.in_code and self._kept_code:
                self._answer.keep()  # the end of the block
                self._end, self._kept_code = self._answer.length, False
            return
        in_table, self._in_table = self._in_table, written.lstrip().startswith("|")
        heads_table = self._in_table and not in_table
        factual = not sentence.in_code and not heads_table and states_something(written)
        fate = self._fate(sentence, text, factual=factual)
        if fate == "left out" or self._is_idle(sentence, text):
            self.left_out += fate == "left out" and not self._cut
            self._answer.take_back(self._end)
            return
        self._said = text if factual else self._said
        stated = Span(sentence.start + skipped, sentence.end)
        citations = self._cite(sentence, text, stated)
        self._claims.append(Claim(start=stated.start, end=stated.end, text=text, citations=citations, factual=factual))
        self._supported = self._supported or (factual and any(self._citations[index].verified for index in citations))
        if fate == "kept":
            self._answer.keep()
        self._kept_code = sentence.in_code
        self._end = self._answer.length

    def _is_idle(self, sentence: Sentence, text: str) -> bool:
        """Whether it is a label, or says again what was just said, with no other citation."""
        numbers = {number for _, number in sentence.cited.values()}
        if not numbers:
            return bool(LABEL.fullmatch(text))
        return text == self._said and numbers <= {citation.marker for citation in self._citations}

    def _fate(self, sentence: Sentence, text: str, *, factual: bool) -> Fate:
        """What becomes of a sentence. A line of a block of code can carry no marker: a passage must have it."""
        if self._cut:
            return "left out"
        if sentence.cited:
            return "kept"
        if sentence.in_code:
            return "kept" if self._resolver.holds(text) else "left out"
        return "left out" if factual else "waits"

    def _cite(self, sentence: Sentence, text: str, stated: Span) -> tuple[int, ...]:
        """Add the citations of a sentence; return their indices among all of them."""
        cited = [(source, span, number) for (_, span), (source, number) in sentence.cited.items()]
        quotes = [(source.hit.text or "")[span.start : span.end] for source, span, _ in cited]
        verdicts = verify(text, quotes, "\n".join(_context(source, span) for source, span, _ in cited))
        first = len(self._citations)
        for (source, span, number), verified in zip(cited, verdicts, strict=True):
            citation = citation_of(number, source.hit, span, stated, verified=verified)
            self._citations.append(citation)
            self._answer.cite(citation)
        return tuple(range(first, len(self._citations)))


def _context(source: Source, span: Span) -> str:
    """What names the subject of a quotation: title, headings, and the passage up to it."""
    hit = source.hit
    return "\n".join((hit.title, *hit.heading, (hit.text or "")[: span.start]))


def _would_join(before: str, after: str) -> bool:
    """Whether removing a marker would make one word of what stood on both sides: "ht[9.9]tps://"."""
    return (before + after).isascii() and not before.isspace() and before not in OPENING_BRACKETS and after not in ",;)"
