"""The arithmetic of capacity, and the page that shows it."""

from pathlib import Path

import msgspec
import pytest

from benchmarks.capacity import DOCUMENTED, Plan, passage_rows, size_rows

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "scale.md").read_text(encoding="utf-8")


def test_the_page_has_the_tables() -> None:
    """As the program prints them by default."""
    lines = PAGE.splitlines()
    assert [row for row in (*passage_rows(), *size_rows(Plan())) if row not in lines] == []


def test_it_is_near_what_was_read_off_the_disk() -> None:
    """Of 20,000 passages of 384 numbers, not quantized: 3,624 bytes each without the log; within a hundredth."""
    assert Plan(dimensions=384, quantization="none").disk_bytes == pytest.approx(3624, rel=0.01)


@pytest.mark.parametrize("dimensions", [384, 768, 1024])
def test_it_is_near_qdrants_own_rule(dimensions: int) -> None:
    """For whole vectors in memory; within a fifth, for that rule knows neither words nor fields."""
    rule = 4 * dimensions * DOCUMENTED
    assert Plan(dimensions=dimensions, quantization="none").memory_bytes == pytest.approx(rule, rel=0.2)


def test_more_of_anything_never_takes_fewer_nodes() -> None:
    """Neither passages nor dimensions nor copies; and there is a node for each copy."""
    small = Plan(passages=1e6)
    assert small.nodes == small.copies == 2
    for more in ({"passages": 1e10}, {"dimensions": 4096}, {"copies": 3}, {"quantization": "none"}):
        assert msgspec.structs.replace(Plan(), **more).nodes >= Plan().nodes
