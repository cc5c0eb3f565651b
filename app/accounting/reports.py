"""What the ledger says: usage by group, latency quantiles, throughput, export."""

import re
import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from app.accounting.budgets import in_usd
from app.accounting.ledger import reading
from app.errors import FieldProblem, InvalidRequest

DEFAULT_SINCE = "30d"

_DURATION = re.compile(r"(\d{1,6})([mhdw])")
_UNIT = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

# In an address a plus sign stands for a space.
_LOST_PLUS = re.compile(r"(T[\d:.]+) (\d\d:\d\d)")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_FORMS = "a date (2026-11-01), a time (2026-11-01T12:00:00Z), or how long ago (90m, 24h, 7d, 4w)"


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """[since, until), in UTC."""

    since: datetime
    until: datetime

    def ms(self) -> tuple[int, int]:
        """Milliseconds since 1970."""
        return round(self.since.timestamp() * 1000), round(self.until.timestamp() * 1000)


def parse_span(since: str, until: str | None, now: datetime) -> Span:
    """`until` None: up to now, and what comes while it is read. Raises InvalidRequest naming the field."""
    begin = _moment("since", since, now)
    end = now + timedelta(seconds=1) if until is None else _moment("until", until, now)
    if begin >= end:
        raise _invalid("since", f"{since} is not before until ({end:%Y-%m-%dT%H:%M:%SZ})")
    return Span(since=begin, until=end)


def _moment(field: str, text: str, now: datetime) -> datetime:
    try:
        if match := _DURATION.fullmatch(text):
            return max(now - int(match[1]) * _UNIT[match[2]], _LONG_AGO)
        moment = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text))
        return max(moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC), _LONG_AGO)
    except OverflowError:
        return _LONG_AGO
    except ValueError as exc:
        raise _invalid(field, f"{text!r} is none of {_FORMS}") from exc


def _invalid(field: str, detail: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {detail}", (FieldProblem(f"/{field}", detail),))


GroupBy = Literal["backend", "model", "stage", "key", "day"]

PAGE = 2000
"""Calls that an export holds in memory at once."""

_GROUPS = {
    **{name: name for name in ("backend", "model", "stage", "key")},
    "day": "date(at_ms / 1000, 'unixepoch')",
}

_SUMS = """
SELECT {group} AS name, count(*), sum(outcome NOT IN ('ok', 'cancelled')), sum(requests), sum(input), sum(cached),
  sum(output), sum(thinking), sum(estimated), sum(pico),
  sum(price_source = 'unknown' AND input + output + thinking > 0), total(gpu_s),
  total(iif(gpu_s > 0, output + thinking, 0)), total(iif(gpu_s > 0, input + output + thinking, 0))
FROM calls WHERE at_ms >= ? AND at_ms < ? GROUP BY name"""

_LATENCIES = "SELECT {group}, latency_ms FROM calls WHERE at_ms >= ? AND at_ms < ? AND outcome = 'ok'"

_PAGE = """
SELECT at_ms, id, request_id, stage, backend, kind, model, key, outcome, requests, input, cached, output, thinking,
  estimated, pico, price_source, gpu_s, latency_ms, first_token_ms
FROM calls WHERE (at_ms, id) > (?, ?) AND at_ms < ? ORDER BY at_ms, id LIMIT ?"""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles (nearest rank) over the calls that succeeded, from their beginning to their end. Milliseconds."""

    p50: float
    p95: float
    p99: float


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one group. `requests` were sent for them; `failed` ones are neither ok nor cancelled.

    `cached_tokens` are a part of the input; `output_tokens` are without the thinking ones. `estimated_calls`: the
    server did not tell their tokens. `unpriced_calls` are counted as free because no price is known. A GPU's busy
    seconds are divided among the calls that ran at once; the rates per second are its measured throughput.
    """

    name: str
    calls: int
    failed: int
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    thinking_tokens: int
    estimated_calls: int
    cost_usd: float
    unpriced_calls: int
    gpu_seconds: float
    output_tokens_per_gpu_second: float | None
    tokens_per_gpu_second: float | None
    latency_ms: Latency | None


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend's GPU did in its busy seconds. `output_tokens` include thinking."""

    backend: str
    model: str
    gpu_seconds: float
    input_tokens: int
    cached_tokens: int
    output_tokens: int


class ExportedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the export; all fields are always there."""

    at: datetime
    request_id: str
    stage: str
    backend: str
    kind: str
    model: str
    key: str
    outcome: str
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    thinking_tokens: int
    estimated: bool
    cost_usd: float
    price_source: str
    gpu_seconds: float | None
    latency_ms: float
    first_token_ms: float | None


NOTHING = UsageRow(
    name="",
    calls=0,
    failed=0,
    requests=0,
    input_tokens=0,
    cached_tokens=0,
    output_tokens=0,
    thinking_tokens=0,
    estimated_calls=0,
    cost_usd=0.0,
    unpriced_calls=0,
    gpu_seconds=0.0,
    output_tokens_per_gpu_second=None,
    tokens_per_gpu_second=None,
    latency_ms=None,
)


class Groups(msgspec.Struct, frozen=True, kw_only=True):
    """Days in their order, other groups the dearest first; and all together. `unpriced` are "backend: model"."""

    rows: list[UsageRow] = []
    total: UsageRow = NOTHING
    unpriced: list[str] = []


def usage(path: Path, span: Span, group_by: GroupBy) -> Groups:
    """Raises StoreUnavailable."""
    with reading(path) as db:
        if db is None:
            return Groups()
        db.execute("BEGIN")  # so that all is of one moment
        rows, total = _rows(db, span, group_by)
        unpriced = db.execute(
            "SELECT DISTINCT backend || ': ' || model FROM calls WHERE at_ms >= ? AND at_ms < ? "
            "AND price_source = 'unknown' AND input + output + thinking > 0 ORDER BY 1",
            span.ms(),
        )
        return Groups(rows=rows, total=total, unpriced=[name for (name,) in unpriced])


def export(path: Path, span: Span, page: int = PAGE) -> Iterator[bytes]:
    """Pages of JSON lines in the order of time; never the whole ledger in memory. Raises StoreUnavailable."""
    (since, until), last = span.ms(), 0
    while True:
        with reading(path) as db:
            rows = db.execute(_PAGE, (since, last, until, page)).fetchall() if db else []
        if rows:
            yield b"".join(msgspec.json.encode(_exported(row)) + b"\n" for row in rows)
        if len(rows) < page:
            return
        since, last = rows[-1][:2]


def throughput(path: Path, span: Span) -> list[Throughput]:
    """Of every backend that has a GPU. Raises StoreUnavailable."""
    sql = (
        "SELECT backend, model, sum(gpu_s), sum(input), sum(cached), sum(output + thinking) FROM calls "
        "WHERE at_ms >= ? AND at_ms < ? AND gpu_s > 0 GROUP BY backend, model"
    )
    names = Throughput.__struct_fields__
    with reading(path) as db:
        rows = db.execute(sql, span.ms()).fetchall() if db else []
    return [Throughput(**dict(zip(names, row, strict=True))) for row in rows]


def _rows(db: sqlite3.Connection, span: Span, group: str) -> tuple[list[UsageRow], UsageRow]:
    """The groups' and all together."""
    sums = db.execute(_SUMS.format(group=_GROUPS[group]), span.ms()).fetchall()
    if not sums:
        return [], NOTHING
    latencies: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
    for name, ms in db.execute(_LATENCIES.format(group=_GROUPS[group]), span.ms()):
        latencies[name].append(ms)
    rows = [_row(values, _quantiles(latencies[values[0]])) for values in sums]
    together = ("", *(sum(column) for column in zip(*(values[1:] for values in sums), strict=True)))
    total = _row(together, _quantiles(np.concatenate([*latencies.values()])))
    return rows if group == "day" else sorted(rows, key=lambda row: (-row.cost_usd, -row.calls, row.name)), total


def _quantiles(latencies: npt.ArrayLike) -> Latency | None:
    """By nearest rank: the smallest value that so many percent of the values do not exceed."""
    ordered = np.sort(latencies)
    if not ordered.size:
        return None
    p50, p95, p99 = (float(ordered[-(-ordered.size * percent // 100) - 1]) for percent in (50, 95, 99))
    return Latency(p50=p50, p95=p95, p99=p99)


def _row(values: tuple[Any, ...], latency: Latency | None) -> UsageRow:
    name, calls, failed, requests, given, cached, output, thinking, estimated, pico, unpriced, *gpu = values
    seconds, made, moved = gpu
    return UsageRow(
        name=name,
        calls=calls,
        failed=failed,
        requests=requests,
        input_tokens=given,
        cached_tokens=cached,
        output_tokens=output,
        thinking_tokens=thinking,
        estimated_calls=estimated,
        cost_usd=in_usd(pico),
        unpriced_calls=unpriced,
        gpu_seconds=round(seconds, 6),
        output_tokens_per_gpu_second=made / seconds if seconds else None,
        tokens_per_gpu_second=moved / seconds if seconds else None,
        latency_ms=latency,
    )


def _exported(row: tuple[Any, ...]) -> ExportedCall:
    at_ms, _, *texts, requests, given, cached, output, thinking, estimated, pico, source, gpu_s, latency, first = row
    return ExportedCall(
        at=datetime.fromtimestamp(at_ms / 1000, UTC),
        **dict(zip(ExportedCall.__struct_fields__[1:8], texts, strict=True)),
        requests=requests,
        input_tokens=given,
        cached_tokens=cached,
        output_tokens=output,
        thinking_tokens=thinking,
        estimated=bool(estimated),
        cost_usd=in_usd(pico),
        price_source=source,
        gpu_seconds=gpu_s,
        latency_ms=latency,
        first_token_ms=first,
    )
