"""Metadata conditions as RAGFlow and Dify write them: more than the filter grammar can say, but less exact. Pure.

Case does not matter, nor how "é" is spelled; "2024" equals the number 2024, and texts are compared by what they
contain, start and end with. No store can do that, so it is done here, on retrieved passages; `narrowing` gives the
store as much as it can check.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import eq
from typing import Any
from unicodedata import normalize

from app.domain import Condition, Conditions, Operator, Values
from indexing.documents import Passage
from indexing.filters import (
    BOUNDS,
    BUILT_IN,
    NEGATIONS,
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

_ORDER: Mapping[str, Compare] = {symbol: compare for symbol, compare in BOUNDS.values()}
_BOUND = {symbol: bound for bound, (symbol, _) in BOUNDS.items()}
_NEGATED = {**dict(NEGATIONS.values()), "not contains": "contains"}
_LARGEST = sys.float_info.max
_UNIX = (100_000_000.0, 253_402_300_799.0)
"""Numbers taken for moments in Unix seconds, from 1973 to 9999: Dify's date picker sends these, and stores them."""

_EARLIEST = "0001-01-01T00:00:00Z"
_EXACT = 2.0**53
_UNSET: tuple[Any, ...] = (None, "", [], ())


def meets(conditions: Conditions, passage: Passage) -> bool:
    """Whether the passage meets the conditions: all of them, or at least one."""
    decide = all if conditions.every else any
    return decide(
        any(_holds(condition, value_of(passage, field)) for field in condition.fields)
        for condition in conditions.conditions
    )


def narrowing(conditions: Conditions) -> Filter | None:
    """A filter that all passages pass which meet the conditions, and few others; None if there is none such."""
    parts = [_any_of([_narrowed(field, part) for field in part.fields]) for part in conditions.conditions]
    return all_of(parts) if conditions.every else _any_of(parts)


def all_of(filters: Sequence[Filter | None]) -> Filter | None:
    """What passes all of them; None passes everything."""
    parts = tuple(part for part in filters if part is not None)
    return parts[0] if len(parts) == 1 else Group(op="and", conditions=parts) if parts else None


def _any_of(filters: Sequence[Filter | None]) -> Filter | None:
    parts = tuple(part for part in filters if part is not None)
    if len(parts) < len(filters):
        return None
    return parts[0] if len(parts) == 1 else Group(op="or", conditions=parts)


def value_of(passage: Passage, field: str) -> Any:
    """A built-in field, or a metadata field, in which dots go one level down; None if there is none."""
    if field in BUILT_IN:
        return getattr(passage, field)
    value: Any = passage.metadata
    for key in field.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _holds(condition: Condition, value: Any) -> bool:
    if condition.operator == "empty":
        return value in _UNSET
    if value in _UNSET or condition.operator == "not empty":
        return value not in _UNSET
    items = value if isinstance(value, list | tuple) else [value]
    return _compares(condition.operator, [item for item in items if isinstance(item, Scalar)], condition.values)


def _compares(operator: str, items: Sequence[Any], values: Values) -> bool:
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
        return any(compare(second, moment.timestamp()) for second in seconds)
    if (number := _number(value)) is not None:
        return any(compare(item, number) for item in _numbers(items, dated=_is_unix(number)))
    return any(compare(_text(item), _text(value)) for item in items)


def _numbers(items: Sequence[Any], *, dated: bool) -> list[float]:
    """The numbers among the items, and the dates if `dated`; without any, the texts that spell a number."""
    numbers = [*_real(items), *(_dates(items) if dated else ())]
    return numbers or [number for number in map(_number, items) if number is not None]


def _real(items: Sequence[Any]) -> list[float]:
    numbers = (_number(item) for item in items if isinstance(item, int | float))
    return [number for number in numbers if number is not None]


def _dates(items: Sequence[Any]) -> list[float]:
    """In Unix seconds."""
    return [moment.timestamp() for moment in map(_moment, items) if moment is not None]


def _is_unix(number: float) -> bool:
    return _UNIX[0] <= number <= _UNIX[1]


def _number(value: Scalar) -> float | None:
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):  # Python would read 1_000 as 1000
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
    return normalize("NFC", normalize("NFD", str(value)).casefold())


def _narrowed(field: str, condition: Condition) -> Filter | None:
    if not all(field.split(".")) or set(field) & set('"\\'):
        return None
    exists = Exists(field=field, present=True)
    if condition.operator == "empty":
        return Group(op="or", conditions=(Exists(field=field, present=False), OneOf(field=field, values=("",))))
    if condition.operator in ("=", "in", *_ORDER):
        return _any_of([_compared(field, condition.operator, value) or exists for value in condition.values])
    return exists


def _compared(field: str, operator: Operator, value: Scalar) -> Filter | None:
    if isinstance(value, str) and (moment := read_moment(value)) is not None:
        return _date_filter(field, operator, moment)
    if (number := _number(value)) is not None:
        return _number_filter(field, operator, number)
    return None if operator in _ORDER else _same_words(field, _text(value))


def _same_words(field: str, text: str) -> Filter | None:
    """Equal texts have equal words. None for a text without a word; to the store, true and false are no texts."""
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
    """A number in range, or a date if the number is a moment; or neither: a text, which may spell a number in range."""
    ranges: list[Filter] = [NumberRange(field=field, **_bounds(operator, *_about(number)))]
    others: list[Filter] = [NumberRange(field=field, gte=-_LARGEST)]
    if _is_unix(number):
        moment = datetime.fromtimestamp(number, UTC).isoformat().replace("+00:00", "Z")
        ranges.append(DateRange(field=field, **_bounds(operator, moment, moment)))
        others.append(DateRange(field=field, gte=_EARLIEST))
    neither = (Group(op="not", conditions=(other,)) for other in others)
    # What is neither a number nor a date can only be checked on the passage itself.
    spelt = Group(op="and", conditions=(Exists(field=field, present=True), *neither))
    return Group(op="or", conditions=(*ranges, spelt))


def _about(number: float) -> tuple[float, float]:
    """The number, with some room where a float stands for several whole numbers that some stores tell apart."""
    if abs(number) < _EXACT:
        return number, number
    return math.nextafter(number, -_LARGEST), math.nextafter(number, _LARGEST)


def _bounds(operator: Operator, low: Any, high: Any) -> dict[str, Any]:
    if operator in _BOUND:
        return {_BOUND[operator]: low if operator in (">", "≥") else high}
    return {"gte": low, "lte": high}
