"""What a filter means, said plainly over payloads: the judge of both stores. Knows nothing of Qdrant."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from indexing.documents import Audience, document_key
from indexing.filters import (
    BUILT_IN,
    DateRange,
    Exists,
    Filter,
    Group,
    HasText,
    NumberRange,
    OfDocuments,
    OfVersions,
    OneOf,
    OpenTo,
    field_keys,
)


def _matches_beyond_grammar(condition: OfDocuments | OfVersions | OpenTo, payload: Mapping[str, Any]) -> bool:
    key = document_key(payload.get("tenant", ""), payload["document_id"])
    match condition:
        case OfDocuments():
            return key in condition.keys
        case OfVersions():
            return key not in condition.keys or payload["version"] in condition.versions
        case OpenTo():
            audience = Audience(tenant=condition.tenant, groups=condition.groups)
            return audience.sees(payload.get("tenant", ""), payload.get("allowed", ()))


def matches(condition: Filter, payload: Mapping[str, Any]) -> bool:
    match condition:
        case Group(op="and"):
            return all(matches(part, payload) for part in condition.conditions)
        case Group(op="or"):
            return any(matches(part, payload) for part in condition.conditions)
        case Group():
            return not all(matches(part, payload) for part in condition.conditions)
        case OfDocuments() | OfVersions() | OpenTo():
            return _matches_beyond_grammar(condition, payload)
        case Exists():
            return bool(_items(payload, condition.field)) is condition.present
        case OneOf(field=field, values=values):
            return any(
                _equal(_named(field, item), _named(field, value)) for item in _items(payload, field) for value in values
            )
        case NumberRange():
            return any(_is_number(item) and _within(item, condition) for item in _items(payload, condition.field))
        case DateRange():
            moments = [_moment(item) for item in _items(payload, condition.field)]
            return any(moment is not None and _within_dates(moment, condition) for moment in moments)
        case HasText():
            text = " ".join(item for item in _items(payload, condition.field) if isinstance(item, str))
            return all(_has_word(text, word) for word in _plain(condition.text).split())


def _items(payload: Mapping[str, Any], field: str) -> list[Any]:
    """The values of a field; none if it is absent, null or empty."""
    value: Any = payload if field in BUILT_IN else payload.get("metadata", {})
    for key in field_keys(field):
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _named(field: str, value: Any) -> Any:
    """Names are the same in either spelling."""
    is_name = field in ("document_id", "source", "title") and isinstance(value, str)
    return unicodedata.normalize("NFC", value) if is_name else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(item: Any, value: Any) -> bool:
    if _is_number(item) and _is_number(value):
        return bool(item == value)
    return type(item) is type(value) and bool(item == value)


def _within(item: float, bounds: Any) -> bool:
    return (
        (bounds.gt is None or item > bounds.gt)
        and (bounds.gte is None or item >= bounds.gte)
        and (bounds.lt is None or item < bounds.lt)
        and (bounds.lte is None or item <= bounds.lte)
    )


def _within_dates(moment: datetime, bounds: DateRange) -> bool:
    sides = {side: _moment(getattr(bounds, side)) for side in ("gt", "gte", "lt", "lte")}
    return _within(moment, type("Bounds", (), sides))  # type: ignore[arg-type]


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _plain(text: str) -> str:
    """Lower case without accents; other scripts as they are."""
    letters = unicodedata.normalize("NFD", text.casefold())
    return unicodedata.normalize("NFC", "".join(char for char in letters if unicodedata.category(char) != "Mn"))


def _has_word(text: str, word: str) -> bool:
    """`dental.pdf` has the word dental. Chinese is not written in words: there the characters need only follow."""
    return word in re.split(r"\W+", _plain(text)) if word.isascii() else word in _plain(text)
