"""`metadata_condition` of Dify and RAGFlow, which differ in a word, as the conditions of a search."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta

from app.domain import Condition, Conditions, Operator, Values
from app.errors import InvalidRequest, pointing_at
from app.text.fencing import clean

MAX_VALUES = 1024

_ALIASES: Mapping[str, Operator] = {
    **{operator: operator for operator in get_args(Operator)},
    "is": "=",
    "==": "=",
    "is not": "≠",
    "not is": "≠",
    "!=": "≠",
    ">=": "≥",
    "=>": "≥",
    "<=": "≤",
    "=<": "≤",
    "after": ">",
    "before": "<",
    "starts with": "start with",
    "ends with": "end with",
}
_ALONE = ("empty", "not empty")
_LISTED = ("in", "not in")


class ConditionBody(msgspec.Struct, frozen=True, kw_only=True):
    """One condition. `name` is a metadata field, or several of which one must do."""

    name: Annotated[str, Meta(min_length=1)] | Annotated[list[str], Meta(min_length=1, max_length=64)]
    comparison_operator: str
    value: Any = None


class MetadataCondition(msgspec.Struct, frozen=True, kw_only=True):
    """Dify says `logical_operator`, RAGFlow `logic`: "and" (the default) or "or"."""

    conditions: Annotated[list[ConditionBody], Meta(max_length=64)] | None = None
    logical_operator: str | None = None
    logic: str | None = None


def conditions_of(body: MetadataCondition | None) -> Conditions | None:
    """None where there are no conditions; a condition that lacks its value is ignored, as with Dify.

    Raises InvalidRequest pointing at the part that cannot be understood.
    """
    if body is None or not body.conditions:
        return None
    logic = (body.logical_operator or body.logic or "and").lower()
    if logic not in ("and", "or"):
        raise pointing_at("/metadata_condition/logical_operator", f'"and" or "or" is expected, not {logic!r}')
    parts = [_condition(part, place) for place, part in enumerate(body.conditions)]
    valid = tuple(part for part in parts if part is not None)
    return Conditions(conditions=valid, every=logic == "and") if valid else None


def _condition(body: ConditionBody, place: int) -> Condition | None:
    operator = _ALIASES.get(" ".join(body.comparison_operator.lower().split()))
    if operator is None:
        detail = f"unknown operator {body.comparison_operator!r}; known are {', '.join(_ALIASES)}"
        raise _wrong(place, "comparison_operator", detail)
    if body.value is None and operator not in _ALONE:
        return None
    names = [body.name] if isinstance(body.name, str) else body.name
    values = () if operator in _ALONE else _values(operator, body.value, place)
    return Condition(fields=tuple(clean(name).strip() for name in names), operator=operator, values=values)


def _values(operator: Operator, given: Any, place: int) -> Values:
    """One value, or a list of alternatives. "in" also takes a text with commas, or an empty list."""
    if isinstance(given, str) and operator in _LISTED:
        given = given.split(",")
    values = [value for value in given if value is not None] if isinstance(given, list) else [given]
    if operator in _LISTED:
        values = values or [""]
    if not 1 <= len(values) <= MAX_VALUES or not all(isinstance(value, str | int | float) for value in values):
        detail = f"{operator!r} takes a text, a number or a list of up to {MAX_VALUES} of them"
        raise _wrong(place, "value", detail)
    return tuple(clean(value).strip() if isinstance(value, str) else value for value in values)


def _wrong(place: int, field: str, detail: str) -> InvalidRequest:
    return pointing_at(f"/metadata_condition/conditions/{place}/{field}", detail)
