"""The dashboard and the alert rules name only metrics and labels that the service has."""

import re
import shutil
import subprocess

import pytest

from tests.fakes.monitoring_files import FOLDER, alerts, dashboard, queries, scrape_config
from tests.fakes.scrape import FAMILIES

_METRIC = re.compile(r"\b((?:winnow|process|python)_[a-z_]+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_BY = re.compile(r"\bby \(([^)]*)\)")
_SHOWN = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")

BY_PROMETHEUS = {"job", "instance", "le"}
"""Labels that every series has there, and the one of buckets."""

OF_THE_PROCESS = ("process_resident_memory_bytes", "process_cpu_seconds_total")

EXPRESSIONS = {**queries(), **{name: rule["expr"] for name, rule in alerts().items()}}


def labels_by_metric() -> dict[str, set[str]]:
    """Under the names of samples. Those of the process are of Linux alone."""
    known: dict[str, set[str]] = {name: set() for name in ("up", *OF_THE_PROCESS)}
    for family in FAMILIES:
        for suffix in ("_bucket", "_count", "_sum") if family.kind == "histogram" else ("",):
            known[family.name + suffix] = set(family.labels)
    return known


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_its_metrics_and_labels_exist(name: str) -> None:
    """Each metric is one of the service's, and each label that it is filtered or grouped by is one of its own."""
    known, used = labels_by_metric(), set[str]()
    expression = EXPRESSIONS[name]
    metrics = _METRIC.findall(expression)
    assert metrics
    for metric, matchers in metrics:
        assert metric in known
        assert set(_MATCHER.findall(matchers)) <= known[metric] | BY_PROMETHEUS
        used |= known[metric]
    for grouped in _BY.findall(expression):
        assert set(re.findall(r"\w+", grouped)) <= used | BY_PROMETHEUS


def test_legends_and_summaries_show_labels_that_are_left() -> None:
    """What a legend or a summary shows is a label of the metric, and not summed away."""
    shown = {
        f"{panel['title']} {target['refId']}": target["legendFormat"]
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    }
    shown |= {name: rule["annotations"]["summary"] for name, rule in alerts().items()}
    for name, text in shown.items():
        grouped = _BY.findall(EXPRESSIONS[name])
        left = {label for one in grouped for label in re.findall(r"\w+", one)}
        if not grouped:
            left = {label for metric, _ in _METRIC.findall(EXPRESSIONS[name]) for label in labels_by_metric()[metric]}
        assert set(_SHOWN.findall(text)) <= left | BY_PROMETHEUS, name


def test_every_metric_of_ours_is_watched() -> None:
    """The dashboard or an alert uses each of them."""
    everything = " ".join(EXPRESSIONS.values())
    assert [family.name for family in FAMILIES if family.name not in everything] == []


def test_panels_do_not_overlap() -> None:
    """Each has a place, a title and an id of its own."""
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_prometheus_is_told_where_the_rules_are() -> None:
    """The file that it is started with names the one beside it, and the job that the rules name."""
    config = scrape_config()
    assert all((FOLDER / name).exists() for name in config["rule_files"])
    assert [job["job_name"] for job in config["scrape_configs"]] == ["winnow"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here; make test-prometheus brings it")
def test_promtool_accepts_the_files() -> None:
    """Prometheus' own check of configuration and rules."""
    checked = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", FOLDER / "prometheus.yml"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
