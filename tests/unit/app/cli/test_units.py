"""Numbers as people read and write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.terminal import counted, dollars, read_tokens, short, size


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("10M", 10_000_000),
        ("1.5b", 1_500_000_000),
        ("250k", 250_000),
        ("7", 7),
        ("1_000", 1000),
        (" 2,500 ", 2500),
        ("1T", 10**12),
    ],
)
def test_sizes_are_read(text: str, tokens: int) -> None:
    """With an ending or without."""
    assert read_tokens(text) == tokens


@pytest.mark.parametrize("text", ["", "M", "-1", "10 MB", "1e6", "1.2.3"])
def test_what_is_no_number_is_told(text: str) -> None:
    """With what to write."""
    with pytest.raises(ValueError, match=r"write 250k, 10M or 1\.5B"):
        read_tokens(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1k"), (1234, "1.23k"), (999_949, "1M"), (45_600_000, "45.6M"), (2.18e9, "2.18B")],
)
def test_counts_are_short(count: float, text: str) -> None:
    """Three digits and an ending."""
    assert short(count) == text


@given(st.integers(0, 10**14))
def test_what_is_shown_can_be_read(count: int) -> None:
    """And is within half a hundredth of it."""
    assert read_tokens(short(count)) == pytest.approx(count, rel=0.006)
    assert len(short(count)) <= 6


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "$0.00"),
        (1234.5, "$1,234.50"),
        (999_999.5, "$999,999.50"),
        (1.5e9, "$1.5B"),
        (0.25, "$0.2500"),
        (0.00012, "$0.0001"),
        (2.5e-8, "$2.5e-08"),
    ],
)
def test_dollars_say_something(usd: float, text: str) -> None:
    """However few."""
    assert dollars(usd) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (3130, "3.13 kB"), (999_999, "1 MB"), (2_180_000_000, "2.18 GB")]
)
def test_sizes_have_their_unit(count: int, text: str) -> None:
    """Three digits, in steps of a thousand."""
    assert size(count) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 files"), (1, "1 file"), (1200, "1,200 files")])
def test_what_is_counted_is_in_its_number(count: int, text: str) -> None:
    """One of them is no plural."""
    assert counted(count, "file") == text
