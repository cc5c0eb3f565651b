"""Spans of time as people write them."""

import re
from datetime import UTC, datetime, timedelta

import msgspec

from app.errors import FieldProblem, InvalidRequest

DEFAULT_SINCE = "30d"

_DURATION = re.compile(r"(\d{1,6})([mhdw])")
_UNIT = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

# In an address a plus sign stands for a space.
_LOST_PLUS = re.compile(r"(T[\d:.]+) (\d\d:\d\d)")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_FORMS = "a date (2026-11-01), a time (2026-11-01T12:00:00Z), or how long ago (90m, 24h, 7d, 4w)"


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """[since, until), in UTC."""

    since: datetime
    until: datetime

    def ms(self) -> tuple[int, int]:
        """Milliseconds since 1970."""
        return round(self.since.timestamp() * 1000), round(self.until.timestamp() * 1000)


def parse_span(since: str, until: str | None, now: datetime) -> Span:
    """`until` None: up to now, and what comes while it is read. Raises InvalidRequest naming the field."""
    begin = _moment("since", since, now)
    end = now + timedelta(seconds=1) if until is None else _moment("until", until, now)
    if begin >= end:
        raise _invalid("since", f"{since} is not before until ({end:%Y-%m-%dT%H:%M:%SZ})")
    return Span(since=begin, until=end)


def _moment(field: str, text: str, now: datetime) -> datetime:
    try:
        if match := _DURATION.fullmatch(text):
            return max(now - int(match[1]) * _UNIT[match[2]], _LONG_AGO)
        moment = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text))
        return max(moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC), _LONG_AGO)
    except OverflowError:
        return _LONG_AGO
    except ValueError as exc:
        raise _invalid(field, f"{text!r} is none of {_FORMS}") from exc


def _invalid(field: str, detail: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {detail}", (FieldProblem(f"/{field}", detail),))
