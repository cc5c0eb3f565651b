import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from indexing.documents import EVERYTHING, Document, PageStart, Passage
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import SubmittedDocument, put_documents
from indexing.pipeline.recovery import compare, document_of, open_manifest, recover_lost, repair
from indexing.store.base import Vector
from indexing.store.embedded import EmbeddedStore
from tests.fakes.library import index, passages, workbench
from tests.fakes.points import passage, point

pytestmark = pytest.mark.anyio

TEXT = "\n\n".join(f"Paragraph {n} speaks of zebras and of tapirs, and of number {n} in some words." for n in range(90))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[PipelineContext]:
    """A folder of three files and two submitted documents, one of them long, in the collection `default`."""
    bench = workbench(EmbeddedStore(tmp_path / "index"), tmp_path)
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("Zebras have stripes.")
    (folder / "b.txt").write_text("Tapirs have snouts.")
    (folder / "c.jsonl").write_text('{"id": "r1", "text": "One."}\n{"id": "r2", "text": "Two."}\n')
    await index(bench, folder)
    long = Document(text=TEXT, title="Long", metadata={"lang": "en"})
    notes = [
        SubmittedDocument(writer=EVERYTHING, id="long", document=long),
        SubmittedDocument(writer=EVERYTHING, id="n", document=Document(text="Note.")),
    ]
    await put_documents(bench, "default", notes)
    yield bench
    await bench.manifest.close()
    await bench.store.close()


async def lineage(bench: PipelineContext) -> str:
    return (await bench.store.info("default")).spec.lineage


async def lose(bench: PipelineContext) -> None:
    """Forget everything that is on record."""
    await bench.manifest.forget_lineage(await lineage(bench))


async def agree(bench: PipelineContext) -> bool:
    return (await compare(bench.manifest, bench.store, await bench.store.info("default"))).agree


async def test_a_lost_manifest_is_made_anew_from_the_index(bench: PipelineContext, tmp_path: Path) -> None:
    """Every document is found by its id again, with its text, and nothing is embedded or deleted."""
    before = await passages(bench)
    assert await recover_lost(bench) == []
    await lose(bench)
    assert [(one.collection, one.recovered) for one in await recover_lost(bench)] == [("default", 6)]
    assert await passages(bench) == before
    assert await agree(bench)
    whole = await bench.manifest.document_with_body(await lineage(bench), "long")
    assert whole is not None
    assert whole.body is not None
    assert (whole.body.text, whole.body.title, whole.body.metadata) == (TEXT, "Long", {"lang": "en"})
    again = [SubmittedDocument(writer=EVERYTHING, id="n", document=Document(text="Note."))]
    assert [result.status for result in await put_documents(bench, "default", again)] == ["unchanged"]


async def test_files_are_taken_over_by_the_next_run(bench: PipelineContext, tmp_path: Path) -> None:
    """What is unchanged is not read into the index again; what changed, or was deleted in a file, is."""
    await lose(bench)
    await recover_lost(bench)
    (tmp_path / "docs" / "b.txt").write_text("Tapirs swim.")
    summary = await index(bench, tmp_path / "docs")
    assert (summary.created, summary.updated, summary.refused) == (0, 1, ())
    (tmp_path / "docs" / "a.txt").unlink()
    summary = await index(bench, tmp_path / "docs")
    assert (summary.deleted, summary.total_documents) == (1, 5)
    assert {p.source for p in await passages(bench)} == {"b.txt", "c.jsonl", ""}


async def test_a_rebuild_after_a_loss_keeps_the_texts(bench: PipelineContext, tmp_path: Path) -> None:
    """Recovered documents are carried over as submitted ones are."""
    await lose(bench)
    await recover_lost(bench)
    before = [(p.document_id, p.start, p.text) for p in await passages(bench)]
    summary = await index(bench, tmp_path / "docs", rebuild=True)
    assert summary.total_documents == 6
    assert [(p.document_id, p.start, p.text) for p in await passages(bench)] == before


async def test_a_repair_records_what_is_unknown(bench: PipelineContext) -> None:
    """A part of the manifest that was lost comes back, the rest stays as it is."""
    await bench.manifest.announce_deletion(await lineage(bench), ["long"])
    await bench.manifest.settled(await lineage(bench), ["long"])
    assert not await agree(bench)
    assert await recover_lost(bench) == []
    repaired = await repair(bench, "default")
    assert (repaired.recovered, repaired.to_read, repaired.written) == (1, 0, 0)
    assert await agree(bench)
    assert await bench.manifest.document(await lineage(bench), "long") is not None


async def test_a_repair_has_documents_written_again_that_lack_passages(bench: PipelineContext, tmp_path: Path) -> None:
    """Files by the next run over them, and submitted documents from their bodies."""
    before = await passages(bench)
    file = next(p.document_id for p in before if p.source == "a.txt")
    await bench.store.delete_documents("default", [file, "long"])
    assert not await agree(bench)
    repaired = await repair(bench, "default")
    assert (repaired.recovered, repaired.to_read, repaired.written) == (0, 1, 1)
    await index(bench, tmp_path / "docs")
    assert await passages(bench) == before
    assert await agree(bench)


async def test_a_manifest_from_earlier_learns_what_was_written_since(bench: PipelineContext, tmp_path: Path) -> None:
    """New documents and new versions: what only the index has of submitted ones is later than what is on record."""
    backup = tmp_path / "backup.sqlite3"
    with sqlite3.connect(tmp_path / "manifest.sqlite3") as live, sqlite3.connect(backup) as copy:
        live.backup(copy)
    later = [
        SubmittedDocument(writer=EVERYTHING, id=key, document=Document(text=f"Later {key}.")) for key in ("n", "new")
    ]
    await put_documents(bench, "default", later)
    with sqlite3.connect(backup) as copy, sqlite3.connect(tmp_path / "manifest.sqlite3") as live:
        copy.backup(live)
    repaired = await repair(bench, "default")
    assert (repaired.recovered, repaired.to_read, repaired.written) == (2, 0, 0)
    for one in later:
        record = await bench.manifest.document_with_body(await lineage(bench), one.id)
        assert record is not None
        assert (record.version, record.body and record.body.text) == (one.document.content_hash(), one.document.text)
    assert await agree(bench)


async def test_of_two_versions_of_a_lost_document_the_fuller_one_counts(bench: PipelineContext) -> None:
    """What a kill left half written does not win; passages of other versions go."""
    points = [point("x", version="old", ordinal=n, dense=one) for n, one in enumerate(await vectors(bench, 3))]
    points += [point("x", version="new", ordinal=n, dense=one) for n, one in enumerate(await vectors(bench, 2))]
    await bench.store.upsert("default", points)
    await repair(bench, "default")
    record = await bench.manifest.document(await lineage(bench), "x")
    assert record is not None
    assert (record.version, record.passages) == ("old", 3)
    assert {p.version for p in await passages(bench) if p.document_id == "x"} == {"old"}


async def vectors(bench: PipelineContext, count: int) -> list[Vector]:
    return list((await bench.model()).embed_documents([str(n) for n in range(count)]))


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([(0, "ab"), (2, "cd")], "abcd"),
        ([(3, "ab"), (7, "cd")], "\n\n\nab\n\ncd"),
        ([(4, "ef"), (0, "abcdef")], "abcdef"),
        ([(0, "abcd"), (2, "cdef")], "abcdef"),
        ([(0, "a"), (2**40, "b")], "a" + "\n" * 1_000_000 + "b"),
    ],
)
def test_texts_are_put_together_at_their_offsets(pieces: list[tuple[int, str]], text: str) -> None:
    """Overlaps are removed, gaps become line feeds of the same length, and an absurd offset costs no memory."""
    assert document_of([_at(start, part) for start, part in pieces]).text == text


def _at(start: int, text: str) -> Passage:

    return msgspec.structs.replace(passage("d", text=text, ordinal=start), start=start, end=start + len(text))


def test_pages_and_metadata_come_back() -> None:
    """Each page begins at its first passage, or inside of one."""

    first = msgspec.structs.replace(_at(0, "abcdef"), page=1, later_pages=(PageStart(4, 2),), metadata={"a": 1})
    second = msgspec.structs.replace(_at(7, "gh"), page=2)
    third = msgspec.structs.replace(_at(10, "ij"), page=3)
    document = document_of([first, second, third])
    assert document.pages == (PageStart(0, 1), PageStart(4, 2), PageStart(10, 3))
    assert document.metadata == {"a": 1}


@pytest.mark.parametrize("damage", ["nothing", "none", "text", "torn"])
async def test_a_damaged_manifest_is_moved_aside(tmp_path: Path, damage: str) -> None:
    """One that cannot be read is kept in quarantine; a good one, or none at all, is opened as it is."""
    path = tmp_path / "manifest.sqlite3"
    if damage != "none":
        await open_manifest(path, tmp_path / "quarantine").close()
        db = sqlite3.connect(path)
        with db:
            db.execute("INSERT INTO documents VALUES ('l', 'd', NULL, '', '', 'v', 1, 0, NULL, '')")
        db.close()
    if damage == "text":
        path.write_text("this is no database " * 500)
    if damage == "torn":
        content = path.read_bytes()
        path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    manifest = open_manifest(path, tmp_path / "quarantine")
    try:
        kept = 1 if damage == "nothing" else 0
        assert await manifest.count("l") == kept
        moved = [file.read_bytes() for file in (tmp_path / "quarantine").glob("*Z")]
        assert len(moved) == (1 if damage in ("text", "torn") else 0)
    finally:
        await manifest.close()
