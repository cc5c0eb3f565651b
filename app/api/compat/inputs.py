"""What clients send for a query, for documents and for inputs, as texts."""

from collections.abc import Sequence
from typing import Any

from app.errors import pointing_at


def query_text(value: Any) -> str:
    """A string, or an object with a `text`. Raises InvalidRequest."""
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise pointing_at("/query", "expected a string")
    if not text.strip():
        raise pointing_at("/query", "must not be blank")
    return text


def document_texts(values: Any, fields: Sequence[str] | None = None, pointer: str = "/documents") -> list[str]:
    """Of a list, or of one document alone: each a string, null (an empty one), or an object.

    An object's text is what it has in `fields`; else its `text`; else everything in it that is no object. Raises
    InvalidRequest.
    """
    if isinstance(values, str):
        return [values]
    if not isinstance(values, list):
        raise pointing_at(pointer, "expected an array of strings")
    return [_document(value, fields, f"{pointer}/{index}") for index, value in enumerate(values)]


def inputs(value: Any) -> list[str | list[int]]:
    """A text or many; or token ids, of one text or of many. Raises InvalidRequest."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise pointing_at("/input", "expected a string, an array of strings, or token ids")
    if value and _are_ids(value):
        return [value]
    for index, one in enumerate(value):
        if not isinstance(one, str) and not (isinstance(one, list) and _are_ids(one)):
            raise pointing_at(f"/input/{index}", "expected a string or an array of token ids")
    return value


def _document(value: Any, fields: Sequence[str] | None, pointer: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, dict):
        raise pointing_at(pointer, "expected a string or an object with a text")
    if fields is None and isinstance(value.get("text"), str):
        return str(value["text"])
    chosen = [key for key in fields or value if isinstance(value.get(key), str | int | float)]
    if not chosen:
        raise pointing_at(pointer, "this object has no text; only texts can be ranked")
    return "\n".join(f"{key}: {value[key]}" for key in chosen)


def _are_ids(value: list[Any]) -> bool:
    return all(type(one) is int for one in value)
