"""Candidates as a model may read them. Pure."""

import re
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from app.backends.estimating import BYTES_PER_TOKEN, tokens_of
from app.quoting.neutral import break_up, visible
from app.ranking.cutting import Search, cut
from app.ranking.shapes import Candidate, Prepared
from app.ranking.suspicion import SUSPECTED_INJECTION, hides, tells
from app.ranking.twins import first_alike

POINTWISE_TOKENS = 256
"""Of a passage that is read alone."""

WINDOW_TOKENS = 160
"""Of a passage that is read beside others."""

TITLE_TOKENS = 24

_REMEMBERED = 2_000
"""Texts that were looked through: popular passages come again with every query that finds them."""

_NUMBER = re.compile(r"\d+")


class _Seen(NamedTuple):
    """A candidate without what nobody sees."""

    candidate: Candidate
    title: str
    text: str
    hidden: bool


def prepare(query: str, candidates: Sequence[Candidate], *, tokens: int = POINTWISE_TOKENS) -> list[Prepared]:
    """One for each text that differs, by prior and then by id; each has at most `tokens` (estimated), title included.

    Texts are twins if they are equal but for case and punctuation, or nearly so, and hold the same numbers and the same
    words of the query. For the smaller window of a duel, prepare its candidates once more. The result does not depend
    on the order of the candidates.
    """
    search = Search(query)
    seen = [_seen(candidate) for candidate in sorted(candidates, key=lambda one: (-one.prior, one.id))]
    twins = _twins([one.text for one in seen], seen, search)
    leaders = [seen[index] for index in twins]
    windows = _windows(search, leaders, tokens)
    return [
        _prepared(leader, window, tuple(seen[twin].candidate.id for twin in others))
        for leader, window, others in zip(leaders, windows, twins.values(), strict=True)
    ]


def _seen(candidate: Candidate) -> _Seen:
    return _Seen(candidate, *_visible(candidate.title, candidate.text))


@lru_cache(maxsize=_REMEMBERED)
def _visible(title: str, text: str) -> tuple[str, str, bool]:
    """Title and text without what nobody sees, and whether letters were hidden. No title that the text repeats."""
    shown, title = visible(text), " ".join(visible(title).split())
    hidden = shown != text and hides(text)
    shown = shown.strip()
    repeated = shown[: len(title)].casefold() == title.casefold()
    return "" if repeated else _clipped(title), shown, hidden


def _clipped(title: str) -> str:
    if tokens_of(title) <= TITLE_TOKENS:
        return title
    clipped = title.encode("utf-8", "replace")[: TITLE_TOKENS * BYTES_PER_TOKEN].decode("utf-8", "ignore")
    return clipped.rpartition(" ")[0] or clipped


def _twins(texts: Sequence[str], seen: Sequence[_Seen], search: Search) -> dict[int, list[int]]:
    """Each leader with its twins, by index."""

    @cache
    def facts(index: int) -> tuple[tuple[str, ...], frozenset[int]]:
        whole = f"{seen[index].title}\n{texts[index]}"
        return tuple(_NUMBER.findall(whole)), search.known(whole)

    twins: dict[int, list[int]] = {}
    for index, first in enumerate(first_alike(texts, facts)):
        twins.setdefault(first, [])
        if first != index:
            twins[first].append(index)
    return twins


def _windows(search: Search, seen: Sequence[_Seen], tokens: int) -> Iterator[str]:
    """Each text, cut if it must be. The rarity of words is that among these texts."""
    room = [tokens - tokens_of(one.title) - 1 if one.title else tokens for one in seen]
    if all(tokens_of(one.text) <= most for one, most in zip(seen, room, strict=True)):
        yield from (one.text for one in seen)
        return
    mentioned = [search.mentions(one.text) for one in seen]
    weights = search.weights(mentioned)
    for one, most, mentions in zip(seen, room, mentioned, strict=True):
        yield cut(one.text, most, mentions, weights)


def _prepared(seen: _Seen, window: str, twins: tuple[str, ...]) -> Prepared:
    candidate = seen.candidate
    text, suspicious = _harmless(f"{seen.title}\n{window}" if seen.title else window)
    return Prepared(
        id=candidate.id,
        text=text,
        prior=candidate.prior,
        twins=twins,
        flags=(SUSPECTED_INJECTION,) if seen.hidden or suspicious else (),
    )


@lru_cache(maxsize=_REMEMBERED)
def _harmless(text: str) -> tuple[str, bool]:
    """The text with control tokens broken up, and whether it shows a telltale."""
    return break_up(text), tells(text)
