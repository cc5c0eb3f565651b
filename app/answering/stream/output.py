"""The answer's text as it is written. Pure."""

from app.answering.markers import CLOSING, would_close
from app.domain import CitationMade, TextDelta

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
