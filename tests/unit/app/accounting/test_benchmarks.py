"""The file of measured speeds."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from app.accounting.benchmarks import BENCHMARKS_FILE, Benchmark, read_benchmarks, store_benchmark
from app.errors import ConfigError

MEASURED = Benchmark(
    backend="gemma",
    model="gemma-3-4b",
    server="vLLM 0.32.0",
    at=datetime(2026, 11, 29, 9, tzinfo=UTC),
    machine="box (8 cores, Linux x86_64)",
    version="0.1.0",
    first_token_ms=40,
    tokens_per_s=100,
    tokens_per_s_at_16=850,
    prompt_tokens_per_s=5000,
    rerank_ms=300,
    usd_per_million_input=0.02,
    usd_per_million_output=0.12,
    usd_per_1000_reranks=0.03,
    price_source="gpu",
    spent_usd=0.001,
)


def test_the_newest_of_a_backend_and_model_is_kept(tmp_path: Path) -> None:
    """Beside those of other models."""
    path = tmp_path / BENCHMARKS_FILE
    assert read_benchmarks(path) == ()
    other, again = (
        msgspec.structs.replace(MEASURED, model="other"),
        msgspec.structs.replace(MEASURED, tokens_per_s=120),
    )
    for one in (MEASURED, other, again):
        store_benchmark(path, one)
    assert read_benchmarks(path) == (other, again)


def test_a_file_that_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    """It counts as empty, and the next measurement takes its place."""
    path = tmp_path / BENCHMARKS_FILE
    path.write_bytes(b'[{"backend": 1')
    assert read_benchmarks(path) == ()
    store_benchmark(path, MEASURED)
    assert read_benchmarks(path) == (MEASURED,)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(ConfigError, match=f"{BENCHMARKS_FILE} cannot be written: No such file"):
        store_benchmark(tmp_path / "gone" / BENCHMARKS_FILE, MEASURED)


@pytest.mark.parametrize(("concurrency", "speed"), [(1, 100), (4, 250), (8, 450), (16, 850), (64, 850)])
def test_between_one_stream_and_sixteen_is_a_straight_line(concurrency: int, speed: float) -> None:
    """And beyond sixteen nothing is promised."""
    assert MEASURED.output_tokens_per_s(concurrency) == pytest.approx(speed)
