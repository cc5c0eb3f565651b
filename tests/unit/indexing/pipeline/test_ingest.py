import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from indexing.documents import EVERYTHING, Audience, Document
from indexing.errors import CollectionNotFound, DiskFull
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import (
    DocumentResult,
    SubmittedDocument,
    Versions,
    delete_document,
    drop_collection,
    finish_deletions,
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


def parts_of(source: str, *keys: str, tenant: str = "", whole: bool = True) -> list[SubmittedDocument]:
    """What was read from a file: a document for each key, whose text is the key."""
    writer = Audience(tenant=tenant) if tenant else EVERYTHING
    parts = [
        SubmittedDocument(
            writer=writer, tenant=tenant, source=source, document=Document(text=f"text of {key or 1}", key=key)
        )
        for key in keys
    ]
    ids = tuple(part.document_id() for part in parts)
    return [msgspec.structs.replace(parts[0], whole=ids if whole else ()), *parts[1:]]


MAIL = ("", "#/a.pdf", "#/b.zip#/c.txt")


async def test_a_mail_is_deleted_with_what_is_attached_to_it(bench: PipelineContext) -> None:
    """With the files in its files too; what another tenant has under the same names stays, and other documents do."""
    for tenant in ("red", "blue"):
        await put_documents(bench, "default", parts_of("a.eml", *MAIL, tenant=tenant))
    mail, _, inner = parts_of("a.eml", *MAIL, tenant="red")
    await put_documents(bench, "default", [note(f"{mail.document_id()}.mine", "mine"), note("a", "other")])
    blue = Audience(tenant="blue")
    assert not await delete_document(bench, "default", mail.key(), blue)
    assert await delete_document(bench, "default", mail.key(), Audience(tenant="red"))
    lineage = (await bench.store.info("default")).spec.lineage
    left = {key for key in await bench.manifest.submitted(lineage) if not key.startswith("blue")}
    assert left == {f"{mail.document_id()}.mine", "a"}
    assert len(await bench.manifest.submitted(lineage)) == 5
    assert await texts(bench) == sorted(["mine", "other", *(f"text of {key or 1}" for key in MAIL)])
    assert not await delete_document(bench, "default", inner.key(), Audience(tenant="red"))


async def test_an_archive_has_no_document_and_is_deleted_as_one(bench: PipelineContext) -> None:
    """Its id is that of its members up to the dot; an archive in it goes by the id up to the next one."""
    archive = parts_of("a.zip", "#/a.txt", "#/b.zip#/c.txt", "#/b.zip#/d.txt")
    await put_documents(bench, "default", archive)
    inner, _, _ = archive[1].document_id().rpartition(".")
    assert await delete_document(bench, "default", inner, EVERYTHING)
    assert await texts(bench) == ["text of #/a.txt"]
    assert await delete_document(bench, "default", inner.partition(".")[0], EVERYTHING)
    assert await texts(bench) == []


async def test_a_file_that_holds_fewer_files_than_before_leaves_none_behind(bench: PipelineContext) -> None:
    """What an upload no longer has is removed; while nobody knows whether it has it, it stays."""
    await put_documents(bench, "default", parts_of("a.eml", *MAIL))
    await put_documents(bench, "default", parts_of("a.eml", "", whole=False))
    assert len(await texts(bench)) == 3
    heard: list[dict[str, str]] = []

    async def announce(become: Mapping[str, str]) -> None:
        heard.append(dict(become))

    results = await put_documents(bench, "default", parts_of("a.eml", "", "#/a.pdf"), announce=announce)
    assert [one.status for one in results] == ["unchanged", "unchanged"]
    assert await texts(bench) == ["text of #/a.pdf", "text of 1"]
    assert heard[1:] == [{parts_of("a.eml", *MAIL)[2].key(): ""}]


async def test_an_attachment_of_a_mail_that_was_deleted_later_is_not_written(bench: PipelineContext) -> None:
    """A job that came before the deletion finds that of the mail, and its attachments follow."""
    mail, *_ = parts = parts_of("a.eml", *MAIL)

    async def overtaken(documents: Sequence[str]) -> Versions:
        return {mail.key(): {""}} if mail.key() in documents else {}

    await put_documents(bench, "default", [note("x", "one")])
    for part in (parts, parts[1:]):
        results = await put_documents(bench, "default", part, overtaken=overtaken)
        assert {(one.status, one.passages) for one in results} == {("unchanged", 0)}
    assert await texts(bench) == ["one"]


async def test_a_kill_in_the_middle_of_deleting_a_mail_is_finished(bench: PipelineContext) -> None:
    """None of its documents counts from the first moment on, and the next start clears all of them away."""
    await put_documents(bench, "default", parts_of("a.eml", *MAIL))
    lineage = (await bench.store.info("default")).spec.lineage
    keys = [part.key() for part in parts_of("a.eml", *MAIL)]
    await bench.manifest.announce_deletion(lineage, keys)  # and then it was killed
    assert await bench.manifest.submitted(lineage) == {}
    assert not await delete_document(bench, "default", keys[0], EVERYTHING)
    await finish_deletions(bench, "default", lineage)
    assert await texts(bench) == []
    assert await bench.manifest.unfinished(lineage) == []


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
