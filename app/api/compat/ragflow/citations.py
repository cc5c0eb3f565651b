"""Our markers, [1] for the first citation, as RAGFlow's: [ID:0] for the first passage. Pure."""

import re
from collections.abc import Iterable

from app.domain import Citation, Hit

_RUN = re.compile(r"(?:\[\d{1,4}\])+")
_NUMBER = re.compile(r"\d+")
_BEGUN = re.compile(r"\[\d{0,4}$")


class Renumbering:
    """Translates an answer as it arrives. A marker waits until its citation is told, which comes after it."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._cited: dict[str, int] = {}
        self._held = ""

    def learn(self, hits: Iterable[Hit]) -> None:
        """The passages, in the order in which the client gets them."""
        self._places = {hit.id: place for place, hit in enumerate(hits)}

    def cite(self, citation: Citation) -> str:
        """What can be said now."""
        self._cited[str(citation.marker)] = self._places[citation.result_id]
        return self.feed("")

    def feed(self, text: str) -> str:
        """What can be said of the text so far."""
        self._held += text
        ready = self._held[: self._unclear()]
        self._held = self._held[len(ready) :]
        return _RUN.sub(self._translated, ready)

    def finish(self) -> str:
        """The rest."""
        rest, self._held = self._held, ""
        return _RUN.sub(self._translated, rest)

    def _unclear(self) -> int:
        """Where the first marker begins that is not known yet, or that may still go on."""
        for run in _RUN.finditer(self._held):
            known = all(number in self._cited for number in _NUMBER.findall(run[0]))
            if not known or run.end() == len(self._held) or _BEGUN.match(self._held, run.end()):
                return run.start()
        begun = _BEGUN.search(self._held)
        return begun.start() if begun else len(self._held)

    def _translated(self, run: re.Match[str]) -> str:
        """Quotes of one passage are one marker there. What nobody cites stays as it is."""
        numbers = _NUMBER.findall(run[0])
        said = (f"[ID:{self._cited[number]}]" if number in self._cited else f"[{number}]" for number in numbers)
        return "".join(dict.fromkeys(said))


def renumbered(text: str, hits: Iterable[Hit], citations: Iterable[Citation]) -> str:
    """A whole answer."""
    renumbering = Renumbering()
    renumbering.learn(hits)
    for citation in citations:
        renumbering.cite(citation)
    return renumbering.feed(text) + renumbering.finish()
