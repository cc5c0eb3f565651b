"""From a model's text, as it arrives, to the answer's text and its citations. Pure.

A marker goes behind the words that it belongs to and before their full stop, as in the extractive answers. Only what
may still change is held back: white space and full stops, until the next word is there, and what may become a marker.
What is done depends on the text alone, never on the pieces in which it comes.
"""

import re
from collections.abc import Iterable, Sequence

import msgspec

from app.answering.citing import INVISIBLE, STOPS, citation_of
from app.answering.claims import BULLET, states_something
from app.answering.links import Unlinked
from app.answering.markers import CLOSING, Ref, would_close
from app.answering.opening import Opening
from app.answering.resolving import Resolver
from app.answering.scanning import Marker, Scanner, Words
from app.answering.shapes import Claim, Source
from app.answering.supporting import Evidence, verify
from app.cleaning import clean
from app.domain import Citation, CitationMade, TextDelta, UnsupportedSpan
from indexing.documents import Span
from indexing.sentences import sentence_spans

_CLOSERS = "\"'”’»)）」』*_"
_CONTEXT = 600
"""Characters of a line that tell whether a sentence ends after them."""
_WORD = 12
"""Characters of the next word that are waited for, to know whether a full stop ends a sentence: "3. Mai"."""
_RECENT = 64
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")


class _Tail(msgspec.Struct):
    """What follows the last word: stops, white space, and markers after `before`, with white space again."""

    stops: str = ""
    before: str = ""
    refs: list[Ref] = []
    gap: str = ""
    split: bool = False
    """The markers came after the stops."""

    def may_end(self) -> bool:
        """Whether the next word decides if a sentence ends here."""
        return bool(self.stops) and (bool(self.gap) or self.split or any(stop in "。！？" for stop in self.stops))

    def breaks(self) -> bool:
        return "\n" in self.before or "\n" in self.gap


class _Sentence(msgspec.Struct):
    """The sentence that is being said: its words without markers, where they are in the answer, what it cites."""

    start: int
    end: int
    words: list[str] = []
    cited: dict[tuple[int, Span], tuple[Source, int]] = {}
    code: bool = False


class Composer:
    """Turns a model's text, as it arrives, into the answer's text and its citations."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._resolver = Resolver(sources)
        self._unlinked = Unlinked(sources)
        self._opening, self._scanner = Opening(), Scanner()
        self._tail = _Tail()
        self._ahead: list[Words] = []
        self._line, self._line_led = "", False
        self._led: list[Ref] = []
        self._sentence = _Sentence(0, 0)
        self._numbers: dict[tuple[int, Span], int] = {}
        self._parts: list[str] = []
        self._length, self._recent = 0, ""
        self._events: list[TextDelta | CitationMade] = []
        self._citations: list[Citation] = []
        self._claims: list[Claim] = []

    @property
    def text(self) -> str:
        """The answer so far: all deltas."""
        return "".join(self._parts)

    @property
    def citations(self) -> tuple[Citation, ...]:
        """In the order of their sentences."""
        return tuple(self._citations)

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The sentences that are complete."""
        return tuple(self._claims)

    @property
    def unknown(self) -> int:
        """References to passages or sentences that there are not."""
        return self._resolver.unknown

    @property
    def unlinked(self) -> int:
        """Addresses that were removed, since no passage has them."""
        return self._unlinked.removed

    @property
    def supported(self) -> bool:
        """Whether anything that the answer says is known to be supported."""
        return any(citation.verified for citation in self._citations)

    @property
    def unsupported(self) -> tuple[UnsupportedSpan, ...]:
        """The statements without any verified citation."""
        return unsupported(self._claims, self._citations)

    def feed(self, text: str) -> list[TextDelta | CitationMade]:
        """What has become certain with the next piece of the model's text."""
        self._read(self._opening.read(self._unlinked.feed(clean(INVISIBLE.sub("", text)))))
        return self._told()

    def finish(self) -> list[TextDelta | CitationMade]:
        """The rest, when nothing more comes."""
        self._read(self._opening.read(self._unlinked.finish()))
        self._read(self._opening.finish())
        self._take_all(self._scanner.finish())
        self._look_no_further()
        self._settle("")
        return self._told()

    def _read(self, text: str) -> None:
        for character in text:
            self._take_all(self._scanner.read(character))

    def _take_all(self, tokens: Iterable[Words | Marker]) -> None:
        for token in tokens:
            if isinstance(token, Marker):
                self._take_marker(token)
            else:
                for character in token.text:
                    self._take(character, token.code)

    def _told(self) -> list[TextDelta | CitationMade]:
        told, self._events = self._events, []
        return told

    def _take_marker(self, marker: Marker) -> None:
        self._look_no_further()
        if self._tail.refs and "\n" in self._tail.gap:
            self._settle("")
        tail = self._tail
        if not tail.refs:
            tail.before, tail.split = tail.gap, bool(tail.stops)
        tail.gap = ""
        tail.refs.extend(marker.refs)

    def _take(self, character: str, code: bool) -> None:
        tail = self._tail
        if self._ahead:
            self._look(character, code)
        elif character.isspace():
            tail.gap += character
        elif not code and self._prolongs(character):
            tail.gap = ""
            tail.stops += character
        elif not code and tail.may_end():
            self._look(character, code)
        else:
            self._settle(character)
            self._say(character, code)

    def _prolongs(self, character: str) -> bool:
        """Whether it belongs to the full stop rather than to the next word."""
        tail = self._tail
        if character in STOPS:
            return not tail.breaks() and not tail.split and (not tail.gap or (bool(tail.refs) and not tail.stops))
        return character in _CLOSERS and bool(tail.stops) and not tail.gap and not tail.refs

    def _look(self, character: str, code: bool) -> None:
        """Gathers the word after a full stop."""
        if character.isspace():
            self._look_no_further()
            self._take(character, code)
            return
        self._ahead.append(Words(character, code))
        if len(self._ahead) == _WORD or _UNSPACED.match(character):
            self._look_no_further()

    def _look_no_further(self) -> None:
        if not self._ahead:
            return
        ahead, self._ahead = self._ahead, []
        self._settle("".join(words.text for words in ahead))
        self._say(ahead[0].text, ahead[0].code)
        for words in ahead[1:]:
            self._take(words.text, words.code)

    def _say(self, character: str, code: bool) -> None:
        """A character of a word."""
        sentence = self._sentence
        if not sentence.words:
            sentence.start = self._length
        sentence.code = sentence.code or code
        self._utter(character)
        sentence.end = self._length

    def _settle(self, ahead: str) -> None:
        """Decides what is to become of the tail, now that the next word is known; "" at the end."""
        tail, self._tail = self._tail, _Tail()
        leads = bool(tail.refs) and self._leads(tail, ahead)
        ends = not ahead or tail.breaks() or (tail.may_end() and self._ends(tail, ahead))
        here = [*(self._led if ends else ()), *(() if leads else tail.refs)]
        if ends:
            self._led = []
        placed = self._punctuate(tail, here, ends)
        if ends:
            self._close()
        if leads:
            self._led.extend(tail.refs)
            self._line_led = True
        self._space(tail, ahead, leads, placed)

    def _leads(self, tail: _Tail, ahead: str) -> bool:
        """Whether the markers stand before the sentence that they belong to."""
        if not ahead or "\n" in tail.gap:
            return False
        begins = "\n" in tail.before or not BULLET.sub("", self._line + tail.stops, count=1).strip()
        return begins or (self._line_led and tail.split)

    def _ends(self, tail: _Tail, ahead: str) -> bool:
        """Whether a sentence ends with the stops."""
        context = self._line + tail.stops
        stops = range(len(self._line) + 1, len(context) + 1)
        return any(span.end in stops for span in sentence_spans(f"{context}{tail.gap or tail.before or ' '}{ahead}"))

    def _punctuate(self, tail: _Tail, refs: Sequence[Ref], ends: bool) -> bool:
        """The stops, and the markers before them where the sentence ends; whether there are any markers."""
        sentence = self._sentence
        first = ends and not tail.stops.strip(STOPS)
        stated = "".join(sentence.words)[-_CONTEXT:]
        if first or not tail.split:
            placed = self._place(refs, stated)
            self._mark(tail.stops, keep_end=placed)
        else:
            self._mark(tail.stops, keep_end=False)
            placed = self._place(refs, stated)
        return placed

    def _mark(self, stops: str, keep_end: bool) -> None:
        if not stops:
            return
        if not self._sentence.words:
            self._sentence.start = self._length
        self._utter(stops)
        if not keep_end:
            self._sentence.end = self._length

    def _place(self, refs: Sequence[Ref], stated: str) -> bool:
        """Our markers for what `refs` name."""
        markers: list[int] = []
        if not any(map(str.isalnum, BULLET.sub("", stated, count=1))):
            refs = ()  # there is nothing that they could support
        for source, span in self._resolver.resolve(refs, stated):
            key = (source.number, span)
            number = self._numbers.setdefault(key, len(self._numbers) + 1)
            self._sentence.cited[key] = (source, number)
            markers.append(number)
        if markers:
            gap = " " if self._recent and not self._recent[-1].isspace() and self._recent[-1] not in "([（" else ""
            self._write(gap + "".join(f"[{number}]" for number in markers))
        return bool(markers)

    def _space(self, tail: _Tail, ahead: str, leads: bool, placed: bool) -> None:
        """The white space before the next word."""
        if not ahead:
            return
        gap = tail.gap
        if leads or (tail.refs and not gap and not placed and ahead[0].isalnum()):
            gap = tail.before
        if not self._length:
            return
        if not gap and tail.refs and not placed and _would_join(self._recent[-1], ahead[0]):
            gap = " "
        self._write(gap)
        if self._sentence.words:
            self._sentence.words.append(gap)
        self._line += gap
        if tail.breaks():
            self._line, self._line_led = "", leads

    def _close(self) -> None:
        """The sentence is complete."""
        sentence, self._sentence = self._sentence, _Sentence(0, 0)
        said = "".join(sentence.words)
        bullet = BULLET.match(said)
        skipped = bullet.end() if bullet else len(said) - len(said.lstrip())
        text = said[skipped:].strip()
        if not sentence.cited and not any(map(str.isalnum, text)):
            return
        stated = Span(sentence.start + skipped, sentence.end)
        places = self._cite(sentence, text, stated)
        factual = not sentence.code and states_something(said)
        self._claims.append(Claim(start=stated.start, end=stated.end, text=text, citations=places, factual=factual))

    def _cite(self, sentence: _Sentence, text: str, stated: Span) -> tuple[int, ...]:
        cited = [(source, span, number) for (_, span), (source, number) in sentence.cited.items()]
        made = [citation_of(number, source.hit, span, stated) for source, span, number in cited]
        about = [" ".join((source.hit.title, *source.hit.heading)) for source, _, _ in cited]
        evidence = [Evidence(citation.quote, above) for citation, above in zip(made, about, strict=True)]
        first = len(self._citations)
        for citation, verified in zip(made, verify(text, evidence), strict=True):
            checked = msgspec.structs.replace(citation, verified=verified)
            self._citations.append(checked)
            self._events.append(CitationMade(checked))
        return tuple(range(first, len(self._citations)))

    def _utter(self, text: str) -> None:
        """The model's own characters; none of them completes what would look like a marker of ours."""
        for character in text:
            fake = character in CLOSING and would_close(self._recent)
            said = ")" if fake else character
            self._write(said)
            self._sentence.words.append(said)
            self._line = (self._line + said)[-_CONTEXT:]

    def _write(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)
        self._recent = (self._recent + text)[-_RECENT:]
        last = self._events[-1] if self._events else None
        if isinstance(last, TextDelta):
            self._events[-1] = TextDelta(last.text + text)
        else:
            self._events.append(TextDelta(text))


def _would_join(before: str, after: str) -> bool:
    """Whether a marker that is removed would make one word of what stood on both sides: "ht[9.9]tps://"."""
    return (before + after).isascii() and not before.isspace() and after not in ",;)"


def unsupported(claims: Iterable[Claim], citations: Sequence[Citation]) -> tuple[UnsupportedSpan, ...]:
    """The statements among `claims` without any verified citation."""
    return tuple(
        UnsupportedSpan(claim.start, claim.end)
        for claim in claims
        if claim.factual and not any(citations[place].verified for place in claim.citations)
    )
