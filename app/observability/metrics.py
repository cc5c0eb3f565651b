"""What Prometheus reads of an application: what is counted as it happens, and the text of all metrics."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

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


class Metrics:
    """The metrics of one application; an `app.observability.timing.Observer`. May be used from several threads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._scraped = _Scraped()
        self._registry.register(self._scraped)
        for of_the_process in (PlatformCollector, ProcessCollector, GCCollector):
            of_the_process(registry=self._registry)
        self._models: dict[str, Names] = {}
        self._requests = self._counter(families.REQUESTS)
        self._request_time = self._histogram(families.REQUEST_TIME)
        self._in_progress = Gauge(families.IN_PROGRESS.name, families.IN_PROGRESS.help, registry=self._registry)
        self._stage_time = self._histogram(families.STAGE_TIME)
        self._degraded = self._counter(families.DEGRADED)
        self._calls = self._counter(families.CALLS)
        self._call_time = self._histogram(families.CALL_TIME)
        self._first_token = self._histogram(families.FIRST_TOKEN_TIME)
        self._tokens = self._counter(families.TOKENS)
        self._dollars = self._counter(families.DOLLARS)

    def request_begun(self) -> None:
        """A request has come."""
        self._in_progress.inc()

    def request_ended(self, method: str, route: str | None, status: int | None, seconds: float) -> None:
        """It was answered. `route` None: no route serves it; `status` None: nobody was there to be answered."""
        method = method if method in KNOWN_METHODS else OTHER
        route = route or OTHER
        self._in_progress.dec()
        self._requests.labels(method, route, CLIENT_GONE if status is None else str(status)).inc()
        self._request_time.labels(route).observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """See `Observer`."""
        self._stage_time.labels(name).observe(seconds)

    def degraded(self, stage: str) -> None:
        """See `Observer`."""
        self._degraded.labels(stage).inc()

    def called(self, call: CallSeen, tokens: TokenCount, usd: float) -> None:
        """A call of a model is over."""
        backend = call.backend
        model = self._models.setdefault(backend, Names(MAX_MODELS)).of(call.model or UNKNOWN)
        self._calls.labels(backend, model, call.outcome).inc()
        self._call_time.labels(backend, model).observe(call.latency_ms / 1000)
        if call.first_token_ms is not None:
            self._first_token.labels(backend, model).observe(call.first_token_ms / 1000)
        classes = {
            "input": tokens.input - tokens.cached,
            "cached": tokens.cached,
            "output": tokens.output,
            "thinking": tokens.thinking,
        }
        for name, count in classes.items():
            if count > 0:
                self._tokens.labels(backend, model, name).inc(count)
        self._dollars.labels(backend, model).inc(usd)

    def text(self, readings: Iterable[Reading]) -> bytes:
        """Everything in Prometheus' text format, with `readings` of the state at this moment. Blocks for
        milliseconds.
        """
        self._scraped.readings = tuple(readings)
        return text_of(self._registry.collect())

    def _counter(self, family: Family) -> Counter:
        return Counter(family.name, family.help, family.labels, registry=self._registry)

    def _histogram(self, family: Family) -> Histogram:
        return Histogram(family.name, family.help, family.labels, registry=self._registry, buckets=BOUNDS_S)


class _Scraped(Collector):
    """The readings of the latest scrape as metrics of the registry."""

    def __init__(self) -> None:
        self.readings: tuple[Reading, ...] = ()

    def collect(self) -> Iterable[Metric]:
        metrics: dict[Family, CounterMetricFamily | GaugeMetricFamily] = {}
        for family, labels, value in self.readings:
            if family not in metrics:
                kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
                metrics[family] = kind(family.name, family.help, labels=family.labels)
            metrics[family].add_metric(labels, value)
        return metrics.values()


def text_of(metrics: Iterable[Metric]) -> bytes:
    """The text format, as `prometheus_client.generate_latest` writes it, in a third of the time.

    That one checks every name of every sample; ours are valid by their families.
    """
    return "".join(line for metric in metrics for line in _lines(metric)).encode()


def _lines(metric: Metric) -> Iterator[str]:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    yield f"# HELP {name} {_escaped(metric.documentation, quote=False)}\n"
    yield f"# TYPE {name} {metric.type}\n"
    for sample in metric.samples:
        if not sample.name.endswith("_created"):  # it would double the series, and text format has no use for it
            yield f"{sample.name}{_labels(sample.labels)} {_number(sample.value)}\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = ",".join([f'{name}="{_escaped(value)}"' for name, value in labels.items()])
    return f"{{{pairs}}}"


def _escaped(value: str, *, quote: bool = True) -> str:
    if "\\" in value or "\n" in value or '"' in value:
        value = value.replace("\\", r"\\").replace("\n", r"\n")
        return value.replace('"', r"\"") if quote else value
    return value


def _number(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return {float("inf"): "+Inf", float("-inf"): "-Inf"}.get(value, "NaN")
    return repr(float(value))
