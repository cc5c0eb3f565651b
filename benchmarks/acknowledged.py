"""What a service has acknowledged of each document, and whether it still stands by it.

A document has a history of states: the rare word of each version that was sent, or "" where it was to be deleted. The
service may show the last acknowledged state, or a later one that it was asked for and did not acknowledge. Everything
else is a fault:

lost          nothing of an acknowledged version is there
hidden        its text is there, but GET or the search does not show it, or shows an older version
mixed         passages of two versions, or not all of one
resurrected   an acknowledged deletion is undone
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Literal
from urllib.parse import quote

import httpx
import msgspec

from benchmarks.service import found, text_of

Kind = Literal["lost", "hidden", "mixed", "resurrected"]

PATIENCE_S, PAUSE_S = 8.0, 0.25
OLD_WORDS = 3
"""Earlier versions of a document that are searched for, in vain."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """`healed_s`: how long it was seen; None: until the patience ended."""

    kind: Kind
    document: str
    what: str
    healed_s: float | None = None


class History:
    """The states of a document in order. `floor` is the last that was acknowledged, or seen after it."""

    def __init__(self, collection: str, document_id: str) -> None:
        self.collection, self.id = collection, document_id
        self.states, self.sentences = [""], [0]
        self.floor = 0

    def attempt(self, word: str, sentences: int = 0) -> int:
        """Record what is about to be asked for; returns its place."""
        self.states.append(word)
        self.sentences.append(sentences)
        return len(self.states) - 1

    def acknowledge(self, place: int) -> None:
        """The service has said that it is done."""
        self.floor = max(self.floor, place)

    @property
    def allowed(self) -> list[str]:
        """What may be shown now."""
        return self.states[self.floor :]

    def see(self, word: str) -> None:
        """What was shown once may not go back."""
        places = [place for place, state in enumerate(self.states) if state == word and place >= self.floor]
        if places:
            self.floor = places[0]

    def adopt(self, word: str) -> None:
        """After a fault: take what is there as the truth, so that it is counted once."""
        known = [place for place, state in enumerate(self.states) if state == word]
        self.floor = self.attempt(word, self.sentences[known[0]] if known else 0)


class Shown(msgspec.Struct, frozen=True):
    """What GET /documents/{id} shows: the word of a version, or ""; `fault` where it is no version as a whole."""

    word: str
    fault: str = ""


async def shown(client: httpx.AsyncClient, history: History) -> Shown:
    """Raises httpx.HTTPStatusError."""
    response = await client.get(f"/documents/{quote(history.id, safe='')}", params={"collection": history.collection})
    if response.status_code == 404:
        return Shown("")
    response.raise_for_status()
    details = response.json()
    return _read(history, details["text"], [(each["start"], each["end"]) for each in details["ranges"]])


def _read(history: History, text: str, ranges: list[tuple[int, int]]) -> Shown:
    words = [word for word in history.states if word and word in text.lower()]
    if len(words) != 1:
        return Shown(words[0] if words else "", f"a text of {len(words)} known versions in {len(ranges)} passages")
    [word] = words
    expected = text_of(word, history.sentences[history.states.index(word)])
    if text.split() != expected.split():
        return Shown(word, f"a text of {len(text)} characters, not {len(expected)}")
    end = 0
    for start, stop in ranges:
        if start > end + 1:
            break
        end = stop
    return Shown(word, "" if end >= len(expected) else f"{len(ranges)} passages reach to {end} of {len(expected)}")


async def look(client: httpx.AsyncClient, history: History) -> Fault | None:
    """Compare what is shown with what may be; waits for a while until a fault has gone.

    Nobody may write to the document meanwhile, but the service, which may finish what it had begun.
    """
    begun, first = time.perf_counter(), None
    while True:
        fault, word = await _look_once(client, history)
        waited = time.perf_counter() - begun
        if fault is None:
            history.see(word)
            return first and msgspec.structs.replace(first, healed_s=waited)
        first = first or fault
        if waited > PATIENCE_S:
            history.adopt(word)
            return first
        await asyncio.sleep(PAUSE_S)


async def _look_once(client: httpx.AsyncClient, history: History) -> tuple[Fault | None, str]:
    """The fault, and the word that GET shows. Looks again if the version changed in between."""
    try:
        before = await shown(client, history)
        hits = {word: await _finds(client, history, word) for word in _searched(history, before.word)}
        if await shown(client, history) != before:
            return await _look_once(client, history)
    except httpx.HTTPStatusError as exc:
        if "Retry-After" in exc.response.headers:  # busy, and says so
            await asyncio.sleep(PAUSE_S)
            return await _look_once(client, history)
        return _fault(history, "hidden", f"status {exc.response.status_code}: {exc.response.text[:200]}"), ""
    return _judge(history, before, hits), before.word


def _searched(history: History, word: str) -> list[str]:
    recent = history.states[max(0, history.floor - OLD_WORDS) :]
    return [each for each in dict.fromkeys((word, *recent)) if each]


async def _finds(client: httpx.AsyncClient, history: History, word: str) -> bool:
    try:
        results = await found(client, history.collection, word)
    except httpx.HTTPStatusError as exc:
        if exc.response.status_code == 404:
            return False
        raise
    return any(hit["document_id"] == history.id and word in hit["text"].lower() for hit in results)


def _judge(history: History, seen: Shown, hits: dict[str, bool]) -> Fault | None:
    allowed, finds = history.allowed, [word for word, hit in hits.items() if hit]
    if seen.fault:
        return _fault(history, "mixed", seen.fault)
    if seen.word not in allowed:
        if not any(allowed):
            return _fault(history, "resurrected", "GET shows a deleted document")
        there = any(word in finds for word in allowed)
        what = "an older version" if seen.word else "404 by GET"
        return _fault(
            history, "hidden" if there or seen.word else "lost", f"{what}; the search finds {_places(history, finds)}"
        )
    if seen.word and seen.word not in finds:
        return _fault(history, "hidden", f"GET shows it, the search finds {_places(history, finds)}")
    if others := [word for word in finds if word != seen.word]:
        kind: Kind = "mixed" if seen.word else "resurrected"
        return _fault(history, kind, f"the search also finds {_places(history, others)}")
    return None


def _places(history: History, words: Iterable[str]) -> str:
    places = [history.states.index(word) - history.floor for word in words]
    return f"versions {places} (0: the acknowledged one)" if places else "nothing"


def _fault(history: History, kind: Kind, what: str) -> Fault:
    return Fault(kind=kind, document=f"{history.collection}/{history.id}", what=what)
