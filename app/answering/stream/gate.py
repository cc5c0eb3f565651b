"""Holds an answer back until a first citation is verified: the last stage of what `composer` draws. Pure."""

import re

from app.answering.stream.composer import AnswerPiece, Composer
from app.answering.stream.markers import DECLINE
from app.domain import AbstainReason

_DECLINE_BEGINNING = 40
"""Characters of a reply that are looked at to tell whether it begins by declining."""
_DECLINES = re.compile(r"[\W_]*no\\?[_-]answer(?![^\W_])", re.IGNORECASE)
_BARE_DECLINE = "noanswer"


class AnswerGate:
    """Feeds a composer with a model's text, and holds its output back until a citation is verified.

    So an answer without any support is never shown and then withdrawn. A reply that begins with `DECLINE`, in whatever
    spelling, is no answer; further on the word is left out. A reply that copies the `fence` of its prompt is `over`.
    """

    over = False

    def __init__(self, composer: Composer, fence: str = "") -> None:
        self._composer, self._fence = composer, fence.lower()
        self._held: list[AnswerPiece] = []
        self._beginning = ""
        self._tail = ""  # what may become DECLINE, and the white space before it
        self._declined_within = self._has_text = self._has_words = False

    def feed(self, text: str) -> list[AnswerPiece]:
        """Take the next piece of the model's text; return the events that may go out now."""
        if self.over:
            return []
        if len(self._beginning) < _DECLINE_BEGINNING:
            self._beginning = (self._beginning + text).lstrip()[:_DECLINE_BEGINNING]
        self._held += self._composer.feed(self._without_decline(text))
        return self._release()

    def finish(self, *, cut: bool = False) -> list[AnswerPiece]:
        """Return the rest, at the end of the model's text."""
        self._held += [*self._composer.feed(self._tail.rstrip()), *self._composer.finish(cut=cut)]
        self._tail = ""
        return self._release()

    @property
    def is_silent(self) -> bool:
        """Whether nothing but white space has come."""
        return not self._beginning

    @property
    def declined(self) -> bool:
        """After the end: whether the model said that there is no answer."""
        return self._begins_by_declining() or (self._declined_within and not self._composer.is_supported)

    @property
    def abstain_reason(self) -> AbstainReason | None:
        """After the end: why there is no answer; None if there is one."""
        if self.declined:
            return "model_declined"
        if self._composer.is_supported:
            return None
        return "unsupported" if self._has_words else "model_declined"

    def _release(self) -> list[AnswerPiece]:
        if not self._composer.is_supported or self._begins_by_declining():
            return []
        held, self._held = self._held, []
        return held

    def _begins_by_declining(self) -> bool:
        # The beginning is complete long before the first citation, so this never changes after a release.
        if _DECLINES.match(self._beginning):
            return True
        return "".join(filter(str.isalnum, self._beginning)).casefold() == _BARE_DECLINE

    def _without_decline(self, text: str) -> str:
        """The text up to the fence, without the word; what may still become either, and white space at the end, is held
        back.
        """
        text = self._tail + text
        if self._fence and (fenced := text.lower().find(self._fence)) >= 0:
            text, self.over = text[:fenced], True
        parts = text.split(DECLINE)
        self._declined_within |= len(parts) > 1
        whole = "".join(parts)
        begun = 0 if self.over else max(_begun(whole, DECLINE), _begun(whole.lower(), self._fence))
        ready = whole[: len(whole) - begun].rstrip()
        self._tail = whole[len(ready) :]
        if not self._has_text:
            ready = ready.lstrip()
            self._has_text = bool(ready)
        self._has_words = self._has_words or any(map(str.isalnum, ready))
        return ready


def _begun(text: str, word: str) -> int:
    """Characters at the end of the text that begin the word."""
    return next((size for size in range(len(word) - 1, 0, -1) if text.endswith(word[:size])), 0)
