"""Reads what a scrape of /metrics gives."""

from prometheus_client.parser import text_string_to_metric_families

from app.observability import families
from app.observability.families import Family

FAMILIES = tuple(value for value in vars(families).values() if isinstance(value, Family))
"""All that the application has."""

Sample = tuple[dict[str, str], float]


def samples(text: bytes) -> dict[str, list[Sample]]:
    """The labels and values by the name of the sample."""
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value_of(text: bytes, name: str, /, **labels: str) -> float:
    """The value of the one sample with these labels, among others."""
    [value] = [value for given, value in samples(text).get(name, []) if labels.items() <= given.items()]
    return value
