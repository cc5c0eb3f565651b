"""docs/metrics.md lists the metrics that there are."""

import re
from pathlib import Path

from tests.fakes.monitoring_files import alerts
from tests.fakes.scrape import FAMILIES

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")

_ROW = re.compile(r"^\| `(winnow_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", re.MULTILINE)
_LABEL = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| ", re.MULTILINE)


def test_every_metric_is_listed() -> None:
    """With its type, its labels and its meaning, in the order of the table of the application."""
    listed = [(name, kind, labels, meaning) for name, kind, labels, meaning in _ROW.findall(PAGE)]
    assert listed == [
        (family.name, family.kind, ", ".join(f"`{label}`" for label in family.labels) or "none", family.help)
        for family in FAMILIES
    ]


def test_labels_are_explained() -> None:
    """Each one, but for those whose name says it."""
    explained = {name for names in _LABEL.findall(PAGE) for name in re.findall(r"\w+", names)}
    used = {label for family in FAMILIES for label in family.labels}
    assert used - explained == {"method", "backend", "model", "version", "collection"} | {"status"} - explained


def test_every_alert_is_listed() -> None:
    """In the order of the rules."""
    assert re.findall(r"^\| `(Winnow\w+)` \|", PAGE, re.MULTILINE) == list(alerts())
