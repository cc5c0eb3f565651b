"""A model's text, piece by piece, into an answer with verified citations. Pure."""

import re
from collections.abc import Iterable, Sequence

import msgspec

from app.answering.citations import INVISIBLE, Unlinked, citation_of
from app.answering.markers import CLOSING, OPENING, Ref, would_close
from app.answering.models import Claim, Source, unsupported
from app.answering.stream.scanner import Marker, Resolver, Scanner, Words
from app.answering.stream.sentence import BULLET, CONTEXT, UNSPACED, Key, Sentence, Tail, says_nothing, states_something
from app.answering.verification.support import Evidence, verify
from app.domain import Citation, CitationMade, TextDelta, UnsupportedSpan
from app.text.fencing import clean
from indexing.documents import Span

_THOUGHTS = ("<think>", "<thinking>")
_LABEL = re.compile(
    r"(?:\*\*)?(?:answer|antwort|réponse|respuesta|答案|回答|答え|الإجابة)(?:\*\*)?\s?[:：](?:\*\*)?", re.IGNORECASE
)
_LONGEST = 24
"""Characters of the longest label; until then it is not known whether there is one."""


class Opening:
    """Takes a text in pieces and hands it on without a block of thoughts and a label at its very beginning."""

    def __init__(self) -> None:
        self._held: str | None = ""  # None: the answer has begun
        self._end = ""  # what ends the thoughts that are open

    def read(self, text: str) -> str:
        """What belongs to the answer."""
        if self._held is None:
            return text
        self._held += text
        while (self._end or self._enter()) and self._leave():
            pass
        if self._end or self._undecided():
            return ""
        return self.finish()

    def finish(self) -> str:
        """What was held back, when nothing more comes. Thoughts without an end are no answer."""
        held, self._held = (self._held or ""), None
        if self._end:
            return ""
        held = held.lstrip()
        label = _LABEL.match(held)
        return held[label.end() :] if label else held

    def _enter(self) -> bool:
        begun = (self._held or "").lstrip()
        for opening in _THOUGHTS:
            if begun.lower().startswith(opening):
                self._end = f"</{opening[1:]}"
                return True
        return False

    def _leave(self) -> bool:
        thoughts, end, after = (self._held or "").partition(self._end)
        if not end:
            self._held = thoughts[-len(self._end) :]
            return False
        self._held, self._end = after, ""
        return True

    def _undecided(self) -> bool:
        return len((self._held or "").lstrip()) < _LONGEST


_RECENT = 64


class Page:
    """What has been released, and what of it has not been told yet."""

    def __init__(self) -> None:
        self.length = 0
        self._parts: list[str] = []
        self._recent = ""
        self._events: list[TextDelta | CitationMade] = []

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._parts)

    @property
    def last(self) -> str:
        """The last character; "" at the beginning."""
        return self._recent[-1:]

    def write(self, text: str) -> None:
        """As it is: white space, and our own markers."""
        if not text:
            return
        self._parts.append(text)
        self.length += len(text)
        self._recent = (self._recent + text)[-_RECENT:]
        if self._events and isinstance(told := self._events[-1], TextDelta):
            self._events[-1] = TextDelta(told.text + text)
        else:
            self._events.append(TextDelta(text))

    def utter(self, character: str) -> str:
        """Writes a character of the model's, unless it completes what would look like a marker; what was written."""
        said = ")" if character in CLOSING and would_close(self._recent) else character
        self.write(said)
        return said

    def tell(self, event: CitationMade) -> None:
        """After the text so far."""
        self._events.append(event)

    def told(self) -> list[TextDelta | CitationMade]:
        """What is new since the last time."""
        events, self._events = self._events, []
        return events


_WORD = 12
"""Characters of the next word that are waited for, to know whether a full stop ends a sentence: "3. Mai"."""


class Composer:
    """Turns a model's text, as it arrives, into the answer's text and its citations.

    Markers that a model puts before its sentences are carried to the ends of these.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._resolver, self._unlinked = Resolver(sources), Unlinked(sources)
        self._opening, self._scanner, self._page = Opening(), Scanner(), Page()
        self._sentence, self._tail = Sentence(), Tail()
        self._ahead: list[Words] = []
        self._line, self._line_led = "", False
        self._led: list[Ref] = []
        self._numbers: dict[Key, int] = {}
        self._citations: list[Citation] = []
        self._claims: list[Claim] = []

    @property
    def text(self) -> str:
        """The answer so far: all deltas."""
        return self._page.text

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
        self._read(self._unlinked.feed(self._opening.read(clean(INVISIBLE.sub("", text)))))
        return self._page.told()

    def finish(self) -> list[TextDelta | CitationMade]:
        """The rest, when nothing more comes."""
        self._read(self._unlinked.feed(self._opening.finish()) + self._unlinked.finish())
        self._take_all(self._scanner.finish())
        self._look_no_further()
        self._settle("")
        return self._page.told()

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

    def _take_marker(self, marker: Marker) -> None:
        self._look_no_further()
        if self._tail.refs and "\n" in self._tail.gap:
            gap = self._tail.gap
            self._settle("")
            self._tail.gap = gap
        self._tail.add(marker.refs)

    def _take(self, character: str, code: bool) -> None:
        tail = self._tail
        if self._ahead:
            self._look(character, code)
        elif character.isspace():
            tail.gap += character
        elif not code and tail.takes(character):
            tail.stops, tail.gap = tail.stops + character, ""
        elif not code and tail.may_end():
            self._look(character, code)
        else:
            self._settle(character)
            self._say(character, code)

    def _look(self, character: str, code: bool) -> None:
        """Gathers the word after a full stop."""
        if character.isspace():
            self._look_no_further()
            self._take(character, code)
            return
        self._ahead.append(Words(character, code))
        if len(self._ahead) == _WORD or UNSPACED.match(character):
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
        self._sentence.code = self._sentence.code or code
        self._utter(character)
        self._sentence.end = self._page.length

    def _utter(self, text: str) -> None:
        if not self._sentence.words:
            self._sentence.start = self._page.length
        said = "".join(map(self._page.utter, text))
        self._sentence.add(said)
        self._line = (self._line + said)[-CONTEXT:]

    def _settle(self, ahead: str) -> None:
        """Decides what is to become of the tail, now that the next word is known; "" at the end."""
        tail, self._tail = self._tail, Tail()
        leads = bool(tail.refs) and self._leads(tail, ahead)
        ends = not ahead or tail.breaks() or (tail.may_end() and tail.ends(self._line, ahead))
        here = [*(self._led if ends else ()), *(() if leads else tail.refs)]
        placed = self._punctuate(tail, here, ends)
        if ends:
            self._led = []
            self._close()
        if leads:
            self._led.extend(tail.refs)
        gap = tail.before if leads or (not tail.gap and not placed and ahead[:1].isalnum()) else tail.gap
        if ahead and self._page.length:
            self._space(gap or " " * (bool(tail.refs) and not placed and _would_join(self._page.last, ahead[0])))
        if tail.breaks():
            self._line, self._line_led = "", leads
        self._line_led = self._line_led or leads

    def _leads(self, tail: Tail, ahead: str) -> bool:
        """Whether the markers stand before the sentence that they belong to."""
        if not ahead or "\n" in tail.gap:
            return False
        return "\n" in tail.before or says_nothing(self._line + tail.stops) or (self._line_led and tail.split)

    def _punctuate(self, tail: Tail, refs: Sequence[Ref], ends: bool) -> bool:
        """The stops, and the markers before them if the sentence ends there; whether there are any markers."""
        if (tail.refs and not tail.split) or (ends and tail.is_plain()):
            placed = self._place(refs)
            self._utter(tail.stops)
        else:
            self._utter(tail.stops)
            self._sentence.end = self._page.length
            placed = self._place(refs)
        if not placed:
            self._sentence.end = self._page.length
        return placed

    def _place(self, refs: Sequence[Ref]) -> bool:
        """Our markers for what `refs` name, and whether there are any."""
        size = self._sentence.size
        stated = self._line[-size:] if size else ""
        if not refs or says_nothing(stated):
            return False
        markers = []
        for source, span in self._resolver.resolve(refs, stated):
            key = (source.number, span)
            number = self._numbers.setdefault(key, len(self._numbers) + 1)
            self._sentence.cited[key] = (source, number)
            markers.append(f"[{number}]")
        if markers:
            gap = "" if self._page.last.isspace() or self._page.last in "([（" else " "
            self._page.write(gap + "".join(markers))
        return bool(markers)

    def _space(self, gap: str) -> None:
        self._page.write(gap)
        if self._sentence.words:
            self._sentence.add(gap)
        self._line += gap

    def _close(self) -> None:
        """The sentence is complete."""
        sentence, self._sentence = self._sentence, Sentence()
        said = "".join(sentence.words)
        bullet = BULLET.match(said)
        skipped = bullet.end() if bullet and sentence.start + bullet.end() < sentence.end else 0
        text = said[skipped:].strip()
        if not sentence.cited and not any(map(str.isalnum, text)):
            return
        stated = Span(sentence.start + skipped, sentence.end)
        places = self._cite(sentence, text, stated)
        factual = not sentence.code and states_something(said)
        claim = Claim(start=stated.start, end=stated.end, text=text, citations=places, factual=factual)
        self._claims.append(claim)

    def _cite(self, sentence: Sentence, text: str, stated: Span) -> tuple[int, ...]:
        """The citations of a sentence, and their places among all of them."""
        cited = [(source, span, number) for (_, span), (source, number) in sentence.cited.items()]
        made = [citation_of(number, source.hit, span, stated) for source, span, number in cited]
        verdicts = verify(text, [_evidence(source, span) for source, span, _ in cited])
        first = len(self._citations)
        for citation, verified in zip(made, verdicts, strict=True):
            checked = msgspec.structs.replace(citation, verified=verified)
            self._citations.append(checked)
            self._page.tell(CitationMade(checked))
        return tuple(range(first, len(self._citations)))


def _evidence(source: Source, span: Span) -> Evidence:
    hit, text = source.hit, source.hit.text or ""
    return Evidence(text[span.start : span.end], "\n".join((hit.title, *hit.heading, text[: span.start])))


def _would_join(before: str, after: str) -> bool:
    """Whether a marker that is removed would make one word of what stood on both sides: "ht[9.9]tps://"."""
    return (before + after).isascii() and not before.isspace() and before not in OPENING and after not in ",;)"
