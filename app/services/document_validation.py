"""Documents that callers offer, what may be indexed of them, and what became of each. Pure."""

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from app.text.fencing import clean
from indexing.pipeline.ingest import DocumentResult, SubmittedDocument

MAX_ID_CHARACTERS = 512
MAX_METADATA_BYTES = 64 * 1024
MAX_METADATA_DEPTH = 8

_INTEGERS = range(-(2**63), 2**63)
"""What every store keeps exactly."""


class OfferedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is still to be read. `media_type` is what its sender says it is."""

    name: str
    data: bytes
    media_type: str | None = None


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """An offer that cannot be indexed: `reason` is a stable code, `detail` one sentence."""

    reason: str
    detail: str
    id: str | None = None
    source: str = ""


Offer = SubmittedDocument | OfferedFile | Rejected
Examined = SubmittedDocument | Rejected


class _Unfit(Exception):
    """A part of a document that no store can keep; the text says which and why."""


def examined(offers: Iterable[Examined]) -> list[Examined]:
    """The offers, cleaned and with their ids; those that cannot be indexed, and repeated ids, rejected."""
    seen: set[str] = set()
    return [_first(_examined(offer), seen) if isinstance(offer, SubmittedDocument) else offer for offer in offers]


def rejection(rejected: Rejected) -> DocumentResult:
    """A failed result."""
    return DocumentResult(
        id=rejected.id, source=rejected.source, status="failed", reason=rejected.reason, detail=rejected.detail
    )


def id_problem(document_id: str) -> str:
    """Why a document cannot be called that; "" if it can."""
    if not 1 <= len(document_id) <= MAX_ID_CHARACTERS:
        return f"an id has 1 to {MAX_ID_CHARACTERS} characters, not {len(document_id)}"
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in document_id):
        return "an id has no control characters"
    if document_id in (".", "..") or not document_id.strip("/"):
        return "an id that is all slashes, or one or two dots, could not be asked for by its URL"
    return ""


def _examined(offer: SubmittedDocument) -> Examined:
    document, source = offer.document, clean(offer.source)
    if offer.id and (problem := id_problem(offer.id)):
        return Rejected(reason="invalid_id", detail=problem, id=offer.id[:MAX_ID_CHARACTERS], source=source)
    try:
        metadata = _fit_metadata(document.metadata)
    except _Unfit as exc:
        return Rejected(reason="invalid_metadata", detail=str(exc), id=offer.id or None, source=source)
    fit = msgspec.structs.replace(
        document, text=clean(document.text), title=clean(document.title), key=clean(document.key), metadata=metadata
    )
    cleaned = SubmittedDocument(document=fit, id=offer.id, source=source)
    return msgspec.structs.replace(cleaned, id=cleaned.document_id())


def _first(offer: Examined, seen: set[str]) -> Examined:
    if not isinstance(offer, SubmittedDocument):
        return offer
    if offer.id in seen:
        detail = "an earlier document of the same request has this id"
        return Rejected(reason="duplicate_id", detail=detail, id=offer.id, source=offer.source)
    seen.add(offer.id)
    return offer


def _fit_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    fit: dict[str, Any] = _fit(msgspec.to_builtins(dict(metadata)), MAX_METADATA_DEPTH)
    size = len(msgspec.json.encode(fit))
    if size > MAX_METADATA_BYTES:
        raise _Unfit(f"metadata may take {MAX_METADATA_BYTES} bytes as JSON, this takes {size}")
    return fit


def _fit(value: Any, levels: int) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, int) and value not in _INTEGERS:
        raise _Unfit("an integer in metadata has more than 64 bits; send it as a string")
    if isinstance(value, Mapping | list | tuple) and levels == 0:
        raise _Unfit(f"metadata may be nested {MAX_METADATA_DEPTH} levels deep, this is deeper")
    if isinstance(value, Mapping):
        return {clean(str(key)): _fit(item, levels - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fit(item, levels - 1) for item in value]
    return value
