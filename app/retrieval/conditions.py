"""Conditions on passages in the words of RAGFlow and Dify: what the filter grammar says, and more, but less exactly.

Case does not count, "2024" is the number 2024, and texts are compared by what they contain, start and end with. No
store can do that, so it is done here, on what retrieval finds; `narrowing` gives the store as much of it as it can do.
Pure.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt
from typing import Any

from app.domain import Condition, Conditions, Operator, Values
from indexing.documents import Passage
from indexing.filters import (
    BUILT_IN,
    DateRange,
    Exists,
    Filter,
    Group,
    HasText,
    NumberRange,
    OneOf,
    Scalar,
    read_moment,
)

Compare = Callable[[Any, Any], bool]

_ORDER: Mapping[str, Compare] = {">": gt, "<": lt, "≥": ge, "≤": le}
_BOUND = {">": "gt", "<": "lt", "≥": "gte", "≤": "lte"}
_NEGATED: Mapping[str, Operator] = {"≠": "=", "not in": "in", "not contains": "contains"}
_LARGEST = sys.float_info.max
_UNIX = (100_000_000.0, 253_402_300_799.0)
"""Numbers that may be moments in Unix seconds, from 1973 to 9999: Dify's date picker gives these, and stores them."""

_EARLIEST = "0001-01-01T00:00:00Z"
_EXACT = 2.0**53
_UNSET: tuple[Any, ...] = (None, "", [], ())


def meets(conditions: Conditions, passage: Passage) -> bool:
    """Whether the passage is one of those that are meant."""
    decide = all if conditions.every else any
    return decide(_meets(condition, passage) for condition in conditions.conditions)


def narrowing(conditions: Conditions) -> Filter | None:
    """A filter that lets everything through that meets the conditions, and little else; None where there is none."""
    parts = [_any_of([_narrowed(field, part) for field in part.fields]) for part in conditions.conditions]
    return all_of(parts) if conditions.every else _any_of(parts)


def all_of(filters: Sequence[Filter | None]) -> Filter | None:
    """What all of them let through; None lets everything through."""
    parts = tuple(part for part in filters if part is not None)
    return parts[0] if len(parts) == 1 else Group(op="and", conditions=parts) if parts else None


def _any_of(filters: Sequence[Filter | None]) -> Filter | None:
    parts = tuple(part for part in filters if part is not None)
    if len(parts) < len(filters):
        return None
    return parts[0] if len(parts) == 1 else Group(op="or", conditions=parts)


def _meets(condition: Condition, passage: Passage) -> bool:
    return any(_holds(condition, value_of(passage, field)) for field in condition.fields)


def value_of(passage: Passage, field: str) -> Any:
    """A built-in field, or one of the metadata, which dots reach into; None where there is none."""
    if field in BUILT_IN:
        return getattr(passage, field)
    found: Any = passage.metadata
    for key in field.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _holds(condition: Condition, value: Any) -> bool:
    if condition.operator == "empty":
        return value in _UNSET
    if value in _UNSET or condition.operator == "not empty":
        return value not in _UNSET
    items = value if isinstance(value, list | tuple) else [value]
    return _compares(condition.operator, [item for item in items if isinstance(item, Scalar)], condition.values)


def _compares(operator: Operator, items: Sequence[Any], values: Values) -> bool:
    if operator in _NEGATED:
        return not _compares(_NEGATED[operator], items, values)
    if operator in _ORDER:
        return any(_ordered(items, value, _ORDER[operator]) for value in values)
    if operator in ("=", "in"):
        return any(_ordered(items, value, eq) for value in values)
    return any(_WITHIN[operator](_text(item), _text(value)) for item in items for value in values)


_WITHIN: Mapping[str, Callable[[str, str], bool]] = {
    "contains": lambda text, part: part in text,
    "start with": str.startswith,
    "end with": str.endswith,
}


def _ordered(items: Sequence[Any], value: Scalar, compare: Compare) -> bool:
    """As dates where the value is one, else as numbers, else as texts."""
    if (moment := _moment(value)) is not None:
        seconds = [*_dates(items), *filter(_is_unix, _real(items))]
        return any(compare(found, moment.timestamp()) for found in seconds)
    if (number := _number(value)) is not None:
        return any(compare(found, number) for found in _numbers(items, dated=_is_unix(number)))
    return any(compare(_text(item), _text(value)) for item in items)


def _numbers(items: Sequence[Any], *, dated: bool) -> list[float]:
    """The numbers among the items, and the dates if `dated`; texts are read as numbers where there are none."""
    found = [*_real(items), *(_dates(items) if dated else ())]
    return found or [number for number in map(_number, items) if number is not None]


def _real(items: Sequence[Any]) -> list[float]:
    numbers = (_number(item) for item in items if isinstance(item, int | float))
    return [number for number in numbers if number is not None]


def _dates(items: Sequence[Any]) -> list[float]:
    """In Unix seconds."""
    return [moment.timestamp() for moment in map(_moment, items) if moment is not None]


def _is_unix(number: float) -> bool:
    return _UNIX[0] <= number <= _UNIX[1]


def _number(value: Scalar) -> float | None:
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):  # as Python would have it in 1_000
        return None
    if isinstance(value, int):
        return float(max(-_LARGEST, min(value, _LARGEST)))
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _moment(value: Any) -> datetime | None:
    moment = read_moment(value) if isinstance(value, str) else None
    return None if moment is None else datetime.fromisoformat(moment)


def _text(value: Any) -> str:
    return str(value).casefold()


def _narrowed(field: str, condition: Condition) -> Filter | None:
    if not all(field.split(".")) or set(field) & set('"\\'):
        return None
    there = Exists(field=field, present=True)
    if condition.operator == "empty":
        return Group(op="or", conditions=(Exists(field=field, present=False), OneOf(field=field, values=("",))))
    if condition.operator in ("=", "in", *_ORDER):
        return _any_of([_compared(field, condition.operator, value) or there for value in condition.values])
    return there


def _compared(field: str, operator: Operator, value: Scalar) -> Filter | None:
    if isinstance(value, str) and (moment := read_moment(value)) is not None:
        return _date_filter(field, operator, moment)
    if (number := _number(value)) is not None:
        return _number_filter(field, operator, number)
    return None if operator in _ORDER else _same_words(field, _text(value))


def _same_words(field: str, text: str) -> Filter | None:
    """Equal texts have equal words. None where there is no word; a truth is no text to the store."""
    if not any(char.isalnum() for char in text):
        return None
    has_text = HasText(field=field, text=text)
    if text not in ("true", "false"):
        return has_text
    return Group(op="or", conditions=(OneOf(field=field, values=(text == "true",)), has_text))


def _date_filter(field: str, operator: Operator, moment: str) -> Filter:
    """A date in range, or a number that is a moment in range."""
    seconds = datetime.fromisoformat(moment).timestamp()
    a_moment = NumberRange(field=field, gte=_UNIX[0], lte=_UNIX[1])
    number = Group(op="and", conditions=(a_moment, NumberRange(field=field, **_bounds(operator, seconds, seconds))))
    return Group(op="or", conditions=(DateRange(field=field, **_bounds(operator, moment, moment)), number))


def _number_filter(field: str, operator: Operator, number: float) -> Filter:
    """A number in range, or a date if the number is a moment; or neither, that is a text which may spell one."""
    ranges: list[Filter] = [NumberRange(field=field, **_bounds(operator, *_about(number)))]
    others: list[Filter] = [NumberRange(field=field, gte=-_LARGEST)]
    if _is_unix(number):
        moment = datetime.fromtimestamp(number, UTC).isoformat().replace("+00:00", "Z")
        ranges.append(DateRange(field=field, **_bounds(operator, moment, moment)))
        others.append(DateRange(field=field, gte=_EARLIEST))
    neither = (Group(op="not", conditions=(other,)) for other in others)
    spelt = Group(op="and", conditions=(Exists(field=field, present=True), *neither))
    return Group(op="or", conditions=(*ranges, spelt))


def _about(number: float) -> tuple[float, float]:
    """Looser where a float stands for several whole numbers, which some stores tell apart."""
    if abs(number) < _EXACT:
        return number, number
    return math.nextafter(number, -_LARGEST), math.nextafter(number, _LARGEST)


def _bounds(operator: Operator, low: Any, high: Any) -> dict[str, Any]:
    if operator in _BOUND:
        return {_BOUND[operator]: low if operator in (">", "≥") else high}
    return {"gte": low, "lte": high}
