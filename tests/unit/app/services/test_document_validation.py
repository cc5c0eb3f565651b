"""Which documents can be indexed."""

from itertools import chain

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.document_validation import (
    MAX_METADATA_BYTES,
    MAX_METADATA_KEYS,
    Validated,
    WholeFile,
    failed,
    id_problem,
    validate,
)
from indexing.documents import EVERYTHING, Document
from indexing.pipeline.ingest import DocumentResult, SubmittedDocument
from indexing.pipeline.planning import file_document_id

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too


def offer(text: str = "text", id: str = "", source: str = "", **fields: object) -> SubmittedDocument:
    return SubmittedDocument(writer=EVERYTHING, document=Document(text=text, **fields), id=id, source=source)  # type: ignore[arg-type]


@given(TEXT, TEXT, TEXT, st.dictionaries(TEXT, JSON, max_size=4))
def test_whatever_is_offered_can_be_stored_or_is_rejected(text: str, title: str, name: str, metadata: object) -> None:
    """No NUL, no lone surrogate, no integer beyond 64 bits gets through, and text keeps its length."""
    (found,) = validate([offer(text, name, title=title, metadata=metadata)])
    if isinstance(found, DocumentResult):
        assert found.reason in ("invalid_id", "invalid_metadata")
        assert found.detail
        return
    document = found.document
    stored = msgspec.json.encode(document)
    assert len(document.text) == len(text)
    assert b"\\u0000" not in stored
    assert len(msgspec.json.encode(document.metadata)) <= MAX_METADATA_BYTES
    assert found.id
    assert validate([found]) == [found]


def test_keys_of_metadata_are_bounded_in_number() -> None:
    """At all levels together; the failure says how many there are."""
    (fits,) = validate([offer(metadata={"o": {f"k{i}": i for i in range(MAX_METADATA_KEYS - 1)}})])
    assert isinstance(fits, SubmittedDocument)
    (found,) = validate([offer(metadata={"o": [{f"k{i}": i} for i in range(MAX_METADATA_KEYS)]})])
    assert isinstance(found, DocumentResult)
    assert (found.reason, "this has 257" in (found.detail or "")) == ("invalid_metadata", True)


@pytest.mark.parametrize(("levels", "fits"), [(7, True), (8, False)])
def test_metadata_is_bounded_in_depth(levels: int, fits: bool) -> None:
    """The object itself is the first of eight levels."""
    value: object = 1
    for _ in range(levels):
        value = [value]
    (found,) = validate([offer(metadata={"a": value})])
    assert isinstance(found, SubmittedDocument) is fits


def test_the_first_of_an_id_counts() -> None:
    """A later one is rejected, also where the id comes from the source, or from the content."""
    found = validate([offer("a", "x"), offer("b", "x"), offer("c", source="s"), offer("d", source="s"), *[offer()] * 2])
    assert [isinstance(each, SubmittedDocument) for each in found] == [True, False, True, False, True, False]
    assert {each.reason for each in found if isinstance(each, DocumentResult)} == {"duplicate_id"}


def test_a_rejected_document_keeps_no_id_from_others() -> None:
    """Only what is indexed takes its id."""
    rejected = offer("a", "x", metadata={"a": 2**64})
    assert [isinstance(each, SubmittedDocument) for each in validate([rejected, offer("b", "x")])] == [False, True]


@pytest.mark.parametrize("document_id", ["", ".", "..", "/", "//", "a\0", "a\x7f", "\x85", "\ud800", "i" * 513])
def test_some_ids_cannot_be(document_id: str) -> None:
    """What no URL can ask for, or no log can show."""
    assert id_problem(document_id)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize(
    ("keys", "failure", "whole"),
    [
        (("f", "f.1111111111111111", "f.2222222222222222"), None, ("f", "f.1111111111111111", "f.2222222222222222")),
        (
            ("f", "f.1111111111111111", "f.2222222222222222"),
            "password",
            ("f", "f.1111111111111111", "f.2222222222222222"),
        ),
        (("f", "f.1111111111111111", "f.2222222222222222"), "timeout", ()),
        (("f", "r1", "f.2222222222222222"), None, ()),
        ((), "empty", ()),
    ],
)
def test_the_last_document_of_a_file_knows_all(
    keys: tuple[str, ...], failure: str | None, whole: tuple[str, ...], size: int
) -> None:
    """In whatever pieces it is read; not where records have ids of their own, nor while a part fails that another time
    may not.
    """
    file = file_document_id("file.zip", "")
    ids = {key: key.replace("f", file, 1) if key.startswith("f") else key for key in keys}
    parts: list[Validated] = [offer(id=ids[key], source="file.zip") for key in keys]
    if failure:
        parts.insert(2, failed(failure, "why", source="file.zip"))
    read = WholeFile()
    pieces = [read.add(parts[start : start + size]) for start in range(0, len(parts), size)]
    documents = [*chain(*pieces), *read.end()]
    assert [getattr(one, "whole", ()) for one in documents if getattr(one, "whole", ())] == (
        [tuple(ids[key] for key in whole)] if whole else []
    )
    assert [msgspec.structs.replace(one, whole=()) if hasattr(one, "whole") else one for one in documents] == parts
