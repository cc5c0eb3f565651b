"""Markers told apart from the words of a text that arrives in pieces. Pure."""

import msgspec

from app.answering.markers import CLOSING, LONGEST, OPENING, Ref, read_marker, without_marker

_FENCES = ("```", "~~~")


class Words(msgspec.Struct, frozen=True):
    """Text that holds no marker. `code`: it stands in a block of code."""

    text: str
    code: bool = False


class Marker(msgspec.Struct, frozen=True):
    """What one marker names; at least one."""

    refs: tuple[Ref, ...]


class Scanner:
    """Holds back what may become a marker: from an opening bracket on, `LONGEST` characters at most.

    Within code a bracketed number is an index: it is kept, with spaces, so that it does not look like a marker. In a
    block of code there are no markers at all.
    """

    def __init__(self) -> None:
        self._held = ""
        self._line = ""  # its first characters
        self._block = self._closing = self._inline = False

    def read(self, character: str) -> list[Words | Marker]:
        """What is certain after one more character."""
        self._notice(character)
        return self._take(character)

    def finish(self) -> list[Words | Marker]:
        """What was held back, when nothing more comes."""
        return self._half_closed() if self._is_half_closed() else self._release()

    def _take(self, character: str) -> list[Words | Marker]:
        if self._is_half_closed() and character not in CLOSING:
            return [*self._half_closed(), *self._take(character)]
        if character in OPENING:
            released = self._release() if len(self._held) > 1 else []
            self._held += character
            return released
        if not self._held:
            return [self._words(character)]
        self._held += character
        if character in CLOSING:
            return [] if self._is_half_closed() else self._close()
        return self._release() if character == "\n" or len(self._held) > LONGEST else []

    def _is_half_closed(self) -> bool:
        """Two brackets were opened and one closed."""
        held = self._held
        return len(held) > 2 and held[1] in OPENING and held[-1] in CLOSING and held[-2] not in CLOSING

    def _half_closed(self) -> list[Words | Marker]:
        """The outer bracket stays open for ever."""
        outer, self._held = self._held[0], self._held[1:]
        return [self._words(outer), *self._close()]

    def _close(self) -> list[Words | Marker]:
        text, self._held = self._held, ""
        width = 2 if text[1] in OPENING else 1
        body = text[width:-width]
        if (self._block or self._inline) and body.strip().isdecimal():
            return [self._words(f"{text[:width]} {body} {text[-width:]}")]
        if self._block:
            return [self._words(text)]
        refs = read_marker(body)
        return [Marker(refs)] if refs else [self._words(without_marker(text))]

    def _release(self) -> list[Words | Marker]:
        text, self._held = self._held, ""
        return [self._words(text)] if text else []

    def _words(self, text: str) -> Words:
        return Words(text, self._block)

    def _notice(self, character: str) -> None:
        """Keeps track of ``` at the beginning of lines and ` within them."""
        if character == "\n":
            self._block = self._block and not self._closing
            self._line, self._closing, self._inline = "", False, False
            return
        if character == "`" and not self._block:
            self._inline = not self._inline
        if len(self._line) < len(_FENCES[0]) and (self._line or not character.isspace()):
            self._line += character
            if self._line in _FENCES:
                self._closing, self._block, self._inline = self._block, True, False
