"""Thoughts that a server leaves in the text: `<think>…</think>` at its beginning."""

_OPEN = "<think>"
_CLOSE = "</think>"


class ThoughtFilter:
    """Takes a text in pieces and gives back what is not thought. Tags further on are the model's own words."""

    def __init__(self) -> None:
        self._held = ""
        self._reading = self._at_start

    def feed(self, piece: str) -> str:
        """What can be shown by now."""
        self._held += piece
        return self._reading()

    def end(self) -> str:
        """What was held back, when nothing more comes."""
        rest = self._held if self._reading == self._at_start else ""
        self._held = ""
        return rest

    def _at_start(self) -> str:
        begun = self._held.lstrip()
        if begun.startswith(_OPEN):
            self._reading = self._in_thought
            return self._in_thought()
        if _OPEN.startswith(begun):
            return ""
        return self._speak()

    def _in_thought(self) -> str:
        _, closed, rest = self._held.partition(_CLOSE)
        if not closed:
            self._held = self._held[-len(_CLOSE) :]
            return ""
        self._held = rest
        self._reading = self._after_thought
        return self._after_thought()

    def _after_thought(self) -> str:
        self._held = self._held.lstrip()
        return self._speak() if self._held else ""

    def _speak(self) -> str:
        self._reading = self._speak
        said, self._held = self._held, ""
        return said


def spoken(text: str) -> str:
    """A whole text without its thoughts."""
    thoughts = ThoughtFilter()
    return thoughts.feed(text) + thoughts.end()
