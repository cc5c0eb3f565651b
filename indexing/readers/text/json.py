"""JSON and JSON lines: a document for each record of a file of records; any other JSON is one document, unchanged."""

import codecs
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import msgspec

from indexing.documents import POSITION, Document, Refused
from indexing.errors import UnreadableDocument
from indexing.readers.builder import covering, line_spans, one_line, trimmed
from indexing.readers.limits import ReadLimits, too_large
from indexing.readers.text.encoding import decoded, is_utf8, looks_binary, without_payloads
from indexing.readers.zip_xml import corrupt

_TEXT_FIELDS = ("text", "content", "contents", "body", "page_content")
_ID_FIELDS = ("_id", "id")
_SCALARS = (str, int, float, bool)
_SAMPLE = 2**20


def read_json(data: bytes, name: str, limits: ReadLimits) -> list[Document | Refused]:
    """A document per record of a top-level array of records; else one: the decoded file."""
    text, warnings = decoded(data)
    if not text.strip():
        return [Document(text=text, warnings=warnings)]
    try:
        value = _parse(text)
    except UnreadableDocument:
        # JSON lines are often called .json.
        return read_json_lines(data, name, limits)
    if isinstance(value, list) and _are_records(value):
        return list(_parts(enumerate(value, 1), warnings))
    block = trimmed(text, 0, len(text), "code")
    return [Document(text=text, blocks=(block,) if block else (), media_type="application/json", warnings=warnings)]


def read_json_lines(data: bytes, name: str, limits: ReadLimits) -> list[Document | Refused]:
    """A document per line if most lines are records; else one: the decoded file, a block a line."""
    text, warnings = decoded(data)
    lines = line_spans(text)
    values = list(_values(text, lines))
    if _are_records([value for _, value in values]):
        return list(_parts(values, warnings))
    if broken := [value for _, value in values if isinstance(value, UnreadableDocument)]:
        raise broken[0]
    blocks = (trimmed(text, start, end, "paragraph") for start, end in lines)
    whole = covering(text, (block for block in blocks if block))
    return [Document(text=text, blocks=whole, media_type="application/x-ndjson", warnings=warnings)]


def stream_json_lines(file: BinaryIO, name: str, limits: ReadLimits) -> Iterator[Document | Refused] | None:
    """What `read_json_lines` finds in UTF-8 whose first lines are records, in the order of the lines; else None.

    A line may have as many bytes as otherwise a file; a longer one is refused alone.
    """
    sample = file.read(_SAMPLE)
    lines = sample.splitlines()[:-1]
    values = [value for _, value in _values_of(enumerate(map(_decoded_line, lines), 1))]
    if looks_binary(sample) or not _are_records(values) or not is_utf8(file):
        return None
    file.seek(0)
    return _parts(_values_of(_lines(file, limits)), ())


def _lines(file: BinaryIO, limits: ReadLimits) -> Iterator[tuple[int, str | UnreadableDocument]]:
    """The number and the text of each line; only CR, LF and CRLF end one."""
    number = 0
    while line := file.readline(limits.max_bytes):
        size = len(line)
        while not line.endswith(b"\n") and (rest := file.readline(limits.max_bytes)):
            size += len(rest)
            line = rest[-1:]  # it is too long
        pieces = [line] if size > limits.max_bytes else line.removesuffix(b"\n").removesuffix(b"\r").split(b"\r")
        for piece in pieces:
            number += 1
            yield number, too_large(size, limits) if size > limits.max_bytes else _decoded_line(piece)


def _decoded_line(line: bytes) -> str:
    return without_payloads(line.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace"))


def _values(text: str, lines: list[tuple[int, int]]) -> Iterator[tuple[int, Any]]:
    yield from _values_of((number, text[start:end]) for number, (start, end) in enumerate(lines, 1))


def _values_of(lines: Iterable[tuple[int, str | UnreadableDocument]]) -> Iterator[tuple[int, Any]]:
    """The number and the value of each line that is not blank, or why it has none."""
    for number, line in lines:
        if isinstance(line, UnreadableDocument):
            yield number, line
        elif line := line.strip():
            try:
                yield number, _parse(line)
            except UnreadableDocument:
                yield number, UnreadableDocument("corrupt", f"Line {number} is not valid JSON.")


def _parse(text: str) -> Any:
    """Numbers that are none (NaN, Infinity), which many programs write, are null."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        pass
    try:
        value = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
        msgspec.json.encode(value)  # half a surrogate can be written as an escape, and is no character
        return value
    except (ValueError, RecursionError) as exc:
        raise corrupt("It is not valid JSON.") from exc


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(field), str) for field in _TEXT_FIELDS)


def _are_records(values: Sequence[Any]) -> bool:
    """Some may be broken: they are refused one by one."""
    return bool(values) and 2 * sum(map(_is_record, values)) >= len(values)


def _parts(values: Iterable[tuple[int, Any]], warnings: tuple[str, ...]) -> Iterator[Document | Refused]:
    seen: set[bytes] = set()  # digests: of millions of records the ids would take up as much as the file
    for number, value in values:
        if not _is_record(value):
            yield _refused(number, value)
            continue
        document = _record(f"{POSITION}{number}", value)
        digest = hashlib.blake2b(document.key.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if digest in seen:
            detail = f"An earlier record has the id {document.key!r} too; make the ids unique."
            yield Refused(part=f"#{number}", reason="duplicate_id", detail=detail)
            continue
        seen.add(digest)
        yield msgspec.structs.replace(document, warnings=warnings)


def _refused(number: int, value: Any) -> Refused:
    """The refusal of what is no record among records."""
    if isinstance(value, UnreadableDocument):
        return Refused(part=f"#{number}", reason=value.reason, detail=value.detail)
    if not isinstance(value, dict):
        return Refused(part=f"#{number}", reason="corrupt", detail="It is no JSON object, as the others are.")
    field = next((field for field in _TEXT_FIELDS if field in value), "")
    detail = f"Its field {field!r} is no text." if field else f"It has none of the fields {', '.join(_TEXT_FIELDS)}."
    return Refused(part=f"#{_id(value) or number}", reason="empty", detail=detail)


def _id(value: dict[str, Any]) -> str:
    """The record's own id; "" where it has none."""
    return next((str(value[field]) for field in _ID_FIELDS if isinstance(value.get(field), str | int)), "")


def _record(place: str, value: dict[str, Any]) -> Document:
    text_field = next(field for field in _TEXT_FIELDS if isinstance(value.get(field), str))
    id_field = next((field for field in _ID_FIELDS if isinstance(value.get(field), str | int)), None)
    title = value.get("title")
    extra = {key: item for key, item in value.items() if key not in (text_field, id_field, "title", "metadata")}
    given = value.get("metadata")
    metadata = {**_scalars(extra), **(given if isinstance(given, dict) else {})}
    text = value[text_field].replace("\0", "")
    return Document(
        text=text,
        title=one_line(title) if isinstance(title, str) else "",
        key=_id(value) or place,
        media_type="application/json",
        blocks=covering(text, ()),
        metadata=metadata,
    )


def _scalars(fields: dict[str, Any]) -> dict[str, Any]:
    """Numbers, strings, booleans and lists of them: what a filter can use."""
    return {
        key: item
        for key, item in fields.items()
        if isinstance(item, _SCALARS) or (isinstance(item, list) and all(isinstance(part, _SCALARS) for part in item))
    }
