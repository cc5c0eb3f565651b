"""The filter grammar of api.md: from JSON to conditions that a store can translate. Pure."""

from typing import Any, Literal, TypeAlias

import msgspec

Scalar: TypeAlias = str | int | float | bool

BUILT_IN = ("document_id", "source", "title", "page")
MAX_DEPTH = 8
MAX_CONDITIONS = 256


class OneOf(msgspec.Struct, frozen=True, tag=True):
    """The field (or one of its items) equals one of `values`; at least one value."""

    field: str
    values: tuple[Scalar, ...]


class NoneOf(msgspec.Struct, frozen=True, tag=True):
    """The field equals none of `values`; true also where the field is absent."""

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
    """The RFC 3339 date or date-time lies within every given bound (RFC 3339 strings, validated)."""

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


class Group(msgspec.Struct, frozen=True, tag=True):
    """`and`: all, `or`: at least one, `not`: not all of `conditions`."""

    op: Literal["and", "or", "not"]
    conditions: tuple["Filter", ...]


Filter: TypeAlias = OneOf | NoneOf | NumberRange | DateRange | HasText | Exists | Group


def parse_filter(raw: Any) -> Filter | None:
    """None for an empty object. Raises InvalidFilter naming the bad part by JSON pointer."""
    raise NotImplementedError


def payload_path(field: str) -> str:
    """Where a filter's field lies in the payload (`indexing.documents.to_payload`)."""
    return field if field in BUILT_IN else f"metadata.{field}"
