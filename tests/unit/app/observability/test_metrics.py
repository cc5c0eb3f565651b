"""What is counted, under which labels, and the text of it."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from app.domain import TokenCount
from app.observability import families
from app.observability.metrics import MAX_MODELS, Metrics, text_of
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


@given(
    st.text(),
    st.lists(st.tuples(st.text(), st.floats()), max_size=5, unique_by=lambda pair: pair[0]),
)
def test_the_text_is_what_the_library_would_write(help_text: str, values: list[tuple[str, float]]) -> None:
    """Whatever stands in a help or a label: the same lines; a number may be spelled otherwise."""

    class Given:
        def collect(self) -> list[GaugeMetricFamily]:
            family = GaugeMetricFamily("winnow_odd", help_text, labels=("name",))
            for name, value in values:
                family.add_metric((name,), value)
            return [family]

    def lines(text: bytes) -> list[tuple[str, str]]:
        split = [line.rpartition(" ") for line in text.decode("utf-8", "surrogatepass").split("\n")]
        return [(head, tail if head.startswith("#") else repr(float(tail or 0))) for head, _, tail in split]

    assert lines(text_of(Given().collect())) == lines(generate_latest(Given()))


def test_names_of_families_say_what_they_are() -> None:
    """Counters end in _total, nothing else does, and durations are in seconds."""
    for family in FAMILIES:
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert family.kind != "histogram" or family.name.endswith("_seconds")
    assert families.REQUESTS in FAMILIES
