"""The filter grammar (docs/api.md): from JSON to conditions that a store can translate. Pure.

Numbers are compared as numbers (3 equals 3.0); true and false are never numbers; dates are compared as moments.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import msgspec

from indexing.errors import InvalidFilter

Scalar: TypeAlias = str | int | float | bool

NAMES = ("document_id", "source", "title")
BUILT_IN = (*NAMES, "page")
EXACT = 2**53
"""Below it every whole number is exact as a float, so that 3 and 3.0 can be compared as one number."""
MAX_DEPTH = 8
MAX_CONDITIONS = 256
MAX_VALUES = 1024

Bound = Literal["gt", "gte", "lt", "lte"]

BOUNDS: Mapping[Bound, tuple[str, Callable[[Any, Any], bool]]] = {
    "gt": (">", operator.gt),
    "gte": ("≥", operator.ge),
    "lt": ("<", operator.lt),
    "lte": ("≤", operator.le),
}
"""How values are ordered: in this grammar, in that of `app.retrieval.conditions`, and in Python."""

NEGATIONS: Mapping[str, tuple[str, str]] = {"ne": ("≠", "="), "nin": ("not in", "in")}
"""What is met where its opposite is not: in this grammar, in that of `app.retrieval.conditions`, and its opposite."""


class OneOf(msgspec.Struct, frozen=True, tag=True):
    """The field (or one of its items) equals one of `values`; at least one value. `NAMES`: in either spelling."""

    field: str
    values: tuple[Scalar, ...]


class NumberRange(msgspec.Struct, frozen=True, tag=True):
    """The number lies within every given bound."""

    field: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


class DateRange(msgspec.Struct, frozen=True, tag=True):
    """The RFC 3339 date or date-time lies within every given bound (RFC 3339 date-times in UTC)."""

    field: str
    gt: str | None = None
    gte: str | None = None
    lt: str | None = None
    lte: str | None = None


class HasText(msgspec.Struct, frozen=True, tag=True):
    """Every word of `text` occurs in the field."""

    field: str
    text: str


class Exists(msgspec.Struct, frozen=True, tag=True):
    """The field is there and not null (`present` true), or absent, null or empty (`present` false)."""

    field: str
    present: bool


class OfDocuments(msgspec.Struct, frozen=True, tag=True):
    """The passage is one of these documents', each given by its `indexing.documents.document_key`.

    Like what follows, it is not in the grammar: users' filters cannot name it, nor the fields that it reads.
    """

    keys: tuple[str, ...]


class OfVersions(msgspec.Struct, frozen=True, tag=True):
    """A passage of one of these documents is of one of `versions`; met by those of all other documents.

    `indexing.pipeline.visibility` leaves out with it what does not count.
    """

    keys: tuple[str, ...]
    versions: tuple[str, ...]


class OpenTo(msgspec.Struct, frozen=True, tag=True):
    """The passage belongs to `tenant` ("": to none), and names no groups, or one of `groups`.

    `indexing.store.payload.restricted` adds it to what is read for others than the operator.
    """

    tenant: str
    groups: tuple[str, ...]


class Group(msgspec.Struct, frozen=True, tag=True):
    """`and`: all, `or`: at least one, `not`: not all of `conditions`; so a `not` is met where a field is absent."""

    op: Literal["and", "or", "not"]
    conditions: tuple["Filter", ...]


Filter: TypeAlias = OneOf | NumberRange | DateRange | HasText | Exists | OfDocuments | OfVersions | OpenTo | Group


def parse_filter(raw: Any) -> Filter | None:
    """None for an empty object. Raises InvalidFilter naming the bad part by JSON pointer."""
    if isinstance(raw, Mapping) and not raw:
        return None
    return _parse_object(raw, "", 1, [])


def payload_path(field: str) -> str:
    """Where a filter's field lies in the payload (`indexing.documents.to_payload`), as a JSON path of Qdrant."""
    path = [field] if field in BUILT_IN else ["metadata", *field_keys(field)]
    return ".".join(part if _PLAIN_KEY.fullmatch(part) else f'"{part}"' for part in path)


def field_keys(field: str) -> list[str]:
    """The keys that a field's name joins by dots. A dot within a key is written with a backslash before it."""
    return [key.replace(r"\.", ".") for key in _DOT.split(field)]


def field_name(keys: Iterable[str]) -> str:
    """The other way round."""
    return ".".join(key.replace(".", r"\.") for key in keys)


def read_moment(text: str) -> str | None:
    """A date or date-time (RFC 3339) in one spelling: in UTC, ending in Z. None for any other text.

    A plain date is its first moment; what says no time zone is in UTC.
    """
    if not _DATE.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return moment.isoformat().replace("+00:00", "Z")


_DOT = re.compile(r"(?<!\\)\.")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_GROUPS = ("and", "or", "not")
_OPERATORS = (*NEGATIONS, *BOUNDS, "text", "exists")
_DATE = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})?)?",
    re.ASCII,
)


def _parse_object(raw: Any, pointer: str, depth: int, seen: list[Filter]) -> Filter:
    """The filter at `pointer`. `seen` collects the conditions of the whole filter, to limit their number."""
    if not isinstance(raw, Mapping):
        raise InvalidFilter(pointer, "a filter is a JSON object")
    if not raw:
        raise InvalidFilter(pointer, "an empty filter is allowed only at the top")
    if depth > MAX_DEPTH:
        raise InvalidFilter(pointer, f"filters may be nested at most {MAX_DEPTH} deep")
    parts: list[Filter] = []
    for key, value in raw.items():
        at = f"{pointer}/{_escape(str(key))}"
        if key in _GROUPS:
            parts.append(_parse_group(key, value, at, depth, seen))
            continue
        _check_field(key, at)
        conditions = _parse_field(key, value, at)
        parts += conditions
        seen += conditions
        if len(seen) > MAX_CONDITIONS:
            raise InvalidFilter(at, f"a filter has at most {MAX_CONDITIONS} conditions")
    return parts[0] if len(parts) == 1 else Group(op="and", conditions=tuple(parts))


def _parse_group(op: Literal["and", "or", "not"], value: Any, pointer: str, depth: int, seen: list[Filter]) -> Filter:
    if op == "not":
        return Group(op="not", conditions=(_parse_object(value, pointer, depth + 1, seen),))
    if not isinstance(value, list) or not value:
        raise InvalidFilter(pointer, f"{op!r} takes a list of at least one filter")
    parts = [_parse_object(item, f"{pointer}/{i}", depth + 1, seen) for i, item in enumerate(value)]
    return parts[0] if len(parts) == 1 else Group(op=op, conditions=tuple(parts))


def _escape(key: str) -> str:
    """A key as a token of a JSON pointer (RFC 6901, section 3), fit to be written as UTF-8."""
    key = key.encode("utf-8", "replace").decode()
    return key.replace("~", "~0").replace("/", "~1")


def _check_field(key: Any, pointer: str) -> None:
    if not isinstance(key, str) or not all(field_keys(key)):
        raise InvalidFilter(pointer, r"a field name is keys joined by dots; a dot within a key is written as \.")
    if any(set(part) & set('"\\') for part in field_keys(key)) or not _is_text(key):
        raise InvalidFilter(pointer, "quotes, backslashes and lone surrogates cannot be part of a key")


def _is_text(value: str) -> bool:
    """Whether it can be written as UTF-8, which lone surrogates cannot."""
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _parse_field(field: str, value: Any, pointer: str) -> list[Filter]:
    if isinstance(value, list):
        return [OneOf(field=field, values=_scalars(value, pointer))]
    if not isinstance(value, Mapping):
        return [OneOf(field=field, values=(_scalar(value, pointer),))]
    names = ", ".join(_OPERATORS)
    if not value:
        raise InvalidFilter(pointer, f"give at least one of the operators {names}")
    for name in value:
        if name not in _OPERATORS:
            raise InvalidFilter(f"{pointer}/{_escape(str(name))}", f"unknown operator {name!r}; known are {names}")
    bounds = {name: value[name] for name in BOUNDS if name in value}
    parts = [_parse_range(field, bounds, pointer)] if bounds else []
    others = [name for name in _OPERATORS if name in value and name not in BOUNDS]
    return parts + [_parse_operator(field, name, value[name], f"{pointer}/{name}") for name in others]


def _parse_operator(field: str, name: str, value: Any, pointer: str) -> Filter:
    if name in NEGATIONS:
        if name == "nin" and not isinstance(value, list):
            raise InvalidFilter(pointer, "'nin' takes a list of values")
        values = _scalars(value, pointer) if name == "nin" else (_scalar(value, pointer),)
        return Group(op="not", conditions=(OneOf(field=field, values=values),))
    if name == "text":
        if not isinstance(value, str) or not _is_text(value) or not any(char.isalnum() for char in value):
            raise InvalidFilter(pointer, "'text' takes a string with at least one word")
        return HasText(field=field, text=value)
    if not isinstance(value, bool):
        raise InvalidFilter(pointer, "'exists' takes true or false")
    return Exists(field=field, present=value)


def _parse_range(field: str, bounds: Mapping[Bound, Any], pointer: str) -> Filter:
    """A mixture of numbers and dates is refused where the first date is read as a number."""
    if all(isinstance(value, str) for value in bounds.values()):
        dates = {name: _date(value, f"{pointer}/{name}") for name, value in bounds.items()}
        return DateRange(field=field, **dates)
    numbers = {name: _number(value, f"{pointer}/{name}") for name, value in bounds.items()}
    return NumberRange(field=field, **numbers)


def _number(value: Any, pointer: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidFilter(pointer, "range bounds must be all numbers or all dates")
    try:
        number = float(value)
    except OverflowError as exc:
        raise InvalidFilter(pointer, "the number is too large") from exc
    if not math.isfinite(number):
        raise InvalidFilter(pointer, "a number must be finite")
    if EXACT <= abs(number) <= 2**63:
        raise InvalidFilter(
            pointer, f"the bounds of a range of whole numbers are below 2^53 ({EXACT}), where numbers are exact"
        )
    return number


def _date(value: str, pointer: str) -> str:
    moment = read_moment(value)
    if moment is None:
        raise InvalidFilter(
            pointer,
            "a date is written as 2026-01-31, or as 2026-01-31T12:00:00Z with or without its time zone (RFC 3339)",
        )
    return moment


def _scalars(values: list[Any], pointer: str) -> tuple[Scalar, ...]:
    if not values:
        raise InvalidFilter(pointer, "a list of values needs at least one")
    if len(values) > MAX_VALUES:
        raise InvalidFilter(pointer, f"a list of values has at most {MAX_VALUES}")
    return tuple(_scalar(value, f"{pointer}/{i}") for i, value in enumerate(values))


def _scalar(value: Any, pointer: str) -> Scalar:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidFilter(pointer, "integers must fit in 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidFilter(pointer, "a number must be finite")
    if isinstance(value, str) and not _is_text(value):
        raise InvalidFilter(pointer, "strings must not contain lone surrogates")
    if not isinstance(value, str | int | float):
        raise InvalidFilter(pointer, "a value is a string, a number, true or false; ask for null with 'exists'")
    return value
