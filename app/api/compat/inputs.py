"""Read the bodies of other products leniently, and run their searches."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import structlog

from app.api.bodies import NO_BODY, decode
from app.api.request import BodyRequest, StrictJSON, caller_of, while_connected
from app.domain import Caller, Hit, Query, SearchResult
from app.errors import pointing_at
from app.services.search import Searcher

T = TypeVar("T", bound=msgspec.Struct)


class LenientJSON(StrictJSON[T]):
    """`dto=LenientJSON[RerankBody]` gives the handler its `data`.

    An empty body is refused as empty before its type is looked at: Dify's probe has neither, and expects a 400.
    """

    def decode_bytes(self, value: bytes) -> T:
        if value is not NO_BODY and value.strip():
            self.check_headers()
        return decode(value, self.model_type, strict=False)


def query_text(value: Any) -> str:
    """A string, or an object with a `text`. Raises InvalidRequest."""
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise pointing_at("/query", "expected a string")
    if not text.strip():
        raise pointing_at("/query", "must not be blank")
    return text


def document_texts(values: Any, fields: Sequence[str] | None = None, pointer: str = "/documents") -> list[str]:
    """The texts of a list of documents, or of a single one: each a string, null (an empty text), or an object.

    An object's text is what it has in `fields`; else its `text`; else all of its
    strings and numbers. Raises InvalidRequest.
    """
    if isinstance(values, str):
        return [values]
    if not isinstance(values, list):
        raise pointing_at(pointer, "expected an array of strings")
    return [_document(value, fields, f"{pointer}/{index}") for index, value in enumerate(values)]


def inputs(value: Any, pointer: str = "/input") -> list[str | list[int]]:
    """A text or many; or token ids, of one text or of many. Raises InvalidRequest."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise pointing_at(pointer, "expected a string, an array of strings, or token ids")
    if value and _are_ids(value):
        return [value]
    for index, one in enumerate(value):
        if not isinstance(one, str) and not (isinstance(one, list) and _are_ids(one)):
            raise pointing_at(f"{pointer}/{index}", "expected a string or an array of token ids")
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


MAX_QUERY_CHARACTERS = 8192
"""A longer query is cut: most of these products send whatever a user, or a model, has written."""

N = TypeVar("N", int, float)

log = structlog.get_logger()


async def search_for(request: BodyRequest, searcher: Searcher, query: Query) -> SearchResult:
    """A search that ends when the client leaves. Raises what the search raises."""
    caller = caller_of(request)
    result = await while_connected(request, searcher.search(query, caller))
    request.scope["state"]["timings"] = result.timings_ms
    log_notes(caller, *result.degraded, *result.warnings)
    return result


def log_notes(caller: Caller, *notes: str) -> list[str]:
    """The notes, each once. They are logged, too, because most clients do not show them."""
    once = [note for note in dict.fromkeys(notes) if note]
    if once:
        log.warning("served degraded", id=caller.request_id, notes=once)
    return once


def within(lowest: N, value: N, highest: N) -> N:
    """The value, or the bound that it exceeds; the lowest for NaN."""
    return min(highest, max(lowest, value))


def title_of(hit: Hit) -> str:
    """The name under which people know its document."""
    return hit.title or hit.source or hit.document_id


def file_of(hit: Hit) -> str:
    """The name of its document's file, or what comes nearest."""
    return hit.source or hit.title or hit.document_id
