"""What `winnow cost` shows."""

from collections.abc import Callable
from io import StringIO

import pytest
import rich_click as click
from rich.console import Console

from app.accounting.estimator.arithmetic import estimate
from app.accounting.estimator.models import Workload
from app.accounting.prices import Prices
from app.accounting.reports import Throughput
from app.backends.settings import BackendSettings, PriceSettings
from app.cli.cost import gpu_price, rented_hours, show_estimate, token_count
from tests.fakes.money import Time

MONTH = Workload(input_tokens=10_000_000, output_tokens=2_000_000)
GEMMA = BackendSettings(kind="vllm", gpu_usd_per_hour=0.36)
MEASURED = (
    Throughput(
        backend="gemma",
        model="gemma-3-4b",
        gpu_seconds=100,
        input_tokens=400_000,
        cached_tokens=0,
        output_tokens=50_000,
    ),
)


def shown(month: Workload, measured: tuple[Throughput, ...] = (), **backends: BackendSettings) -> list[str]:
    console = Console(file=StringIO(), width=80, color_system=None, soft_wrap=True)
    show_estimate(console, estimate(backends, Prices(backends, Time()), month, measured))
    assert isinstance(console.file, StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert max(len(line) for line in lines) <= 80
    return lines


def test_without_configuration_gemini_and_the_gpus_are_compared() -> None:
    """Prices with their date, a row for each model that fits a GPU, the crossing in the chart, and all assumptions."""
    lines = shown(MONTH)
    assert lines[3].split() == ["reference", "gemini-3.1-flash-lite", "$0.25", "$0.025", "$1.50", "$5.50"]
    assert lines[4].endswith("genai-prices 0.2.3 as of 2026-10-14")
    (row,) = (line for line in lines if line.startswith("Gemma 3 27B"))
    assert row.split()[3:] == ["RTX", "4090", "$1.20", "160", "1", "$876.00", "never"]
    assert sum("X" in line.partition("|")[2] for line in lines) == 1
    assert any("cost the same: 398M tokens, $182.50" in line for line in lines)
    assert any(line.strip().startswith("^ your volume: 12M") for line in lines)
    assert "assumptions" in lines


def test_a_measured_gpu_of_ones_own_stands_first() -> None:
    """Under its backend's name."""
    lines = shown(MONTH, MEASURED, gemma=GEMMA)
    at = next(n for n, line in enumerate(lines) if line.startswith("model"))
    assert lines[at + 1].split()[:3] == ["gemma-3-4b", "gemma", "$0.36"]


def test_what_is_not_estimated_is_told() -> None:
    """With what is missing."""
    assert any(
        line.startswith("not estimated: gemma: its speed is measured in use") for line in shown(MONTH, gemma=GEMMA)
    )


@pytest.mark.parametrize(
    "month",
    [
        Workload(input_tokens=1, output_tokens=0, cached_share=1.0),
        Workload(input_tokens=10**15, output_tokens=10**15),
        Workload(input_tokens=10**9, output_tokens=10**9, hours="needed"),
        Workload(input_tokens=10**6, output_tokens=10**6, gpus={}),
        Workload(input_tokens=10**6, output_tokens=10**6, gpus={"RTX 4090": 0.0}),
    ],
)
def test_odd_months_are_shown_too(month: Workload) -> None:
    """Tiny, huge, by need, without GPUs, with free ones, and over a free API."""
    free = BackendSettings(kind="gemini", model="m", price=PriceSettings(input=0, output=0))
    assert shown(month)
    assert shown(month, free=free)


def test_options_are_read_as_people_write_them() -> None:
    """Tokens by size, hours or need, a GPU by the end of its name with or without a price."""
    assert token_count("1.5B") == 1_500_000_000
    assert [rented_hours(text) for text in ("100", "needed")] == [100.0, "needed"]
    assert gpu_price("4090") == ("RTX 4090", 1.20)
    assert gpu_price("rtx 3060=0.1") == ("RTX 3060", 0.1)


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (token_count, "ten", "write 250k"),
        (rented_hours, "all", "neither a number of hours nor 'needed'"),
        (rented_hours, "5e-324", "not between 0.01 and 744 hours"),
        (rented_hours, "nan", "not between 0.01 and 744 hours"),
        (gpu_price, "H100", "known are RTX 3060, RTX 3080, RTX 4090"),
        (gpu_price, "4090=cheap", "not a price per hour"),
    ],
)
def test_wrong_options_say_what_is_right(read: Callable[[str], object], text: str, message: str) -> None:
    """One line."""
    with pytest.raises(click.BadParameter, match=message):
        read(text)
