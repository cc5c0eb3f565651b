"""What RAGFlow's and Dify's conditions mean, said plainly: the judge of `app.retrieval.conditions`.

It knows nothing of that module.
"""

import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any


def meets(payload: Mapping[str, Any], name: str, operator: str, value: Any = None) -> bool:
    """Whether a document with these fields is one of those that are meant; a list is met by its items."""
    stored = payload.get(name)
    absent = stored is None or stored == "" or stored == []
    if operator == "empty":
        return absent
    if absent:
        return False
    if operator == "not empty":
        return True
    items = stored if isinstance(stored, list) else [stored]
    wanted = value if isinstance(value, list) else [value]
    for negative in ("not in", "not contains", "≠"):
        if operator == negative:
            positive = {"≠": "="}.get(negative, negative.removeprefix("not "))
            return not any(_item(item, positive, one) for item in items for one in wanted)
    return any(_item(item, operator, one) for item in items for one in wanted)


def _item(item: Any, operator: str, value: Any) -> bool:
    left, right = _spelling(item), _spelling(value)
    if operator in ("=", "in"):
        return left == right or _order(item, value) == 0
    if operator == "contains":
        return right in left
    if operator == "start with":
        return left[: len(right)] == right
    if operator == "end with":
        return right == "" or left[-len(right) :] == right
    order = _order(item, value)
    if order is None:
        return False
    return {">": order > 0, "<": order < 0, "≥": order >= 0, "≤": order <= 0}[operator]


def _order(item: Any, value: Any) -> int | None:
    """Below 0, 0, above 0; None where the two cannot be compared."""
    left: Any
    right: Any
    if (right := _when(value)) is not None:
        left = _when(item) or (None if isinstance(item, str) else _unix(item))
    elif _unix(value) and _when(item):
        left, right = _when(item), _unix(value)
    elif (right := _amount(value)) is not None:
        left = _amount(item)
    else:
        left, right = _spelling(item), _spelling(value)
    if left is None:
        return None
    return int(left > right) - int(left < right)


def _spelling(value: Any) -> str:
    """Case and the composition of characters do not count."""
    return unicodedata.normalize("NFC", str(value).casefold())


def _amount(value: Any) -> float | None:
    if type(value) in (int, float):
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", value, re.I):
        return float(value)
    return None


def _unix(value: Any) -> datetime | None:
    """A number of seconds that lies between 1973 and 9999."""
    seconds = _amount(value)
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None and 1e8 <= seconds < 253402300800 else None


def _when(value: Any) -> datetime | None:
    if not isinstance(value, str) or not re.match(r"\d{4}-\d\d-\d\d(T|$)", value):
        return None
    try:
        if len(value) == 10:
            day = date.fromisoformat(value)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
