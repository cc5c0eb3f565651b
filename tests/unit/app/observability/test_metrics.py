"""What is counted, under which labels, and the text of it."""

from threading import Thread

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from app.domain import TokenCount
from app.observability import families
from app.observability.metrics import BOUNDS_S, MAX_MODELS, Counts, Durations, Metrics, lines_of
from tests.fakes.scrape import FAMILIES, samples


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a model that is over."""

    backend: str = "gemma"
    model: str = "gemma-3"
    outcome: str = "ok"
    latency_ms: float = 200.0
    first_token_ms: float | None = None


def test_every_family_is_written_with_its_labels() -> None:
    """After something of each kind has happened, the text has all families of the table and no other of ours."""
    metrics = Metrics()
    metrics.request_begun()
    metrics.request_ended("POST", "/search", 200, 0.02)
    metrics.refused("key")
    metrics.stage("embed", 0.001)
    metrics.degraded("rank")
    metrics.called(Call(first_token_ms=50.0), TokenCount(input=10, cached=4, output=2, thinking=1), 0.5)
    event = {"winnow_requests", "winnow_request_duration", "winnow_stage", "winnow_degraded", "winnow_upstream"}
    read = [one for one in FAMILIES if not one.name.startswith(tuple(event))]
    text = metrics.text([(family, tuple(map(str, range(len(family.labels)))), 1.0) for family in read]).decode()
    written = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("winnow_"):
            labels = {name for sample in family.samples for name in sample.labels} - {"le"}
            name = f"{family.name}_total" if family.type == "counter" else family.name
            written[name] = (family.type, family.documentation, labels)
    assert written == {family.name: (family.kind, family.help, set(family.labels)) for family in FAMILIES}


def test_a_call_counts_its_tokens_once() -> None:
    """The classes add up to what was used: cached tokens are not input tokens as well."""
    metrics = Metrics()
    metrics.called(Call(), TokenCount(input=10, cached=4, output=2, thinking=1), 0.25)
    metrics.called(Call(outcome="timeout"), TokenCount(), 0.0)
    found = samples(metrics.text([]))
    model = {"backend": "gemma", "model": "gemma-3"}
    tokens = {labels["class"]: value for labels, value in found["winnow_upstream_tokens_total"]}
    assert tokens == {"input": 6.0, "cached": 4.0, "output": 2.0, "thinking": 1.0}
    assert found["winnow_upstream_cost_usd_total"] == [(model, 0.25)]
    assert found["winnow_upstream_calls_total"] == [
        ({**model, "outcome": "ok"}, 1.0),
        ({**model, "outcome": "timeout"}, 1.0),
    ]


def test_a_flood_of_odd_values_makes_no_series() -> None:
    """10,000 paths, methods and models are a handful of series: what has no template or is too much is "other"."""
    metrics = Metrics()
    for number in range(10_000):
        metrics.request_begun()
        metrics.request_ended(f"M{number}", None, 404, 0.001)
        metrics.called(Call(model=f"model-{number}"), TokenCount(input=1), 0.0)
    found = samples(metrics.text([]))
    assert found["winnow_requests_total"] == [({"method": "other", "route": "other", "status": "404"}, 10_000.0)]
    models = {labels["model"]: value for labels, value in found["winnow_upstream_calls_total"]}
    assert len(models) == MAX_MODELS + 1
    assert models["other"] == 10_000 - MAX_MODELS
    assert sum(map(len, found.values())) < 500


def test_applications_share_no_metrics() -> None:
    """What one has counted the other does not know."""
    one, other = Metrics(), Metrics()
    one.degraded("rank")
    assert "winnow_degraded_total" in samples(one.text([]))
    assert "winnow_degraded_total" not in samples(other.text([]))


def test_a_client_that_left_has_a_status_of_its_own() -> None:
    """It was answered by nobody."""
    metrics = Metrics()
    metrics.request_begun()
    metrics.request_ended("POST", "/answer", None, 1.0)
    found = samples(metrics.text([]))
    assert found["winnow_requests_total"][0][0]["status"] == "499"
    assert found["winnow_requests_in_progress"] == [({}, 0.0)]


def split(text: bytes) -> list[tuple[str, str]]:
    """The lines, whose numbers the library may spell otherwise."""
    lines = [line.rpartition(" ") for line in text.decode("utf-8", "surrogatepass").split("\n")]
    return [(head, tail if head.startswith("#") else repr(float(tail or 0))) for head, _, tail in lines]


@given(st.lists(st.tuples(st.text(), st.floats()), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
def test_the_text_is_what_the_library_would_write(values: list[tuple[str, float]]) -> None:
    """Whatever stands in a label: the same lines."""
    family = families.Family("winnow_odd", "gauge", "Odd values.", ("name",))

    class Given:
        def collect(self) -> list[GaugeMetricFamily]:
            library = GaugeMetricFamily(family.name, family.help, labels=family.labels)
            for name, value in values:
                library.add_metric((name,), value)
            return [library]

    ours = "".join(lines_of(family, [((name,), value) for name, value in values]))
    assert split(ours.encode("utf-8", "surrogatepass")) == split(generate_latest(Given()))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([*BOUNDS_S, 0.0, 0.3, 61.0])), min_size=1))
def test_a_histogram_has_the_buckets_that_the_library_would_give_it(observed: list[tuple[str, float]]) -> None:
    """A duration on a bound lies below it, each bucket holds those before it, and the last one all."""
    registry = CollectorRegistry()
    family = families.STAGE_TIME
    library = Histogram(family.name, family.help, family.labels, registry=registry, buckets=BOUNDS_S)
    ours = Durations(family)
    for stage, seconds in observed:
        library.labels(stage).observe(seconds)
        ours.observe(stage, seconds=seconds)
    theirs = {name: rows for name, rows in samples(generate_latest(registry)).items() if not name.endswith("_created")}
    assert samples("".join(ours.lines()).encode()) == theirs


def test_threads_that_count_at_once_lose_nothing() -> None:
    """Also while the text is being written."""
    counts, durations = Counts(families.DEGRADED), Durations(families.STAGE_TIME)

    def count(name: str) -> None:
        for number in range(5000):
            counts.add("rank")
            durations.observe(f"{name}{number % 200}", seconds=0.001)

    threads = [Thread(target=count, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert [*durations.lines(), *counts.lines()]
    assert [*counts.lines()][-1].endswith('{stage="rank"} 20000.0\n')
    written = samples("".join(durations.lines()).encode())
    assert sum(value for _, value in written["winnow_stage_duration_seconds_count"]) == 20_000


def test_names_of_families_say_what_they_are() -> None:
    """Counters end in _total, nothing else does, and durations are in seconds."""
    for family in FAMILIES:
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert family.kind != "histogram" or family.name.endswith("_seconds")
    assert families.REQUESTS in FAMILIES
