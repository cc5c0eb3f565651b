"""Validation of submitted documents: what can be indexed, and why the rest cannot. Pure."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from app.text.fencing import clean
from indexing.documents import Audience, Document, Refused
from indexing.pipeline.ingest import DocumentResult, SubmittedDocument
from indexing.pipeline.planning import file_document_id, holders_of, own_id
from indexing.readers.limits import UNREADABLE_BY_NATURE

MAX_ID_CHARACTERS = 512
MAX_METADATA_BYTES = 64 * 1024
MAX_METADATA_DEPTH = 8
MAX_METADATA_KEYS = 256
"""Keys at all levels: each costs its share of every passage."""

_INTEGERS = range(-(2**63), 2**63)
"""The integers that every store holds exactly."""


class SubmittedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is still to be read. `media_type` is the one that its sender declares.

    Its content is `data`, or has `length` bytes and is in the file at `path`. Its documents become those of `tenant`,
    for the groups `allowed`; `writer` as of `SubmittedDocument`.
    """

    name: str
    data: bytes = b""
    path: str = ""
    length: int = 0
    media_type: str | None = None
    tenant: str = ""
    allowed: tuple[str, ...] = ()
    writer: Audience

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.data) or self.length

    def submitted(self, part: Document | Refused) -> SubmittedDocument | DocumentResult:
        """A document that was read from it, or the failure of a part that is none."""
        if isinstance(part, Refused):
            return failed(part.reason, part.detail, source=f"{self.name}{part.part}")
        return SubmittedDocument(
            document=msgspec.structs.replace(part, allowed=self.allowed),
            id=own_id(part),
            source=self.name,
            tenant=self.tenant,
            writer=self.writer,
        )


Validated = SubmittedDocument | DocumentResult
"""A document that can be indexed, or the failure of one that cannot."""

Submission = Validated | SubmittedFile


class _InvalidMetadata(Exception):
    """Metadata that no store can hold; the text says which and why."""


def failed(reason: str, detail: str, id: str | None = None, source: str = "") -> DocumentResult:
    """The result of a document that cannot be indexed: `reason` is a stable code, `detail` one sentence."""
    return DocumentResult(id=id, source=source, status="failed", reason=reason, detail=detail)


MAX_GROUPS = 64
_TENANT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_GROUP = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


def owned(submissions: Iterable[Submission]) -> list[Submission]:
    """These as documents of their writers' tenants; those that the writer may not write become failures.

    Nobody writes what they could not see, replace or delete. An operator may name the tenant.
    """
    return [_owned(one) for one in submissions]


def _owned(submission: Submission) -> Submission:
    if isinstance(submission, DocumentResult):
        return submission
    writer = submission.writer
    if isinstance(submission, SubmittedFile):
        allowed, document_id, source = submission.allowed, None, submission.name
    else:
        allowed, document_id, source = submission.document.allowed, submission.id or None, submission.source
    tenant = submission.tenant or writer.tenant
    if problem := tenant_problem(tenant):
        return failed("invalid_tenant", problem, document_id, source)
    if not (writer.unrestricted or tenant == writer.tenant):
        return failed("invalid_tenant", "this key writes for its own tenant only", document_id, source)
    if problem := groups_problem(allowed):
        return failed("invalid_groups", problem, document_id, source)
    if not writer.sees(tenant, allowed):
        return failed("invalid_groups", "none of these groups is one of this key's", document_id, source)
    return msgspec.structs.replace(submission, tenant=tenant)


def tenant_problem(tenant: str) -> str:
    """Why documents cannot be this tenant's; "" if they can."""
    if tenant and not _TENANT.fullmatch(tenant):
        return "a tenant has 1 to 64 characters of A-Z a-z 0-9 _ . -"
    return ""


def groups_problem(allowed: Sequence[str]) -> str:
    """Why documents cannot be for these groups; "" if they can."""
    if len(allowed) > MAX_GROUPS or not all(map(_GROUP.fullmatch, allowed)):
        return f"at most {MAX_GROUPS} groups, each of 1 to 128 characters without control characters, may be named"
    return ""


def validate(submissions: Iterable[Validated], seen: set[str] | None = None) -> list[Validated]:
    """Clean the documents and give them ids. Those that cannot be indexed, and repeated ids, become failures.

    `seen` are the keys of the documents of the same request that came before; these are added.
    """
    seen = set() if seen is None else seen
    validated: list[Validated] = []
    for submission in submissions:
        document = _cleaned(submission) if isinstance(submission, SubmittedDocument) else submission
        if isinstance(document, SubmittedDocument):
            if document.key() in seen:
                detail = "an earlier document of the same request has this id"
                document = failed("duplicate_id", detail, document.id, document.source)
            else:
                seen.add(document.key())
        validated.append(document)
    return validated


class WholeFile:
    """What is read from one file, piece by piece: the last of its documents knows the ids of all, if there can be files
    in it.

    While parts fail that another time may not, nobody knows what the file no longer has.
    """

    def __init__(self) -> None:
        self._ids: list[str] | None = []
        """None once a record has an id of its own, or a part has failed that another time may not."""
        self._last: list[Validated] = []

    def add(self, parts: Sequence[Validated]) -> list[Validated]:
        """These and what was held back before, but for the last one."""
        for part in parts:
            if isinstance(part, SubmittedDocument):
                inside = file_document_id(part.source, "") in (part.id, *holders_of(part.id))
                if inside and self._ids is not None:
                    self._ids.append(part.id)
                else:
                    self._ids = None
            elif part.reason not in UNREADABLE_BY_NATURE:
                self._ids = None
        ready = [*self._last, *parts]
        place = max((at for at, part in enumerate(ready) if isinstance(part, SubmittedDocument)), default=len(ready))
        self._last = ready[place:]
        return ready[:place]

    def end(self) -> list[Validated]:
        """What was held back."""
        if self._ids and self._last and isinstance(self._last[0], SubmittedDocument):
            self._last[0] = msgspec.structs.replace(self._last[0], whole=tuple(self._ids))
        return self._last


def id_problem(document_id: str) -> str:
    """Why this cannot be the id of a document; "" if it can."""
    if not 1 <= len(document_id) <= MAX_ID_CHARACTERS:
        return f"an id has 1 to {MAX_ID_CHARACTERS} characters, not {len(document_id)}"
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in document_id):
        return "an id has no control characters"
    if document_id in (".", "..") or not document_id.strip("/"):
        return "an id of slashes only, or of one or two dots, cannot be part of a URL"
    return ""


def _cleaned(submitted: SubmittedDocument) -> Validated:
    # Names are stored composed (NFC), so that both spellings of "é" are one document.
    document, source = submitted.document, _composed(clean(submitted.source))
    document_id = _composed(submitted.id)
    if document_id and (problem := id_problem(document_id)):
        return failed("invalid_id", problem, document_id[:MAX_ID_CHARACTERS], source)
    try:
        metadata = _clean_metadata(document.metadata)
    except _InvalidMetadata as exc:
        return failed("invalid_metadata", str(exc), document_id or None, source)
    cleaned = msgspec.structs.replace(
        document,
        text=clean(document.text),
        title=clean(document.title),
        key=_composed(clean(document.key)),
        metadata=metadata,
    )
    result = msgspec.structs.replace(submitted, document=cleaned, id=document_id, source=source)
    return msgspec.structs.replace(result, id=result.document_id())


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _clean_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    cleaned: dict[str, Any] = _clean_value(msgspec.to_builtins(dict(metadata)), MAX_METADATA_DEPTH)
    keys = _count_keys(cleaned)
    if keys > MAX_METADATA_KEYS:
        raise _InvalidMetadata(f"metadata may have {MAX_METADATA_KEYS} keys at all levels together, this has {keys}")
    size = len(msgspec.json.encode(cleaned))
    if size > MAX_METADATA_BYTES:
        raise _InvalidMetadata(f"metadata may take {MAX_METADATA_BYTES} bytes as JSON, this takes {size}")
    return cleaned


def _count_keys(value: Any) -> int:
    if isinstance(value, Mapping):
        return len(value) + sum(map(_count_keys, value.values()))
    return sum(map(_count_keys, value)) if isinstance(value, list) else 0


def _clean_value(value: Any, levels: int) -> Any:
    """The value, cleaned; it may have so many levels of lists and objects."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, int) and value not in _INTEGERS:
        raise _InvalidMetadata("an integer in metadata has more than 64 bits; send it as a string")
    if isinstance(value, Mapping | list | tuple) and levels == 0:
        raise _InvalidMetadata(f"metadata may be nested {MAX_METADATA_DEPTH} levels deep, this is deeper")
    if isinstance(value, Mapping):
        return {clean(str(key)): _clean_value(item, levels - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean_value(item, levels - 1) for item in value]
    return value
