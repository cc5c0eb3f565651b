"""From a filter to an engine's own conditions: said once, spoken in two dialects. Pure."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from indexing.filters import (
    DateRange,
    Exists,
    Filter,
    Group,
    HasText,
    NoneOf,
    NumberRange,
    OneOf,
    Scalar,
    payload_path,
)
from indexing.store.payload import DATES, WORDS, sought_words

C = TypeVar("C")

_EXACT = 2**53
"""Below it every whole number is exact as a float, so that 3 and 3.0 can be compared as one number."""


class Dialect(Protocol[C]):
    """How an engine writes a condition on the values at a JSON path."""

    def any_string(self, path: str, values: list[str]) -> C: ...

    def integer(self, path: str, value: int) -> C: ...

    def flag(self, path: str, value: bool) -> C: ...

    def numbers(self, path: str, bounds: NumberRange) -> C: ...

    def dates(self, path: str, bounds: DateRange) -> C: ...

    def empty(self, path: str) -> C:
        """Absent, null or an empty list."""

    def group(self, *, must: Sequence[C] = (), should: Sequence[C] = (), must_not: Sequence[C] = ()) -> C: ...


def translate(condition: Filter, dialect: Dialect[C]) -> C:
    """The condition in the engine's words."""
    match condition:
        case OneOf():
            return _one_of(condition.field, condition.values, dialect)
        case NoneOf():
            return dialect.group(must_not=[_one_of(condition.field, condition.values, dialect)])
        case NumberRange():
            return dialect.numbers(payload_path(condition.field), condition)
        case DateRange():
            return dialect.dates(f"{DATES}.{payload_path(condition.field)}", condition)
        case HasText():
            return _has_text(condition, dialect)
        case Exists():
            empty = dialect.empty(payload_path(condition.field))
            return dialect.group(must_not=[empty]) if condition.present else empty
        case Group():
            return _group(condition, dialect)


def _group(group: Group, dialect: Dialect[C]) -> C:
    parts = [translate(part, dialect) for part in group.conditions]
    if group.op == "and":
        return dialect.group(must=parts)
    if group.op == "or":
        return dialect.group(should=parts)
    return dialect.group(must_not=[dialect.group(must=parts)])


def _one_of(field: str, values: Sequence[Scalar], dialect: Dialect[C]) -> C:
    path = payload_path(field)
    strings = [value for value in values if isinstance(value, str)]
    parts = [dialect.any_string(path, strings)] if strings else []
    parts += [_equals(field, value, dialect) for value in values if not isinstance(value, str)]
    return parts[0] if len(parts) == 1 else dialect.group(should=parts)


def _equals(field: str, value: int | float | bool, dialect: Dialect[C]) -> C:
    path = payload_path(field)
    if isinstance(value, bool):
        return dialect.flag(path, value)
    if isinstance(value, int) and abs(value) >= _EXACT:
        return dialect.integer(path, value)
    return dialect.numbers(path, NumberRange(field=field, gte=value, lte=value))


def _has_text(condition: HasText, dialect: Dialect[C]) -> C:
    path = f"{WORDS}.{payload_path(condition.field)}"
    sought = sought_words(condition.text) or [""]  # the empty word is in no field
    return dialect.group(must=[dialect.any_string(path, [word]) for word in sought])
