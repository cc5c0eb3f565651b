"""Reports from the ledger: usage by group, latency quantiles, throughput, export."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from app.accounting.budgets import in_usd
from app.accounting.ledger import Reading
from app.errors import FieldProblem, InvalidRequest
from indexing.tables import Connection

DEFAULT_SINCE = "30d"

_DURATION = re.compile(r"(\d{1,6})([mhdw])")
_UNIT = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

# In a query string a plus sign means a space, so "+01:00" arrives as " 01:00".
_LOST_PLUS = re.compile(r"(T[\d:.]+) (\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMS = "a date (2026-11-01), a time (2026-11-01T12:00:00Z), or how long ago (90m, 24h, 7d, 4w)"


Span = tuple[datetime, datetime]
"""[since, until), in UTC."""


def parse_span(since: str, until: str | None, now: datetime) -> Span:
    """`until` None: up to now, including calls that end during the query. Raises InvalidRequest naming the field."""
    begin = _moment("since", since, now)
    end = now + timedelta(seconds=1) if until is None else _moment("until", until, now)
    if begin >= end:
        raise _invalid("since", f"{since} is not before until ({end:%Y-%m-%dT%H:%M:%SZ})")
    return begin, end


def _milliseconds(span: Span) -> tuple[int, int]:
    """Since 1970."""
    since, until = span
    return round(since.timestamp() * 1000), round(until.timestamp() * 1000)


def _moment(field: str, text: str, now: datetime) -> datetime:
    try:
        if match := _DURATION.fullmatch(text):
            return max(now - int(match[1]) * _UNIT[match[2]], _EPOCH)
        moment = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text))
        return max(moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC), _EPOCH)
    except OverflowError:
        return _EPOCH
    except ValueError as exc:
        raise _invalid(field, f"{text!r} is not {_FORMS}") from exc


def _invalid(field: str, detail: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {detail}", (FieldProblem(f"/{field}", detail),))


GroupBy = Literal["backend", "model", "stage", "key", "day", "replica"]

_DAY_MS = 86_400_000

PAGE = 2000
"""Calls that an export holds in memory at a time."""

_GROUPS = {
    **{name: name for name in ("backend", "model", "stage", "key")},
    "replica": "backend || CASE WHEN replica > 0 THEN ' ' || replica ELSE '' END",
    "day": f"at_ms / {_DAY_MS}",  # days since 1970: a hundredth of the time that dates of two million calls take
}

_WHOLE = (
    "1",
    "CASE WHEN outcome NOT IN ('ok', 'cancelled') THEN 1 ELSE 0 END",
    *("requests", "input", "cached", "output", "thinking", "estimated", "pico"),
    "CASE WHEN price_source = 'unknown' AND input + output + thinking > 0 THEN 1 ELSE 0 END",
    "CASE WHEN gpu_s > 0 THEN output + thinking ELSE 0 END",
    "CASE WHEN gpu_s > 0 THEN input + output + thinking ELSE 0 END",
)
"""What is summed up, as integers: PostgreSQL's sums of large ones are decimals if nobody says otherwise."""

_SUMS = f"""
SELECT {{group}} AS name, {", ".join(f"CAST(sum({column}) AS BIGINT)" for column in _WHOLE)}, coalesce(sum(gpu_s), 0.0)
FROM calls WHERE at_ms >= ? AND at_ms < ?{{mine}} GROUP BY 1 ORDER BY 1"""  # noqa: S608

_LATENCIES = """
SELECT name, number, place, latency_ms FROM (
  SELECT name, latency_ms, row_number() OVER (PARTITION BY name ORDER BY latency_ms) AS place,
    count(*) OVER (PARTITION BY name) AS number
  FROM (SELECT {group} AS name, latency_ms FROM calls WHERE at_ms >= ? AND at_ms < ?{mine} AND outcome = 'ok') AS calls
) AS ranked
WHERE place IN ((number * 50 + 99) / 100, (number * 95 + 99) / 100, (number * 99 + 99) / 100)"""
"""Quantiles by nearest rank. The other calls stay where they are, as there may be millions."""

_PERCENTS = (50, 95, 99)

_MINE = " AND key = ?"
"""Of one key. A parameter that may be none would keep PostgreSQL from every plan that is quick."""

_PAGE = """
SELECT at_ms, id, request_id, stage, backend, kind, model, key, outcome, requests, input, cached, output, thinking,
  estimated, pico, price_source, gpu_s, latency_ms, first_token_ms, replica
FROM calls WHERE (at_ms, id) > (?, ?) AND at_ms < ?{mine} ORDER BY at_ms, id LIMIT ?"""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles (nearest rank) of the duration of successful calls, in milliseconds."""

    p50: float
    p95: float
    p99: float


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one group. `requests` counts what was sent for them; `failed` excludes cancelled calls.

    `cached_tokens` are included in `input_tokens`; `output_tokens` excludes `thinking_tokens`. `estimated_calls`: the
    server did not report their tokens. `unpriced_calls` are counted as free because no price is known. A GPU's busy
    seconds are divided among the calls that ran at the same time; the rates per second are its measured throughput.
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
    """What a backend's GPU processed in its busy seconds. `output_tokens` includes thinking."""

    backend: str
    model: str
    gpu_seconds: float
    input_tokens: int
    cached_tokens: int
    output_tokens: int


class ExportedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the export; every field is always present. `replica` is the number of the server of a backend that has
    several, else 0.
    """

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
    replica: int


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


def usage(
    reading: Reading, span: Span, group_by: GroupBy, key: str | None = None
) -> tuple[list[UsageRow], UsageRow, list[str]]:
    """The rows of the groups, of all keys or of one; their total, and the "backend: model" whose calls have no known
    price. Days come in their order, other groups the most expensive first. Raises StoreUnavailable.
    """
    with reading() as db:
        if db is None:
            return [], NOTHING, []
        rows, total = _rows(db, span, group_by, key)
        mine, keys = _of(key)
        unpriced = db.execute(
            f"SELECT DISTINCT backend || ': ' || model FROM calls WHERE at_ms >= ? AND at_ms < ?{mine} "  # noqa: S608
            "AND price_source = 'unknown' AND input + output + thinking > 0 ORDER BY 1",
            (*_milliseconds(span), *keys),
        )
        return rows, total, [name for (name,) in unpriced]


def export(reading: Reading, span: Span, page: int = PAGE, key: str | None = None) -> Iterator[bytes]:
    """Pages of JSON lines in order of time; the ledger is never in memory as a whole. Raises StoreUnavailable."""
    (since, until), last = _milliseconds(span), 0
    mine, keys = _of(key)
    while True:
        with reading() as db:
            rows = db.execute(_PAGE.format(mine=mine), (since, last, until, *keys, page)).fetchall() if db else []
        if rows:
            yield b"".join(msgspec.json.encode(_exported(row)) + b"\n" for row in rows)
        if len(rows) < page:
            return
        since, last = rows[-1][:2]


def throughput(reading: Reading, span: Span) -> list[Throughput]:
    """The throughput of every backend with a GPU. Raises StoreUnavailable."""
    sql = (
        "SELECT backend, model, sum(gpu_s), CAST(sum(input) AS BIGINT), CAST(sum(cached) AS BIGINT), "
        "CAST(sum(output + thinking) AS BIGINT) FROM calls "
        "WHERE at_ms >= ? AND at_ms < ? AND gpu_s > 0 GROUP BY backend, model ORDER BY 1, 2"
    )
    names = Throughput.__struct_fields__
    with reading() as db:
        rows = db.execute(sql, _milliseconds(span)).fetchall() if db else []
    return [Throughput(**dict(zip(names, row, strict=True))) for row in rows]


def _rows(db: Connection, span: Span, group: str, key: str | None) -> tuple[list[UsageRow], UsageRow]:
    """The groups, and all of them together."""
    mine, keys = _of(key)
    parameters = (*_milliseconds(span), *keys)
    sums = db.execute(_SUMS.format(group=_GROUPS[group], mine=mine), parameters).fetchall()
    if not sums:
        return [], NOTHING
    found, whole = (
        _latencies(db.execute(_LATENCIES.format(group=by, mine=mine), parameters)) for by in (_GROUPS[group], "0")
    )
    rows = [_row(values, found.get(values[0])) for values in sums]
    total = _row(("", *(sum(column) for column in zip(*(values[1:] for values in sums), strict=True))), whole.get(0))
    if group == "day":
        return [msgspec.structs.replace(row, name=_date(int(row.name))) for row in rows], total
    return sorted(rows, key=lambda row: (-row.cost_usd, -row.calls, row.name)), total


def _of(key: str | None) -> tuple[str, tuple[str, ...]]:
    """What a statement says of the key, and its parameters."""
    return ("", ()) if key is None else (_MINE, (key,))


def _latencies(rows: Iterable[tuple[Any, ...]]) -> dict[Any, Latency]:
    """By group. Where a group has few calls, quantiles fall on the same one."""
    places: defaultdict[Any, list[tuple[int, int, float]]] = defaultdict(list)
    for name, number, place, ms in rows:
        places[name].append((number, place, ms))
    return {
        name: Latency(**{f"p{percent}": _at(found, percent) for percent in _PERCENTS}) for name, found in places.items()
    }


def _at(found: Sequence[tuple[int, int, float]], percent: int) -> float:
    """By nearest rank: the smallest value that is not exceeded by that percentage of the values."""
    return next(ms for number, place, ms in found if place == (number * percent + 99) // 100)


def _date(day: int) -> str:
    """A day since 1970."""
    return f"{_EPOCH + timedelta(days=day):%Y-%m-%d}"


def _row(values: tuple[Any, ...], latency: Latency | None) -> UsageRow:
    name, calls, failed, requests, given, cached, output, thinking, estimated, pico, unpriced, *gpu = values
    made, moved, seconds = gpu
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
    (
        at_ms,
        _,
        *texts,
        requests,
        given,
        cached,
        output,
        thinking,
        estimated,
        pico,
        source,
        gpu_s,
        latency,
        first,
        replica,
    ) = row
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
        replica=replica,
    )
