"""What Prometheus reads of an application: what is counted as it happens, and the text of all metrics."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from threading import Lock
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from app.domain import TokenCount
from app.observability import families
from app.observability.families import Family

MEDIA_TYPE = "text/plain; version=0.0.4"
"""Of the text, which is UTF-8."""

OTHER = "other"
"""The value of a label for everything that has none of its own."""

UNKNOWN = "unknown"
"""The model of a backend that has not said which one it has."""

CLIENT_GONE = "499"
"""The status of a request whose client left before it was answered; nginx's number."""

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Of the buckets of durations: from a millisecond, as of retrieval, to a minute, as of a long answer."""

KNOWN_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))

MAX_MODELS = 8
"""Of each backend: a server that names another model with each probe makes no more series than this."""

Reading = tuple[Family, tuple[str, ...], float]
"""A family, the values of its labels, and its value at this moment."""


class Names:
    """The first `most` values of a label that come; every later one is "other"."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, value: str) -> str:
        """`value`, or "other"."""
        if value not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(value)
        return value


class CallSeen(Protocol):
    """What is read of an `app.accounting.ledger.CallRecord`."""

    @property
    def backend(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def latency_ms(self) -> float: ...
    @property
    def first_token_ms(self) -> float | None: ...


class Counts:
    """A counter: a number for each combination of its labels' values."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._numbers: dict[tuple[str, ...], float] = {}
        self._one_counts = Lock()

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Count `amount` more, in the order of the family's labels."""
        with self._one_counts:
            self._numbers[labels] = self._numbers.get(labels, 0.0) + amount

    def lines(self) -> Iterator[str]:
        """The text of all of them; nothing where nothing was counted."""
        with self._one_counts:
            numbers = list(self._numbers.items())
        return lines_of(self._family, numbers)


class Durations:
    """A histogram of seconds for each combination of its labels' values, in buckets up to `BOUNDS_S`."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        self._one_counts = Lock()

    def observe(self, *labels: str, seconds: float) -> None:
        """Count one that took so long."""
        bucket = bisect_left(BOUNDS_S, seconds)
        with self._one_counts:
            if labels not in self._counts:
                self._counts[labels], self._sums[labels] = [0] * (len(BOUNDS_S) + 1), 0.0
            self._counts[labels][bucket] += 1
            self._sums[labels] += seconds

    def lines(self) -> Iterator[str]:
        """The text of all of them; nothing where nothing was counted."""
        with self._one_counts:
            rows = [(labels, tuple(counts), self._sums[labels]) for labels, counts in self._counts.items()]
        if rows:
            yield _heading(self._family)
        name = self._family.name
        for labels, counts, total_s in rows:
            pairs = _pairs(self._family, labels)
            begin = f"{name}_bucket{{{pairs}," if pairs else f"{name}_bucket{{"
            for bound, count in zip(_BOUNDS, accumulate(counts), strict=True):
                yield f'{begin}le="{bound}"}} {count}.0\n'
            yield f"{name}_count{_braced(pairs)} {sum(counts)}.0\n"
            yield f"{name}_sum{_braced(pairs)} {_number(total_s)}\n"


class Metrics:
    """The metrics of one application; an `app.observability.timing.Observer`. May be used from several threads.

    They are counted and written here, not by `prometheus_client`: it makes an object of each sample of each scrape,
    and another time series of each one that says when it was made.
    """

    def __init__(self) -> None:
        self._process = CollectorRegistry()
        for of_the_process in (PlatformCollector, ProcessCollector, GCCollector):
            of_the_process(registry=self._process)
        self._models: dict[str, Names] = {}
        self._in_progress = 0
        self._requests = Counts(families.REQUESTS)
        self._refused = Counts(families.REFUSED)
        self._request_time = Durations(families.REQUEST_TIME)
        self._stage_time = Durations(families.STAGE_TIME)
        self._degraded = Counts(families.DEGRADED)
        self._calls = Counts(families.CALLS)
        self._call_time = Durations(families.CALL_TIME)
        self._first_token = Durations(families.FIRST_TOKEN_TIME)
        self._tokens = Counts(families.TOKENS)
        self._dollars = Counts(families.DOLLARS)

    def request_begun(self) -> None:
        """A request has come. Only the event loop says so."""
        self._in_progress += 1

    def request_ended(self, method: str, route: str | None, status: int | None, seconds: float) -> None:
        """It was answered. `route` None: no route serves it; `status` None: nobody was there to be answered."""
        method = method if method in KNOWN_METHODS else OTHER
        route = route or OTHER
        self._in_progress -= 1
        self._requests.add(method, route, CLIENT_GONE if status is None else str(status))
        self._request_time.observe(route, seconds=seconds)

    def refused(self, kind: str) -> None:
        """A caller was not let in."""
        self._refused.add(kind)

    def stage(self, name: str, seconds: float) -> None:
        """See `Observer`."""
        self._stage_time.observe(name, seconds=seconds)

    def degraded(self, stage: str) -> None:
        """See `Observer`."""
        self._degraded.add(stage)

    def called(self, call: CallSeen, tokens: TokenCount, usd: float) -> None:
        """A call of a model is over."""
        backend = call.backend
        model = self._models.setdefault(backend, Names(MAX_MODELS)).of(call.model or UNKNOWN)
        self._calls.add(backend, model, call.outcome)
        self._call_time.observe(backend, model, seconds=call.latency_ms / 1000)
        if call.first_token_ms is not None:
            self._first_token.observe(backend, model, seconds=call.first_token_ms / 1000)
        cached = tokens.cached or 0
        classes = {
            "input": tokens.input - cached,
            "cached": cached,
            "output": tokens.output,
            "thinking": tokens.thinking,
        }
        for name, count in classes.items():
            if count > 0:
                self._tokens.add(backend, model, name, amount=count)
        self._dollars.add(backend, model, amount=usd)

    def text(self, readings: Iterable[Reading]) -> bytes:
        """Everything in Prometheus' text format, with `readings` of the state at this moment. Blocks for
        milliseconds.
        """
        by_family: dict[Family, list[tuple[tuple[str, ...], float]]] = {
            families.IN_PROGRESS: [((), float(self._in_progress))]
        }
        for family, labels, value in readings:
            by_family.setdefault(family, []).append((labels, value))
        counted: tuple[Counts | Durations, ...] = (
            *(self._requests, self._refused, self._request_time, self._stage_time, self._degraded),
            *(self._calls, self._call_time, self._first_token, self._tokens, self._dollars),
        )
        lines = [line for one in counted for line in one.lines()]
        lines += [line for family, rows in by_family.items() for line in lines_of(family, rows)]
        return "".join(lines).encode() + generate_latest(self._process)


def lines_of(family: Family, rows: Iterable[tuple[tuple[str, ...], float]]) -> Iterator[str]:
    """The text of a counter or a gauge, of the values of whose labels and their numbers `rows` are; "" for none."""
    heading = _heading(family)
    for labels, number in rows:
        yield f"{heading}{family.name}{_braced(_pairs(family, labels))} {_number(number)}\n"
        heading = ""


def _heading(family: Family) -> str:
    return f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"


def _pairs(family: Family, values: Iterable[str]) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in zip(family.labels, values, strict=True)])


def _braced(pairs: str) -> str:
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    if "\\" in value or "\n" in value or '"' in value:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value


def _number(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return {float("inf"): "+Inf", float("-inf"): "-Inf"}.get(value, "NaN")
    return repr(float(value))


_BOUNDS = (*map(_number, BOUNDS_S), "+Inf")
