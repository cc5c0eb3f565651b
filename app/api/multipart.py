"""Uploads: JSON documents or multipart files, read with limits."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, Reference, RequestBody, Schema
from msgspec import Meta
from multipart import MultipartSegment, ParserLimitReached, PushMultipartParser

from app.api.bodies import decode
from app.api.request import BodyRequest, CountBytes, caller_of, declared_length, limited, require_json
from app.api.schemas import Name
from app.config.settings import ServiceSettings
from app.errors import FieldProblem, InvalidRequest, TooLarge, UnsupportedMediaType
from app.services.document_validation import MAX_GROUPS, Submission, SubmittedFile, failed, owned
from app.services.incoming import Incoming
from app.text.fencing import clean
from indexing.concurrency import finish
from indexing.documents import Audience, Document
from indexing.pipeline.ingest import SubmittedDocument

MULTIPART = "multipart/form-data"
_IN_MEMORY = 4 * 2**20
"""Bytes of a form's files: what is more goes to the disk."""
_WRITTEN_AT_ONCE = 2**20


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a form; a file if it has a `filename`. It has `length` bytes: `data`, or the file at `path`."""

    name: str
    filename: str | None
    media_type: str | None
    charset: str
    data: bytes = b""
    path: Path | None = None
    length: int

    def text(self) -> str:
        """Raises InvalidRequest."""
        try:
            return self.data.decode(self.charset)
        except (UnicodeError, LookupError) as exc:
            raise InvalidRequest(f"the field {self.name} is not valid {self.charset}") from exc


class _Parts:
    """Puts parts together. Large files, and files after some megabytes of others, go to `incoming` if it is given, and
    no longer to the memory that `count` counts.
    """

    def __init__(self, incoming: Incoming | None, count: CountBytes) -> None:
        self.complete: list[Part] = []
        self._incoming, self._count = incoming, count
        self._in_memory = 0
        self._head: MultipartSegment
        self._data = bytearray()
        self._path: Path | None = None
        self._written = 0

    async def take(self, event: MultipartSegment | bytearray | None) -> None:
        """The parser's events: a part's head, its data in pieces, and None at its end. Raises DiskFull."""
        if isinstance(event, MultipartSegment):
            self._head, self._data, self._path, self._written = event, bytearray(), None, 0
        elif event is not None:
            self._data += event
            if len(self._data) >= _WRITTEN_AT_ONCE:
                await self._write()
        else:
            if self._path is not None or self._in_memory + len(self._data) > _IN_MEMORY:
                await self._write()
            self._in_memory += len(self._data)
            self.complete.append(self._part())

    async def _write(self) -> None:
        if self._incoming is None or self._head.filename is None or not self._data:
            return
        # To its end, even if the client goes away: the file is deleted afterwards.
        self._path = await finish(asyncio.to_thread(_append, self._incoming, self._path, self._data))
        self._count(-len(self._data))
        self._written += len(self._data)
        self._data = bytearray()

    def _part(self) -> Part:
        head = self._head
        return Part(
            name=head.name or "",
            filename=head.filename,
            media_type=head.content_type,
            charset=head.charset or "utf-8",
            data=bytes(self._data),
            path=self._path,
            length=self._written + len(self._data),
        )


def _append(incoming: Incoming, path: Path | None, data: bytearray) -> Path:
    path = path or incoming.new_file()
    incoming.append(path, data)
    return path


async def read_form(
    request: BodyRequest,
    max_bytes: int,
    too_large: TooLarge,
    max_parts: int,
    count: CountBytes,
    incoming: Incoming | None = None,
) -> list[Part]:
    """The parts in order, large files in `incoming`. `count` hears of each piece that arrives, and with a negative
    number of what has gone to the disk.

    Raises InvalidRequest, `too_large` for a longer body, before anything is read where the head tells it, DiskFull, and
    what `count` raises.
    """
    boundary = request.content_type[1].get("boundary", "")
    length = declared_length(request)
    if length > max_bytes:
        raise too_large
    if incoming is not None and length > _IN_MEMORY:
        incoming.check(length)
    parts, size = _Parts(incoming, count), 0
    try:
        with PushMultipartParser(boundary.encode(), max_segment_count=max_parts) as parser:
            async for piece in request.stream():
                count(len(piece))
                size += len(piece)
                if size > max_bytes:
                    raise too_large
                for event in parser.parse(piece):
                    await parts.take(event)
    except ParserLimitReached as exc:
        raise InvalidRequest(f"a form may have {max_parts} parts with short headers: {exc}") from exc
    except ValueError as exc:  # the parser's own errors, and header bytes that are no text
        wrong = "a header of a part is not UTF-8" if _is_no_text(exc) else str(exc)
        raise InvalidRequest(f"the body is not valid {MULTIPART}: {wrong}") from exc
    return parts.complete


def _is_no_text(exc: ValueError) -> bool:
    """The parser puts the error of the decoder into its own, whose text it then is, with the bytes."""
    return any(isinstance(one, UnicodeError) for one in (exc, *exc.args))


MAX_DOCUMENTS = 1000
MAX_UPLOAD_BYTES = 100_000_000
"""Of what is held in memory: pictures, and files that are read and not indexed."""
MAX_SOURCE_CHARACTERS = 2048

_REF = "#/components/schemas/"
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


class DocumentBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A document. Without an `id` its `source` names it, or else its content.

    Passages are cut from `text`, and their offsets count in it. `metadata` is what filters see.
    """

    text: str
    id: Annotated[str, Meta(description="1 to 512 characters, no control characters.")] | None = None
    title: Annotated[str, Meta(max_length=500)] | None = None
    source: Annotated[str, Meta(max_length=MAX_SOURCE_CHARACTERS, description="As in a path or a URL.")] | None = None
    metadata: (
        Annotated[dict[str, Any], Meta(description="At most 64 KiB as JSON, 8 levels deep, integers of 64 bits.")]
        | None
    ) = None
    tenant: Annotated[str, Meta(description="For a key without a tenant alone: whose document it is.")] | None = None
    allowed: (
        Annotated[list[str], Meta(min_length=1, description="The groups that may see it; without, all of its tenant.")]
        | None
    ) = None

    def to_document(self, writer: Audience) -> SubmittedDocument:
        """As the use case takes it, submitted by `writer`. Raises ValueError for an empty id."""
        if self.id == "":
            raise ValueError("an id has 1 to 512 characters")
        document = Document(
            text=self.text,
            title=self.title or "",
            metadata=self.metadata or {},
            allowed=tuple(sorted(set(self.allowed or ()))),
        )
        return SubmittedDocument(
            document=document,
            id=self.id or "",
            source=self.source or "",
            tenant=self.tenant or "",
            writer=writer,
        )


class DocumentsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /documents. A collection that does not exist is created."""

    collection: Name = "default"
    documents: Annotated[
        list[Annotated[msgspec.Raw, Meta(extra_json_schema={"anyOf": [{"$ref": f"{_REF}DocumentBody"}, {}]})]],
        Meta(
            min_length=1,
            max_length=MAX_DOCUMENTS,
            description="Each by itself: one that is not as described fails alone.",
        ),
    ]


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A request to index. `size` counts bytes."""

    collection: str
    submissions: list[Submission]
    size: int

    @property
    def has_files(self) -> bool:
        """Whether there are files, which have to be read."""
        return any(isinstance(submission, SubmittedFile) for submission in self.submissions)


async def read_upload(request: BodyRequest, service: ServiceSettings, count: CountBytes, incoming: Incoming) -> Upload:
    """The body in either form; large files are in `incoming`.

    Raises InvalidRequest, UnsupportedMediaType, TooLarge, DiskFull, and what `count` raises.
    """
    writer = caller_of(request).audience
    if is_form(request.headers.get("content-type")):
        upload = await _from_form(request, service.max_upload_bytes, count, writer, incoming)
    else:
        upload = _from_json(await read_json(request, service.max_body_bytes, count), writer)
    return msgspec.structs.replace(upload, submissions=owned(upload.submissions))


async def read_json(request: BodyRequest, max_bytes: int, count: CountBytes) -> bytes:
    """The body of a call that takes forms as well. Raises UnsupportedMediaType, TooLarge, and what `count` raises."""
    try:
        require_json(request.headers.get("content-type"))
    except UnsupportedMediaType as exc:
        raise UnsupportedMediaType(f"{exc}; or send files as {MULTIPART}") from exc
    refusal = (
        f"a JSON body may have {max_bytes} bytes (max_body_bytes of [service]); send several requests, or files as "
        f"{MULTIPART}"
    )
    return await limited(request, max_bytes, refusal, count)


def is_form(content_type: str | None) -> bool:
    """Whether the header names a form with files."""
    return (content_type or "").partition(";")[0].strip().lower() == MULTIPART


def both_bodies(kind: type[msgspec.Struct], fields: dict[str, Schema], needs: list[str], about: str) -> RequestBody:
    """A body that is JSON of `kind` or a form of these fields, for the OpenAPI document."""
    form = Schema(
        type="object",  # type: ignore[arg-type]
        properties=fields,  # type: ignore[arg-type]
        required=needs,
        additional_properties=False,
        description=about,
    )
    return RequestBody(
        required=True,
        content={
            "application/json": OpenAPIMediaType(schema=Reference(ref=f"{_REF}{kind.__name__}")),
            MULTIPART: OpenAPIMediaType(schema=form),
        },
    )


FILES = Schema(type="array", items=Schema(type="string", format="binary"), min_items=1)  # type: ignore[arg-type]


def request_body() -> RequestBody:
    """Both forms of the body of documents."""
    return both_bodies(
        DocumentsRequest,
        {
            "files": FILES,
            "collection": Schema(type="string", min_length=1, max_length=255),  # type: ignore[arg-type]
            "tenant": Schema(type="string", max_length=64),  # type: ignore[arg-type]
            "allowed": Schema(type="array", items=Schema(type="string")),  # type: ignore[arg-type]
        },
        ["files"],
        "Files of any format that is read, several under the same name `files`. A file of records (JSON lines, a JSON "
        "array) is several documents. Each `allowed` names a group that may see them.",
    )


def _from_json(body: bytes, writer: Audience) -> Upload:
    envelope = decode(_spelled_out(body), DocumentsRequest)
    submissions: list[Submission] = [_submission(raw, place, writer) for place, raw in enumerate(envelope.documents)]
    return Upload(collection=envelope.collection, submissions=submissions, size=len(body))


def _submission(raw: msgspec.Raw, place: int, writer: Audience) -> Submission:
    try:
        return decode(bytes(raw), DocumentBody).to_document(writer)
    except InvalidRequest as exc:
        problem = exc.problems[0] if exc.problems else FieldProblem("", str(exc))
        return failed("invalid", f"/documents/{place}{problem.pointer}: {problem.detail}")
    except ValueError as exc:
        return failed("invalid_id", str(exc))


def _spelled_out(body: bytes) -> bytes:
    """Write lone surrogates as bytes: so `decode` refuses the one document that has them, and not the whole body."""
    return (
        _ESCAPE.sub(lambda match: _bytes(match["lone"]) if match["lone"] else match[0], body)
        if rb"\u" in body
        else body
    )


def _bytes(escape: bytes) -> bytes:
    return chr(int(escape[1:], 16)).encode("utf-8", "surrogatepass")


def form_too_large(max_bytes: int) -> TooLarge:
    """The refusal of an upload."""
    return TooLarge(
        f"an upload may have {max_bytes} bytes (max_upload_bytes of [service]): send the files in several requests"
    )


async def _from_form(
    request: BodyRequest, max_bytes: int, count: CountBytes, writer: Audience, incoming: Incoming
) -> Upload:
    most = MAX_DOCUMENTS + 2 + MAX_GROUPS
    parts = await read_form(request, max_bytes, form_too_large(max_bytes), most, count, incoming)
    if unknown := {part.name for part in parts} - {"files", *_FIELDS}:
        known = ", ".join(("files", *_FIELDS))
        raise refused(*((name, f"unknown field; known are {known}") for name in sorted(unknown)))
    files = [part for part in parts if part.name == "files"]
    if not 1 <= len(files) <= MAX_DOCUMENTS:
        raise refused(("files", f"1 to {MAX_DOCUMENTS} files are expected, not {len(files)}"))
    if not all(file.filename for file in files):
        raise refused(("files", "every part must be a file with a filename"))
    tenant = _text(parts, "tenant", "")
    allowed = tuple(sorted({part.text() for part in parts if part.name == "allowed"}))
    if "" in allowed:
        raise refused(("allowed", "the name of a group is expected, not an empty text"))
    submissions: list[Submission] = [
        SubmittedFile(
            name=clean(file.filename or "")[:MAX_SOURCE_CHARACTERS],
            data=file.data,
            path=str(file.path or ""),
            length=file.length,
            media_type=file.media_type,
            tenant=tenant,
            allowed=allowed,
            writer=writer,
        )
        for file in files
    ]
    size = sum(file.length for file in files)
    return Upload(collection=_text(parts, "collection", "default"), submissions=submissions, size=size)


_FIELDS = ("collection", "tenant", "allowed")


def _text(parts: Sequence[Part], field: str, default: str) -> str:
    named = [part for part in parts if part.name == field]
    text = named[0].text() if named else default
    if len(named) > 1 or any(part.filename is not None for part in named) or (named and not 1 <= len(text) <= 255):
        raise refused((field, "one text of 1 to 255 characters is expected"))
    return clean(text)


def refused(*match: tuple[str, str]) -> InvalidRequest:
    """The error of these fields and what is wrong with each."""
    problems = tuple(FieldProblem(f"/{name}", detail) for name, detail in match)
    return InvalidRequest("; ".join(f"{p.pointer}: {p.detail}" for p in problems), problems)
