"""What a model writes, held back until it stands on something, or taken for what it is: no answer. Pure."""

import re

from app.answering.prompts import DECLINE
from app.answering.stream.composer import Composer
from app.domain import AbstainReason, CitationMade, TextDelta

Piece = TextDelta | CitationMade

_OPENING = 40
_DECLINES = re.compile(r"[\W_]*no\\?[_-]answer(?![^\W_])", re.IGNORECASE)
_SPOKEN = "noanswer"


class Release:
    """Feeds a composer with a model's text, and lets out what it makes of it.

    Nothing is let out before a citation holds, so that an answer that rests on nothing has not been said when that
    turns out. A reply that begins with `DECLINE`, however it is dressed up, is none; further on the word is left out.
    """

    def __init__(self, composer: Composer) -> None:
        self._composer = composer
        self._held: list[Piece] = []
        self._opening = ""
        self._tail = ""
        self._said_decline = self._spoke = False

    def feed(self, text: str) -> list[Piece]:
        """The pieces that may go out now."""
        if len(self._opening) < _OPENING:
            self._opening = (self._opening + text).lstrip()[:_OPENING]
        self._held += self._composer.feed(self._without_decline(text))
        return self._released()

    def finish(self) -> list[Piece]:
        """The rest."""
        self._held += [*self._composer.feed(self._tail.rstrip()), *self._composer.finish()]
        self._tail = ""
        return self._released()

    @property
    def declined(self) -> bool:
        """After the end: whether the model said that there is no answer."""
        return self._declines() or (self._said_decline and not self._composer.supported)

    @property
    def reason(self) -> AbstainReason | None:
        """After the end: why there is no answer; None if there is one."""
        if self.declined:
            return "model_declined"
        if self._composer.supported:
            return None
        return "unsupported" if self._spoke else "model_declined"

    def _released(self) -> list[Piece]:
        if not self._composer.supported or self._declines():
            return []
        held, self._held = self._held, []
        return held

    def _declines(self) -> bool:
        """Its beginning is there long before the first citation, so that this never changes after a release."""
        return bool(_DECLINES.match(self._opening)) or _bare(self._opening) == _SPOKEN

    def _without_decline(self, text: str) -> str:
        """The text without the word, and without what may still become it, or the white space at the end."""
        parts = (self._tail + text).split(DECLINE)
        self._said_decline |= len(parts) > 1
        whole = "".join(parts)
        ready = whole[: len(whole) - _unclear(whole)]
        self._tail = whole[len(ready) :]
        if not self._spoke:
            ready = ready.lstrip()
            self._spoke = any(map(str.isalnum, ready))
        return ready


def _unclear(text: str) -> int:
    """Characters at the end of a text that may be the beginning of `DECLINE`, and white space before them."""
    begun = next((size for size in range(len(DECLINE) - 1, 0, -1) if text.endswith(DECLINE[:size])), 0)
    return len(text) - len(text[: len(text) - begun].rstrip())


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()
