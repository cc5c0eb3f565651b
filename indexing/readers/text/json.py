"""JSON and JSON lines: a document for each record of a file of records; any other JSON is one document, unchanged."""

from collections.abc import Iterator
from typing import Any

import msgspec

from indexing.documents import POSITION, Document
from indexing.errors import UnreadableDocument
from indexing.readers.builder import covering, line_spans, one_line, trimmed
from indexing.readers.limits import ReadLimits
from indexing.readers.text.encoding import decode
from indexing.readers.zip_xml import corrupt

_TEXT_FIELDS = ("text", "content", "contents", "body", "page_content")
_ID_FIELDS = ("_id", "id")
_SCALARS = (str, int, float, bool)


def read_json(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """A document per record of a top-level array of records; else one: the decoded file."""
    text = decode(data)
    if not text.strip():
        return [Document(text=text)]
    try:
        value = _parse(text)
    except UnreadableDocument:
        # JSON lines are often called .json.
        return read_json_lines(data, name, limits)
    if isinstance(value, list) and value and all(_is_record(item) for item in value):
        return _documents([(f"{POSITION}{number}", item) for number, item in enumerate(value, 1)])
    block = trimmed(text, 0, len(text), "code")
    return [Document(text=text, blocks=(block,) if block else (), media_type="application/json")]


def read_json_lines(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """A document per line if the lines are records; else one: the decoded file, a block a line."""
    text = decode(data)
    lines = line_spans(text)
    values = [(f"{POSITION}{number}", value) for number, value in _values(text, lines)]
    if values and all(_is_record(value) for _, value in values):
        return _documents(values)
    blocks = (trimmed(text, start, end, "paragraph") for start, end in lines)
    whole = covering(text, (block for block in blocks if block))
    return [Document(text=text, blocks=whole, media_type="application/x-ndjson")]


def _values(text: str, lines: list[tuple[int, int]]) -> Iterator[tuple[int, Any]]:
    for number, (start, end) in enumerate(lines, 1):
        if line := text[start:end].strip():
            try:
                yield number, _parse(line)
            except UnreadableDocument as exc:
                raise corrupt(f"Line {number} is not valid JSON.") from exc


def _parse(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise corrupt("It is not valid JSON.") from exc


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(field), str) for field in _TEXT_FIELDS)


def _documents(values: list[tuple[str, dict[str, Any]]]) -> list[Document]:
    documents = [_record(place, value) for place, value in values]
    seen: set[str] = set()
    for document in documents:
        if document.key in seen:
            raise corrupt(f"Two of its records have the id {document.key!r}; make the ids unique.")
        seen.add(document.key)
    # A record without text cannot be found by any search: it is not a document.
    return [document for document in documents if document.text.strip()]


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
        key=str(value[id_field]) if id_field else place,
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
