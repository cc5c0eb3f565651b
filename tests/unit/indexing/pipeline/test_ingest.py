import asyncio
from pathlib import Path

import pytest

from indexing.documents import EVERYTHING, Document
from indexing.errors import CollectionNotFound, DiskFull
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import (
    DocumentResult,
    SubmittedDocument,
    delete_document,
    drop_collection,
    put_documents,
)
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import index, passages, texts

pytestmark = pytest.mark.anyio


def note(key: str, text: str, source: str = "") -> SubmittedDocument:
    return SubmittedDocument(writer=EVERYTHING, id=key, source=source, document=Document(text=text))


async def test_a_document_is_created_updated_and_left_alone(bench: PipelineContext, embedder: HashEmbedder) -> None:
    """The same content again embeds nothing; other content replaces the earlier one."""
    assert await put_documents(bench, "default", [note("x", "one")]) == [
        DocumentResult(id="x", source="", status="created", passages=1)
    ]
    count = len(embedder.embedded)
    assert await put_documents(bench, "default", [note("x", "one")]) == [
        DocumentResult(id="x", source="", status="unchanged", passages=1)
    ]
    assert len(embedder.embedded) == count
    assert await put_documents(bench, "default", [note("x", "two")]) == [
        DocumentResult(id="x", source="", status="updated", passages=1)
    ]
    assert await texts(bench) == ["two"]


async def test_what_a_document_warns_of_is_in_its_result(bench: PipelineContext) -> None:
    """Whether it is written or was there already."""
    document = SubmittedDocument(writer=EVERYTHING, id="a", document=Document(text="Text.", warnings=("cut",)))
    results = [(await put_documents(bench, "default", [document]))[0] for _ in range(2)]
    assert [(one.status, one.warnings) for one in results] == [("created", ("cut",)), ("unchanged", ("cut",))]


async def test_what_a_full_disk_refuses_leaves_no_trace(bench: PipelineContext) -> None:
    """Neither the manifest nor a later run knows of a document that was refused, or of a deletion."""
    await put_documents(bench, "default", [note("x", "one")])
    lineage = (await bench.store.info("default")).spec.lineage
    bench.disk.reserve_bytes = 10 * bench.disk.free()
    with pytest.raises(DiskFull):
        await put_documents(bench, "default", [note("y", "two")])
    with pytest.raises(DiskFull):
        await delete_document(bench, "default", "x", EVERYTHING)
    bench.disk.reserve_bytes = 0
    assert await bench.manifest.submitted(lineage) == {"x": Document(text="one").content_hash()}
    assert await texts(bench) == ["one"]


async def test_one_bad_document_does_not_fail_the_rest(bench: PipelineContext) -> None:
    """An empty document is an outcome with its reason; outcomes come in order."""
    outcomes = await put_documents(bench, "default", [note("a", "one"), note("b", " \n"), note("c", "three")])
    assert [(o.id, o.status, o.reason) for o in outcomes] == [
        ("a", "created", None),
        ("b", "failed", "empty"),
        ("c", "created", None),
    ]


async def test_an_id_twice_in_one_call_ends_with_the_later_one(bench: PipelineContext) -> None:
    """The second replaces the first, and says so; the same content twice is unchanged."""
    outcomes = await put_documents(bench, "default", [note("x", "one"), note("x", "two"), note("x", "two")])
    assert [outcome.status for outcome in outcomes] == ["created", "updated", "unchanged"]
    assert await texts(bench) == ["two"]


async def test_a_document_without_an_id_is_named_by_its_source_or_its_content(bench: PipelineContext) -> None:
    """The same source is the same document; without one, the same text is."""
    await put_documents(
        bench, "default", [note("", "first", "s"), note("", "same"), note("", "same"), note("", "second", "s")]
    )
    assert await texts(bench) == ["same", "second"]


async def test_an_id_of_a_file_s_document_is_taken(bench: PipelineContext, tmp_path: Path) -> None:
    """It is not overwritten; the outcome names the file."""
    (tmp_path / "a.jsonl").write_text('{"id": "x", "text": "from the file"}')
    await index(bench, tmp_path, "a.jsonl")
    (outcome,) = await put_documents(bench, "default", [note("x", "by hand")])
    assert (outcome.status, outcome.reason) == ("failed", "duplicate_id")
    assert "a.jsonl" in (outcome.detail or "")
    assert await texts(bench) == ["from the file"]


async def test_a_deleted_document_is_gone(bench: PipelineContext) -> None:
    """With its passages and its record; deleting it again finds nothing."""
    await put_documents(bench, "default", [note("x", "one"), note("y", "two")])
    assert await delete_document(bench, "default", "x", EVERYTHING) is True
    assert await delete_document(bench, "default", "x", EVERYTHING) is False
    assert [passage.document_id for passage in await passages(bench)] == ["y"]
    with pytest.raises(CollectionNotFound):
        await delete_document(bench, "nowhere", "x", EVERYTHING)


async def test_a_deleted_document_of_a_file_comes_back_with_the_file(bench: PipelineContext, tmp_path: Path) -> None:
    """A run brings the collection in line with the files."""
    (tmp_path / "a.jsonl").write_text('{"id": "x", "text": "one"}\n{"id": "y", "text": "two"}')
    await index(bench, tmp_path, "a.jsonl")
    await delete_document(bench, "default", "x", EVERYTHING)
    assert await texts(bench) == ["two"]
    assert (await index(bench, tmp_path, "a.jsonl")).created == 1
    assert await texts(bench) == ["one", "two"]


async def test_a_dropped_collection_leaves_the_others_alone(bench: PipelineContext) -> None:
    """Its manifest goes with it; that of another collection, and of a rebuild under way, stays."""
    await put_documents(bench, "default", [note("x", "one")])
    await put_documents(bench, "other", [note("x", "two")])
    lineage = (await bench.store.info("other")).spec.lineage
    (record,) = await bench.manifest.documents(lineage, EVERYTHING)
    await bench.manifest.announce("rebuild-under-way", [record])
    await drop_collection(bench, "other")
    assert await bench.manifest.count(lineage) == 0
    assert len(await bench.manifest.unfinished("rebuild-under-way")) == 1
    assert await put_documents(bench, "default", [note("x", "one")]) == [
        DocumentResult(id="x", source="", status="unchanged", passages=1)
    ]
    with pytest.raises(CollectionNotFound):
        await drop_collection(bench, "other")


async def test_the_same_id_put_at_once_by_many_ends_as_one_document(bench: PipelineContext) -> None:
    """Whoever comes last counts, and exactly one version stays."""
    await asyncio.gather(*(put_documents(bench, "default", [note("x", f"version {n}")]) for n in range(8)))
    assert len(await texts(bench)) == 1
