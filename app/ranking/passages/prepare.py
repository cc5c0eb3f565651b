"""Candidates as a model may read them. Pure."""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from app.backends.token_estimates import BYTES_PER_TOKEN, tokens_of
from app.ranking.injection.detector import SUSPECTED_INJECTION, hides, tells
from app.ranking.models import Candidate, Prepared
from app.ranking.passages.excerpts import Search, cut
from app.ranking.passages.near_duplicates import first_alike
from app.text.control_tokens import break_up, visible

PASSAGE_TOKENS = 320
"""Of a passage: our own chunks are shorter, so that only passages from elsewhere are cut."""

WINDOW_TOKENS = 256
"""Of a passage in a window of twenty, which is to fit into a context of 8,000."""

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


def prepare(query: str, candidates: Sequence[Candidate], *, tokens: int = PASSAGE_TOKENS) -> list[Prepared]:
    """One for each text that differs, by prior and then by id; each has at most `tokens` (estimated), title included.

    Texts are twins if they are equal but for case and punctuation, or nearly so, and hold the same numbers and the same
    words of the query, and both or neither are suspicious. The result does not depend on the order of the candidates,
    and what is shown of one does not depend on the others.
    """
    search = Search(query)
    seen = [_seen(candidate) for candidate in sorted(candidates, key=lambda one: (-one.prior, one.id))]
    twins = _twins(seen, search)
    return [
        _prepared(seen[leader], _shown(search, seen[leader], tokens), tuple(seen[twin].candidate.id for twin in others))
        for leader, others in twins.items()
    ]


def _seen(candidate: Candidate) -> _Seen:
    return _Seen(candidate, *_visible(candidate.title, candidate.text))


@lru_cache(maxsize=_REMEMBERED)
def _visible(title: str, text: str) -> tuple[str, str, bool]:
    """Title (none that the text repeats) and text without what nobody sees, and whether letters were hidden there."""
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


def _twins(seen: Sequence[_Seen], search: Search) -> dict[int, list[int]]:
    """Each leader with its twins, by index."""

    @cache
    def facts(index: int) -> tuple[tuple[str, ...], frozenset[int], bool]:
        whole = f"{seen[index].title}\n{seen[index].text}"
        return tuple(_NUMBER.findall(whole)), search.known(whole), seen[index].hidden or _harmless(whole)[1]

    twins: dict[int, list[int]] = {}
    for index, first in enumerate(first_alike([one.text for one in seen], facts)):
        twins.setdefault(first, [])
        if first != index:
            twins[first].append(index)
    return twins


def _shown(search: Search, seen: _Seen, tokens: int) -> str:
    """Title and text, cut if they must be."""
    if not seen.title:
        return cut(search, seen.text, tokens)
    return f"{seen.title}\n{cut(search, seen.text, tokens - tokens_of(seen.title) - 1)}"


def _prepared(seen: _Seen, shown: str, twins: tuple[str, ...]) -> Prepared:
    candidate = seen.candidate
    text, suspicious = _harmless(shown)
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
