"""Whether a ledger agrees with what the servers told: the books of a storm, checked row by row."""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import msgspec

from app.backends.base import TOKENS_PER_MESSAGE, tokens_of
from app.domain import TokenCount
from tests.fakes.storm import GPU_USD_PER_HOUR, Books, Told

MOST_OUTPUT, MOST_PROMPTS = 32, 3
"""Of a request."""

OUTCOMES = {"ok", "cancelled", "timeout", "unavailable", "rate_limited", "rejected", "bad_reply", "refused"}

NEVER_ARRIVED = {"cancelled", "timeout", "unavailable"}
"""Such an attempt may have ended before the server knew of it."""

GEMINI_PICO = {"input": 250_000, "cached": 25_000, "output": 1_500_000}
"""0.25, 0.025 and 1.50 dollars a million tokens."""


class Row(NamedTuple):
    """Of the ledger's calls."""

    backend: str
    request_id: str
    outcome: str
    requests: int
    input: int
    cached: int
    output: int
    thinking: int
    estimated: int
    pico: int
    gpu_s: float | None
    at_ms: int
    latency_ms: float
    first_token_ms: float | None

    @property
    def tokens(self) -> TokenCount:
        return TokenCount(input=self.input, cached=self.cached, output=self.output, thinking=self.thinking)

    @property
    def is_certain(self) -> bool:
        """Neither we nor the caller stopped it, and the server told what it used."""
        return self.outcome not in ("cancelled", "timeout") and not self.estimated


def read_rows(ledger: Path) -> list[Row]:
    """All of the storm."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        found = db.execute("SELECT * FROM calls WHERE request_id LIKE 'storm-%' ORDER BY backend, request_id, id")
        return [Row(*(row[name] for name in Row._fields)) for row in found]


def cost_of_probes(ledger: Path) -> int:
    """Picodollars."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT coalesce(sum(pico), 0) FROM calls WHERE stage = 'probe'").fetchone()[0])


class Verdict(msgspec.Struct):
    """How many requests were compared, one backend at a time, and how."""

    exact: int = 0
    bounded: int = 0


def check_books(rows: list[Row], books: Mapping[str, Books]) -> Verdict:
    """Every row belongs to calls that a server saw, and every such call has a row.

    Of a request whose attempts at a backend all are certain, the rows' tokens are those that the server told its
    client. A request with an attempt that was stopped, or whose tokens nobody told, is booked within what was set
    aside for it.
    """
    verdict = Verdict()
    seen = Counter[str]()
    for (backend, request_id), group in groupby(rows, key=lambda row: (row.backend, row.request_id)):
        attempts, told = list(group), books[backend].get(request_id, Told())
        seen[backend] += told.calls > 0
        _check_request(attempts, told, verdict)
    for backend, kept in books.items():
        asked = sum(told.calls > 0 for request_id, told in kept.items() if request_id)
        assert asked == seen[backend], f"{backend} was called for requests that the ledger does not have"
    return verdict


def _check_request(attempts: list[Row], told: Told, verdict: Verdict) -> None:
    assert {row.outcome for row in attempts} <= OUTCOMES
    may_lack = sum(row.outcome in NEVER_ARRIVED for row in attempts)
    assert told.calls + may_lack >= len(attempts), (attempts, told)
    if all(row.is_certain for row in attempts):
        booked = sum((row.tokens for row in attempts), TokenCount())
        assert booked == told.tokens, (attempts, told)
        if all(row.outcome == "ok" for row in attempts):
            assert sum(row.requests for row in attempts) == told.calls, (attempts, told)
        verdict.exact += 1
    else:
        for row in attempts:
            _check_bounds(row, told)
        verdict.bounded += 1


def _check_bounds(row: Row, told: Told) -> None:
    prompt = TOKENS_PER_MESSAGE + tokens_of(text_for(row.request_id))
    assert row.input <= max(told.tokens.input, MOST_PROMPTS * prompt), (row, told)
    assert row.output + row.thinking <= max(told.tokens.output + told.tokens.thinking, MOST_OUTPUT), (row, told)
    if row.first_token_ms is not None:
        assert row.input > 0, row


def text_for(request_id: str, number: int = 0) -> str:
    """What a request says; it is the same for all, but for the id and the number of the prompt."""
    return f"{request_id} prompt {number}: since when?"


def check_dollars(rows: list[Row]) -> None:
    """Gemini by the token, vLLM by the second, Ollama nothing."""
    for row in rows:
        if row.backend == "gemini":
            assert row.pico == (
                (row.input - row.cached) * GEMINI_PICO["input"]
                + row.cached * GEMINI_PICO["cached"]
                + (row.output + row.thinking) * GEMINI_PICO["output"]
            )
        elif row.backend == "vllm":
            assert row.gpu_s is not None
            assert abs(row.pico - row.gpu_s * GPU_USD_PER_HOUR / 3600 * 10**12) <= 1
        else:
            assert row.pico == 0


def busy_s(rows: list[Row]) -> float:
    """The seconds in which any of the calls ran, by the times in the ledger."""
    spans = sorted((row.at_ms - row.latency_ms, float(row.at_ms)) for row in rows)
    busy, until = 0.0, 0.0
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy / 1000
