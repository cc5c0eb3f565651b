"""Spans of time as people write them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.accounting.reports import parse_span
from app.errors import InvalidRequest

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("24h", NOW - timedelta(hours=24)),
        ("30d", NOW - timedelta(days=30)),
        ("4w", NOW - timedelta(weeks=4)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T10:00:00Z", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ("2026-11-01T10:00:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ("2026-11-01T10:00:00+02:00", datetime(2026, 11, 1, 8, tzinfo=UTC)),
        ("2026-11-01T10:00:00.5 02:00", datetime(2026, 11, 1, 8, 0, 0, 500_000, tzinfo=UTC)),
        ("999999w", datetime(1970, 1, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00+23:00", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_forms_of_a_beginning(text: str, since: datetime) -> None:
    """Durations, dates, times; in an address a plus sign arrives as a space."""
    assert parse_span(text, None, NOW)[0] == since


def test_the_end_is_now_or_told() -> None:
    """What ends in this second belongs to it."""
    assert parse_span("1h", None, NOW)[1] > NOW
    assert parse_span("2d", "1d", NOW)[1] == NOW - timedelta(days=1)
    assert parse_span("2026-11-22", None, NOW)[0].timestamp() == 1795305600


@pytest.mark.parametrize(
    ("since", "until", "field"),
    [
        ("x", None, "since"),
        ("1d", "x", "until"),
        ("1d", "2d", "since"),
        ("2026-11-22", "2026-11-22", "since"),
        ("", None, "since"),
    ],
)
def test_what_is_wrong_is_named(since: str, until: str | None, field: str) -> None:
    """The field, and what it takes."""
    with pytest.raises(InvalidRequest) as caught:
        parse_span(since, until, NOW)
    assert caught.value.problems[0].pointer == f"/{field}"


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else is raised."""
    try:
        since, until = parse_span(text, None, NOW)
    except InvalidRequest:
        return
    assert datetime(1970, 1, 1, tzinfo=UTC) <= since < until
