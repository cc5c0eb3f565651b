"""Wall time by stage."""

import time

import pytest

from app.observability.timing import Stopwatch


def test_stages_add_up_and_total_covers_them() -> None:
    """A stage entered twice is the sum; one that never ran is absent; the total is last and not less."""
    watch = Stopwatch()
    for _ in range(2):
        with watch.stage("embed"):
            time.sleep(0.005)
    with watch.stage("retrieve"):
        pass
    timings = watch.timings_ms()
    assert list(timings) == ["embed", "retrieve", "total"]
    assert timings["embed"] >= 10
    assert timings["total"] >= timings["embed"] + timings["retrieve"]


def test_a_stage_that_fails_is_timed_too() -> None:
    """The time was spent all the same."""
    watch = Stopwatch()
    with pytest.raises(ValueError, match="no"), watch.stage("embed"):
        raise ValueError("no")
    assert "embed" in watch.timings_ms()
