import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from indexing.documents import EVERYTHING, Document
from indexing.embedding.model import Lane, Vectors
from indexing.errors import CollectionDamaged, Conflict, EmbedderMismatch, EmbedderUnavailable, StoreUnavailable
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import SubmittedDocument, delete_document, drop_collection, put_documents
from indexing.pipeline.planning import file_document_id
from indexing.pipeline.progress import Advanced, Event, Notice, NotIndexed, Planned, SyncRequest
from indexing.pipeline.sync import sync
from indexing.readers import read_pieces
from indexing.readers.limits import ReadLimits
from indexing.settings import QUICKSTART_MODEL
from indexing.store.base import Point
from indexing.store.embedded import EmbeddedStore
from indexing.store.server import ServerStore
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import content, index, passages, records, texts, workbench
from tests.fakes.source import GivenEmbedder
from tests.unit.indexing.readers.making import pdf

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files to index."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("apple", "birch", "cedar"):
        (folder / f"{name}.txt").write_text(f"The {name} stands in the garden.")
    return folder


def write_records(path: Path, **records: str) -> None:
    path.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in records.items()))


def reasons(refused: Sequence[NotIndexed]) -> list[tuple[str, str, bool]]:
    return [(item.source, item.reason, item.kept) for item in refused]


async def test_every_file_of_a_folder_becomes_searchable(bench: PipelineContext, folder: Path) -> None:
    """A first run writes every document, and its summary counts them."""
    summary = await index(bench, folder)
    assert (summary.created, summary.updated, summary.unchanged, summary.deleted) == (3, 0, 0, 0)
    assert (summary.total_documents, summary.total_passages, summary.refused) == (3, 3, ())
    assert await texts(bench) == [f"The {name} stands in the garden." for name in ("apple", "birch", "cedar")]
    assert {passage.source for passage in await passages(bench)} == {"apple.txt", "birch.txt", "cedar.txt"}


async def test_an_unchanged_folder_neither_embeds_nor_loads_the_model(
    bench: PipelineContext, folder: Path, embedder: HashEmbedder
) -> None:
    """A second run over the same files does nothing, even when one of them is refused every time."""
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 cut short")
    await index(bench, folder)
    before = len(embedder.embedded)
    events: list[Event] = []
    summary = await index(bench, folder, report=events.append)
    assert len(embedder.embedded) == before
    assert not [event for event in events if isinstance(event, Notice)]
    assert (summary.created, summary.updated, summary.unchanged, summary.passages) == (0, 0, 3, 0)
    assert reasons(summary.refused) == [("broken.pdf", "corrupt", False)]


async def test_a_run_says_that_the_model_does_not_read_the_documents(
    bench: PipelineContext, folder: Path, embedder: HashEmbedder
) -> None:
    """Once, and only where there is something to embed."""
    embedder.model_id = QUICKSTART_MODEL
    for name in ("eins", "zwei"):
        (folder / f"{name}.txt").write_text("Der Garten ist von dem Haus aus nicht zu sehen.")
    events: list[Event] = []
    await index(bench, folder, report=events.append)
    await index(bench, folder, report=events.append)
    advice = [event.detail for event in events if isinstance(event, Notice) and event.stage == "advice"]
    assert [detail.split(" is not in English")[0] for detail in advice] in (["eins.txt"], ["zwei.txt"])


async def test_a_run_says_what_of_a_file_could_not_be_read(bench: PipelineContext, folder: Path) -> None:
    """A file that is read in part is indexed, and not in silence."""
    (folder / "scans.pdf").write_bytes(pdf([(72, 100, "The only page with text.")], *[[]] * 9))
    events: list[Event] = []
    summary = await index(bench, folder, report=events.append)
    assert summary.created == 4
    advice = [event.detail for event in events if isinstance(event, Notice) and event.stage == "advice"]
    assert advice == ["scans.pdf: 9 of its 10 pages have no text."]


async def test_a_changed_file_is_replaced_without_leftovers(
    bench: PipelineContext, folder: Path, embedder: HashEmbedder
) -> None:
    """Only the changed document is embedded, and nothing of its earlier version stays."""
    (folder / "apple.txt").write_text(
        "\n\n".join(f"Apple number {n}. " + "It is red and round. " * 30 for n in range(5))
    )
    await index(bench, folder)
    embedder.embedded.clear()
    (folder / "apple.txt").write_text("A pear now.")
    summary = await index(bench, folder)
    assert (summary.created, summary.updated, summary.total_passages) == (0, 1, 3)
    assert len(embedder.embedded) == 1
    assert await texts(bench) == ["A pear now.", "The birch stands in the garden.", "The cedar stands in the garden."]


async def test_a_file_that_is_gone_is_deleted(bench: PipelineContext, folder: Path) -> None:
    """Its documents leave the store and the manifest."""
    await index(bench, folder)
    (folder / "birch.txt").unlink()
    summary = await index(bench, folder)
    assert (summary.deleted, summary.total_documents, summary.total_passages) == (1, 2, 2)
    assert "birch.txt" not in {passage.source for passage in await passages(bench)}


async def test_what_is_gone_is_kept_when_asked(bench: PipelineContext, folder: Path) -> None:
    """With `delete` off, documents whose files are gone stay."""
    await index(bench, folder)
    (folder / "birch.txt").unlink()
    assert (await index(bench, folder, delete=False)).total_documents == 3


async def test_only_what_the_inputs_cover_is_deleted(bench: PipelineContext, folder: Path) -> None:
    """A run over one file leaves the documents of missing others alone."""
    await index(bench, folder)
    (folder / "birch.txt").unlink()
    assert (await index(bench, folder, "apple.txt")).total_documents == 3


async def test_a_renamed_file_leaves_one_copy(bench: PipelineContext, folder: Path) -> None:
    """The document under the old name is deleted, the one under the new name is there."""
    await index(bench, folder)
    (folder / "birch.txt").rename(folder / "beech.txt")
    summary = await index(bench, folder)
    assert (summary.created, summary.deleted, summary.total_passages) == (1, 1, 3)
    assert [p.source for p in await passages(bench) if "birch" in p.text] == ["beech.txt"]


async def test_records_of_a_renamed_file_are_taken_over(bench: PipelineContext, folder: Path) -> None:
    """Records with ids of their own move to the new file; none is refused, none is lost."""
    write_records(folder / "a.jsonl", one="the first record", two="the second record")
    await index(bench, folder)
    (folder / "a.jsonl").rename(folder / "b.jsonl")
    summary = await index(bench, folder)
    assert (summary.refused, summary.total_documents) == ((), 5)
    assert {p.source for p in await passages(bench) if p.document_id in ("one", "two")} == {"b.jsonl"}
    assert (await index(bench, folder)).unchanged == 5


async def test_a_record_moves_from_one_file_to_another(bench: PipelineContext, folder: Path) -> None:
    """A record that a file gives up can be another's in the same run."""
    write_records(folder / "a.jsonl", one="the first record", two="the second record")
    write_records(folder / "b.jsonl", three="the third record")
    await index(bench, folder, "a.jsonl", "b.jsonl")
    write_records(folder / "a.jsonl", one="the first record")
    write_records(folder / "b.jsonl", three="the third record", two="the second record")
    assert (await index(bench, folder, "a.jsonl", "b.jsonl")).refused == ()
    assert [(p.document_id, p.source) for p in await passages(bench)] == [
        ("one", "a.jsonl"),
        ("three", "b.jsonl"),
        ("two", "b.jsonl"),
    ]


async def test_records_are_compared_one_by_one(bench: PipelineContext, folder: Path, embedder: HashEmbedder) -> None:
    """Of a changed JSONL file only changed and new records are embedded, and removed ones are deleted."""
    write_records(folder / "a.jsonl", one="the first", two="the second", three="the third")
    await index(bench, folder, "a.jsonl")
    embedder.embedded.clear()
    write_records(folder / "a.jsonl", one="the first", two="the second, changed", four="the fourth")
    summary = await index(bench, folder, "a.jsonl")
    assert (summary.created, summary.updated, summary.unchanged, summary.deleted) == (1, 1, 1, 1)
    assert sorted(embedder.embedded) == ["the fourth", "the second, changed"]
    assert await texts(bench) == ["the first", "the fourth", "the second, changed"]


async def test_two_records_of_one_id_are_one_document(bench: PipelineContext, folder: Path) -> None:
    """The first one has the id; the other is refused."""
    (folder / "a.jsonl").write_text('{"id": "one", "text": "a"}\n{"id": "one", "text": "b"}\n')
    summary = await index(bench, folder, "a.jsonl")
    assert reasons(summary.refused) == [("a.jsonl#2", "duplicate_id", False)]
    assert await texts(bench) == ["a"]


async def test_a_broken_record_is_refused_alone(bench: PipelineContext, folder: Path) -> None:
    """The others are indexed; nothing is deleted while it is broken; every run reads it again and says so."""
    write_records(folder / "a.jsonl", one="the first", two="the second", three="the third")
    await index(bench, folder, "a.jsonl")
    lines = (folder / "a.jsonl").read_text().splitlines()
    (folder / "a.jsonl").write_text("\n".join([lines[0].replace("first", "changed"), lines[1][:-4], lines[2]]))
    for _ in range(2):
        summary = await index(bench, folder, "a.jsonl")
        assert reasons(summary.refused) == [("a.jsonl#2", "corrupt", False)]
        assert (summary.failed, summary.refused[0].detail) == (1, "Line 2 is not valid JSON.")
        assert await texts(bench) == ["the changed", "the second", "the third"]


async def test_a_record_without_text_is_skipped(bench: PipelineContext, folder: Path) -> None:
    """It is no failure, and what it said before is deleted."""
    write_records(folder / "a.jsonl", one="the first", two="the second")
    await index(bench, folder, "a.jsonl")
    (folder / "a.jsonl").write_text('{"id": "one", "text": "the first"}\n{"id": "two", "text": null}\n')
    summary = await index(bench, folder, "a.jsonl")
    assert (reasons(summary.refused), summary.failed) == ([("a.jsonl#two", "empty", False)], 0)
    assert await texts(bench) == ["the first"]


async def test_two_files_with_the_same_new_id_do_not_overwrite_each_other(bench: PipelineContext, folder: Path) -> None:
    """Within one run the first file gets the id; the second is refused, and again by the next run."""
    write_records(folder / "a.jsonl", one="from a")
    write_records(folder / "b.jsonl", one="from b", two="also from b")
    for _ in range(2):
        summary = await index(bench, folder, "a.jsonl", "b.jsonl")
        assert reasons(summary.refused) == [("b.jsonl", "duplicate_id", False)]
        assert "a.jsonl" in summary.refused[0].detail
        assert await texts(bench) == ["also from b", "from a"]
    (folder / "a.jsonl").unlink()
    assert (await index(bench, folder)).refused == ()
    assert "from b" in await texts(bench)


async def test_a_file_that_becomes_unreadable_keeps_its_earlier_version(bench: PipelineContext, folder: Path) -> None:
    """The refusal says so."""
    await index(bench, folder)
    (folder / "apple.txt").write_bytes(b"\0\1\2\3" * 100)
    (folder / "birch.txt").write_text("")
    summary = await index(bench, folder)
    assert reasons(summary.refused) == [("apple.txt", "binary", True), ("birch.txt", "empty", True)]
    assert summary.total_passages == 3


async def test_only_what_should_have_been_read_fails(bench: PipelineContext, folder: Path) -> None:
    """A file of a kind that is never read is skipped, unless it was read before: then its text is out of date."""
    (folder / "empty.txt").write_text("")
    (folder / "old.mobi").write_bytes(b"BOOKMOBI" + bytes(600))
    summary = await index(bench, folder)
    assert {one.source: one.reason for one in summary.refused} == {"empty.txt": "empty", "old.mobi": "unsupported"}
    assert (summary.failed, all(one.skipped for one in summary.refused)) == (0, True)
    (folder / "apple.txt").write_text("")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 cut short")
    summary = await index(bench, folder)
    assert [one.source for one in summary.refused if not one.skipped] == ["apple.txt", "broken.pdf"]
    assert summary.failed == 2


async def test_what_cannot_be_read_is_not_read_again_until_it_changes(bench: PipelineContext, folder: Path) -> None:
    """It is reported by every run as before; a change of the file or of the limits, or the caller, has it read."""
    broken, picture = folder / "broken.jsonl", folder / "picture.raw"
    broken.write_text('{"id": "a", "te')
    picture.write_bytes(b"\x7fRAW" + bytes(600))
    first, second = await index(bench, folder), await index(bench, folder)
    assert [one.known for one in (*first.refused, *second.refused)] == [False, False, True, True]
    assert reasons(second.refused) == reasons(first.refused)
    assert (second.failed, second.refused[1].skipped) == (1, True)
    assert not any(one.known for one in (await index(bench, folder, retry_refused=True)).refused)
    broken.write_text('{"id": "a", "text": "It is whole now."}')
    assert [(one.source, one.known) for one in (await index(bench, folder)).refused] == [("picture.raw", True)]
    assert "It is whole now." in await texts(bench)
    patient = msgspec.structs.replace(bench, limits=ReadLimits(max_seconds=77.0))
    assert not any(one.known for one in (await index(patient, folder)).refused)
    picture.unlink()
    assert (await index(bench, folder)).refused == ()
    assert await bench.manifest.refused((await bench.store.info("default")).spec.lineage) == {}


async def test_what_a_quieter_machine_may_read_is_tried_again(bench: PipelineContext, tmp_path: Path) -> None:
    """A file that took too long is read by every run."""
    (tmp_path / "slow.txt").write_text("It takes its time.")
    hasty = msgspec.structs.replace(bench, limits=ReadLimits(max_seconds=1e-6))
    summaries = [await index(hasty, tmp_path, "slow.txt") for _ in range(2)]
    assert [(one.reason, one.known) for run in summaries for one in run.refused] == [("timeout", False)] * 2


async def test_files_of_one_name_are_told_apart(bench: PipelineContext, tmp_path: Path, embedder: HashEmbedder) -> None:
    """By the folder, in passages, documents and refusals; one that is indexed already keeps its name, unembedded."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"This is about {name}.")
        (tmp_path / name / "picture.png").write_bytes(b"\x89PNG" + bytes(600))
    await index(bench, tmp_path, "a")
    embedder.embedded.clear()
    summary = await index(bench, tmp_path, "a", "b", "c")
    names = {passage.source for passage in await passages(bench)}
    assert names == {"README.md", "b/README.md", "c/README.md"}
    assert [text.splitlines()[-1] for text in embedder.embedded] == ["This is about b.", "This is about c."]
    assert {one.source for one in summary.refused} == {f"{name}/picture.png" for name in ("a", "b", "c")}
    (tmp_path / "b" / "README.md").write_text("This is about b, and more.")
    await index(bench, tmp_path, "b")
    await index(bench, tmp_path, "c")
    assert {passage.source for passage in await passages(bench)} == names
    await index(bench, tmp_path, "a", "b", rebuild=True)
    assert {passage.source for passage in await passages(bench)} == {"a/README.md", "b/README.md", "c/README.md"}


async def test_what_cannot_be_found_or_opened_is_one_refusal_each(bench: PipelineContext, folder: Path) -> None:
    """Missing inputs, dangling links and pipes are named; the run goes on."""
    (folder / "dangling.txt").symlink_to(folder / "nowhere.txt")
    os.mkfifo(folder / "pipe.txt")
    (folder / "to-pipe.txt").symlink_to(folder / "pipe.txt")
    summary = await index(bench, folder, ".", "missing.txt", "pipe.txt")
    assert sorted(reasons(summary.refused)) == [
        ("dangling.txt", "not_found", False),
        ("missing.txt", "not_found", False),
        ("pipe.txt", "not_a_file", False),
        ("to-pipe.txt", "not_a_file", False),
    ]
    assert summary.created == 3


async def test_an_input_that_was_indexed_and_is_gone_is_no_problem(bench: PipelineContext, folder: Path) -> None:
    """Its documents are deleted; only the next run says that there is no such file."""
    await index(bench, folder)
    (folder / "apple.txt").unlink()
    first, second = [await index(bench, folder, "apple.txt") for _ in range(2)]
    assert (first.deleted, first.refused) == (1, ())
    assert (second.deleted, reasons(second.refused)) == (0, [("apple.txt", "not_found", False)])


async def test_several_collections_do_not_touch_each_other(bench: PipelineContext, folder: Path) -> None:
    """The same files in two collections, and a deletion from one."""
    await index(bench, folder)
    await index(bench, folder, collection="other")
    (folder / "apple.txt").unlink()
    await index(bench, folder)
    assert (len(await passages(bench)), len(await passages(bench, "other"))) == (2, 3)


async def test_another_embedder_is_refused_with_the_command_that_rebuilds(
    bench: PipelineContext, folder: Path, tmp_path: Path
) -> None:
    """Vectors of two models are never mixed; a rebuild is the way out."""
    await index(bench, folder)
    other = PipelineContext(
        store=bench.store,
        manifest=bench.manifest,
        embedder=GivenEmbedder(HashEmbedder(32), "another"),
        limits=bench.limits,
        lexical=bench.lexical,
    )
    with pytest.raises(EmbedderMismatch, match="--rebuild --collection default"):
        await index(other, folder)
    summary = await index(other, folder, rebuild=True)
    assert (summary.rebuilt, summary.total_passages) == (True, 3)
    assert (await bench.store.info("default")).spec.dimension == 32
    assert (await index(other, folder)).unchanged == 3


async def test_a_rebuild_takes_along_all_that_can_still_be_had(
    bench: PipelineContext, folder: Path, tmp_path: Path
) -> None:
    """Files of other runs and handed-over documents come along; documents of missing files do not."""
    (tmp_path / "elsewhere.txt").write_text("It lies elsewhere.")
    await index(bench, folder)
    await index(bench, tmp_path, "elsewhere.txt")
    await put_documents(
        bench, "default", [SubmittedDocument(writer=EVERYTHING, id="note", document=Document(text="A note by hand."))]
    )
    (folder / "birch.txt").unlink()
    expected = [entry for entry in await content(bench) if entry.get("source") != "birch.txt"]
    summary = await index(bench, folder, rebuild=True)
    assert await content(bench) == expected
    assert (summary.deleted, summary.total_documents) == (1, 4)
    _, _, unfinished = await records(bench)
    assert not unfinished
    assert (await index(bench, tmp_path, "elsewhere.txt")).unchanged == 4


@pytest.mark.parametrize("quarantined", [False, True])
async def test_a_damaged_collection_is_rebuilt_from_files_and_manifest(
    folder: Path, tmp_path: Path, quarantined: bool
) -> None:
    """Nothing of its shard is needed; until then a run over the files says what is wrong, and forgets nothing."""
    home = tmp_path / "home"
    bench = workbench(EmbeddedStore(home / "index"), home)
    await index(bench, folder)
    await put_documents(
        bench, "default", [SubmittedDocument(writer=EVERYTHING, id="note", document=Document(text="A note by hand."))]
    )
    expected = await content(bench)
    await bench.store.close()
    await bench.manifest.close()
    (shard,) = (path for path in (home / "index" / "collections" / "default").iterdir() if path.is_dir())
    if quarantined:
        (shard.parent / "current.json").unlink()
        shutil.copytree(shard, shard.with_name("0123456789ab"))  # which of them was live, nobody knows
    else:
        shutil.rmtree(shard / "segments")
    bench = workbench(EmbeddedStore(home / "index"), home)
    with pytest.raises(CollectionDamaged, match="--rebuild --collection default"):
        await index(bench, folder)
    await put_documents(
        bench, "other", [SubmittedDocument(writer=EVERYTHING, id="x", document=Document(text="Elsewhere."))]
    )
    await drop_collection(bench, "other")
    await index(bench, folder, rebuild=True)
    assert await content(bench) == expected
    await bench.store.close()
    await bench.manifest.close()


async def test_a_rebuild_keeps_the_texts_of_files_that_are_gone_elsewhere(
    bench: PipelineContext, folder: Path, tmp_path: Path
) -> None:
    """As a run does: what is gone from within the inputs is deleted, what they do not cover is not."""
    (tmp_path / "elsewhere.txt").write_text("It lay elsewhere.")
    await index(bench, tmp_path, "elsewhere.txt")
    await index(bench, folder)
    expected = await content(bench)
    (tmp_path / "elsewhere.txt").unlink()
    assert (await index(bench, folder, rebuild=True)).deleted == 0
    assert await content(bench) == expected
    assert (await index(bench, tmp_path, "*.txt")).deleted == 1


@pytest.mark.parametrize("lost", ["manifest", "files"])
async def test_a_rebuild_that_would_lose_documents_is_refused(folder: Path, tmp_path: Path, lost: str) -> None:
    """A damaged collection of which neither manifest nor files tell what it held; with force it goes on without."""
    home = tmp_path / "home"
    bench = workbench(EmbeddedStore(home / "index"), home)
    await index(bench, folder)
    await bench.store.close()
    if lost == "manifest":
        await bench.manifest.forget_lineage(await records_lineage(home))
    else:
        (folder / "birch.txt").unlink()
    await bench.manifest.close()
    (shard,) = (path for path in (home / "index" / "collections" / "default").iterdir() if path.is_dir())
    shutil.rmtree(shard / "segments")
    bench = workbench(EmbeddedStore(home / "index"), home)
    with pytest.raises(Conflict, match="does not know what it held" if lost == "manifest" else r"birch\.txt"):
        await index(bench, tmp_path, "none*.txt", rebuild=True)
    with pytest.raises(CollectionDamaged):
        await content(bench)
    await index(bench, tmp_path, "none*.txt", rebuild=True, force=True)
    assert bool(await content(bench)) == (lost == "files")
    await bench.store.close()
    await bench.manifest.close()


async def test_a_rebuild_does_not_leave_out_what_it_finds_unreadable(folder: Path, tmp_path: Path) -> None:
    """Damage that shows only when a text is read, of a file that is gone elsewhere: refused, unless it is forced."""
    home = tmp_path / "home"
    bench = workbench(EmbeddedStore(home / "index"), home)
    (tmp_path / "elsewhere.txt").write_text("It lay elsewhere.")
    await index(bench, tmp_path, "elsewhere.txt")
    await index(bench, folder)
    await bench.store.close()
    (tmp_path / "elsewhere.txt").unlink()
    (payloads,) = (home / "index").glob("collections/default/*/segments/*/payload_storage/page_0.dat")
    before = payloads.stat()
    payloads.write_bytes(b"\xff" * 8192 + payloads.read_bytes()[8192:])
    os.utime(payloads, ns=(before.st_atime_ns, before.st_mtime_ns))
    bench = msgspec.structs.replace(bench, store=EmbeddedStore(home / "index"))
    with pytest.raises(Conflict, match=r"elsewhere\.txt"):
        await index(bench, folder, rebuild=True)
    await index(bench, folder, rebuild=True, force=True)
    sources = {passage.source for passage in await passages(bench)}
    assert "birch.txt" in sources
    assert "elsewhere.txt" not in sources
    await bench.store.close()
    await bench.manifest.close()


async def records_lineage(home: Path) -> str:
    """The lineage of the only collection in a home that nobody has opened."""
    pointer = (home / "index" / "collections" / "default" / "current.json").read_bytes()
    return str(msgspec.json.decode(pointer)["spec"]["lineage"])


class HandingStore(ServerStore):
    """Runs `meanwhile` when a rebuild is about to be optimised."""

    meanwhile: PipelineContext | None = None

    async def optimize(self, name: str) -> None:
        if self.meanwhile is not None:
            bench, self.meanwhile = self.meanwhile, None
            await put_documents(
                bench,
                "default",
                [SubmittedDocument(writer=EVERYTHING, id="late", document=Document(text="It came late."))],
            )
            await put_documents(
                bench,
                "default",
                [SubmittedDocument(writer=EVERYTHING, id="note", document=Document(text="The note, changed."))],
            )
            await delete_document(bench, "default", "old", EVERYTHING)
            await put_documents(
                bench,
                "doomed",
                [SubmittedDocument(writer=EVERYTHING, id="x", document=Document(text="Somewhere else."))],
            )
            await drop_collection(bench, "doomed")
        await super().optimize(name)


async def test_what_is_handed_over_during_a_rebuild_is_not_lost(folder: Path, tmp_path: Path) -> None:
    """Puts, changes and deletions that happen while a rebuild runs hold after the switch."""
    store = HandingStore.in_memory()
    assert isinstance(store, HandingStore)
    bench = workbench(store, tmp_path / "home")
    await index(bench, folder)
    note, old = (
        SubmittedDocument(writer=EVERYTHING, id=key, document=Document(text=f"The {key}.")) for key in ("note", "old")
    )
    await put_documents(bench, "default", [note, old])
    store.meanwhile = bench
    await index(bench, folder, rebuild=True)
    assert {p.document_id: p.text for p in await passages(bench) if not p.source} == {
        "late": "It came late.",
        "note": "The note, changed.",
    }
    assert (await index(bench, folder)).unchanged == 5
    await bench.manifest.close()
    await store.close()


class FailingEmbedder(HashEmbedder):
    """Fails once it has seen a word."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        if any(self.word in text for text in texts):
            raise EmbedderUnavailable("it broke")
        return super().embed_documents(texts, lane)


async def test_a_failed_rebuild_leaves_the_live_index_as_it_is(folder: Path, tmp_path: Path) -> None:
    """What was live before stays live and complete, and the next rebuild succeeds."""
    embedder = FailingEmbedder("poison")
    bench = workbench(ServerStore.in_memory(), tmp_path / "home", embedder)
    await index(bench, folder)
    before = await content(bench)
    (folder / "apple.txt").write_text("This is poison.")
    with pytest.raises(EmbedderUnavailable, match="it broke"):
        await index(bench, folder, rebuild=True)
    assert await content(bench) == before
    assert [info.name for info in await bench.store.collections()] == ["default"]
    embedder.word = "nothing"
    await index(bench, folder, rebuild=True)
    assert "This is poison." in await texts(bench)
    await bench.manifest.close()
    await bench.store.close()


class SpoiltStore(ServerStore):
    """Refuses the next writes, or takes its time and says when it has begun."""

    failures = 0
    seconds = 0.0
    begun: asyncio.Event | None = None

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        if self.begun is not None:
            self.begun.set()
        await asyncio.sleep(self.seconds)
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the disk is full")
        await super().upsert(name, points)


@pytest.mark.slow
async def test_an_error_of_the_store_ends_the_run_as_it_is(folder: Path, tmp_path: Path) -> None:
    """No exception group, no hang, even with more read than written; the next run completes the work."""
    write_records(folder / "many.jsonl", **{f"r{n}": f"record number {n}" for n in range(3000)})
    store = SpoiltStore.in_memory()
    assert isinstance(store, SpoiltStore)
    bench = workbench(store, tmp_path / "home")
    store.failures = 1
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        await asyncio.wait_for(index(bench, folder), 60)
    assert (await index(bench, folder)).total_passages == 3003
    await bench.manifest.close()
    await store.close()


async def test_an_error_of_the_reading_side_ends_the_run_as_it_is(
    bench: PipelineContext, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that cannot be loaded for the new documents is the error that the caller sees."""
    await index(bench, folder)
    (folder / "new.txt").write_text("Something new.")
    bench.embedder._failures.append(EmbedderUnavailable("gone"))  # type: ignore[attr-defined]
    with pytest.raises(EmbedderUnavailable, match="gone"):
        await asyncio.wait_for(index(bench, folder), 30)


async def test_a_cancelled_run_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    """No task and no reader process goes on after the cancellation, and the next run completes the work."""
    store = SpoiltStore.in_memory()
    assert isinstance(store, SpoiltStore)
    bench = workbench(store, tmp_path / "home")
    await index(bench, folder)
    (folder / "apple.txt").write_text("An apple again.")
    store.seconds, store.begun, before = 0.2, asyncio.Event(), asyncio.all_tasks()
    run = asyncio.create_task(index(bench, folder))
    await store.begun.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert asyncio.all_tasks() == before
    store.seconds = 0
    assert (await index(bench, folder)).total_passages == 3
    assert "An apple again." in await texts(bench)
    await bench.manifest.close()
    await store.close()


async def test_what_a_killed_run_left_half_done_is_completed_wherever_it_lies(
    bench: PipelineContext, folder: Path, tmp_path: Path
) -> None:
    """A document announced and not committed is finished by a run over other files, or removed with its file."""
    await index(bench, folder)
    lineage = (await bench.store.info("default")).spec.lineage
    half_done = [d for d in await bench.manifest.documents(lineage, EVERYTHING) if d.source != "cedar.txt"]
    await bench.manifest.announce(lineage, half_done)
    (folder / "birch.txt").unlink()
    (tmp_path / "other.txt").write_text("Another file.")
    summary = await index(bench, tmp_path, "other.txt")
    assert (summary.total_documents, summary.total_passages) == (3, 3)
    assert not await bench.manifest.unfinished(lineage)


async def test_half_of_a_file_that_cannot_be_read_any_more_is_removed(bench: PipelineContext, folder: Path) -> None:
    """What a killed run left half done of it goes; the version before that, if there is one, stays."""
    await index(bench, folder)
    lineage = (await bench.store.info("default")).spec.lineage
    record = next(d for d in await bench.manifest.documents(lineage, EVERYTHING) if d.source == "apple.txt")
    fresh = msgspec.structs.replace(record, id="fresh", path=str(folder / "fresh.txt"), source="fresh.txt")
    await bench.manifest.announce(lineage, [msgspec.structs.replace(record, version="half"), fresh])
    for name in ("apple.txt", "fresh.txt"):
        (folder / name).write_bytes(b"\0\1\2\3" * 100)
    summary = await index(bench, folder)
    assert reasons(summary.refused) == [("apple.txt", "binary", True), ("fresh.txt", "binary", False)]
    assert (summary.total_passages, await bench.manifest.unfinished(lineage)) == (3, [])


async def test_a_kill_between_deleting_and_forgetting_is_mended_when_the_file_comes_back(
    bench: PipelineContext, folder: Path
) -> None:
    """A record whose passages were being deleted is written again, though the file is what it was before."""
    write_records(folder / "a.jsonl", one="the first", two="the second")
    await index(bench, folder, "a.jsonl")
    lineage = (await bench.store.info("default")).spec.lineage
    await bench.manifest.announce_deletion(lineage, ["two"])
    await bench.store.delete_documents("default", ["two"])
    await index(bench, folder, "a.jsonl")
    assert await texts(bench) == ["the first", "the second"]


async def test_handed_over_documents_are_finished_after_a_kill(bench: PipelineContext, folder: Path) -> None:
    """One that was being written is written from what was handed over; one that was being deleted is deleted."""
    await put_documents(
        bench,
        "default",
        [
            SubmittedDocument(writer=EVERYTHING, id=key, document=Document(text=f"The {key}."))
            for key in ("kept", "gone")
        ],
    )
    lineage = (await bench.store.info("default")).spec.lineage
    kept = await bench.manifest.document_with_body(lineage, "kept")
    assert kept is not None
    await bench.manifest.announce(lineage, [kept])
    await bench.store.delete_documents("default", ["kept"])
    await bench.manifest.announce_deletion(lineage, ["gone"])
    await index(bench, folder, "apple.txt")
    assert await texts(bench) == ["The apple stands in the garden.", "The kept."]
    assert not await bench.manifest.unfinished(lineage)


async def test_documents_handed_over_during_a_run_are_kept(bench: PipelineContext, folder: Path) -> None:
    """A run and puts into the same collection do not get into each other's way."""
    write_records(folder / "many.jsonl", **{f"r{n}": f"record number {n}" for n in range(1500)})

    async def put_all() -> None:
        for n in range(20):
            await put_documents(
                bench,
                "default",
                [SubmittedDocument(writer=EVERYTHING, id=f"h{n}", document=Document(text=f"handed {n}"))],
            )

    await asyncio.gather(index(bench, folder), put_all())
    assert len(await passages(bench)) == 1523
    assert (await index(bench, folder)).unchanged == 1523


async def test_the_plan_is_told_before_the_work(bench: PipelineContext, folder: Path) -> None:
    """Listeners hear what there is to do, how it goes on, and the end."""
    await index(bench, folder)
    (folder / "apple.txt").write_text("Changed.")
    (folder / "birch.txt").unlink()
    (folder / "new.txt").write_text("New.")
    events: list[Event] = []
    summary = await index(bench, folder, report=events.append)
    assert events[0] == Planned(new=1, changed=1, unchanged=1, gone=1, bytes=12)
    assert events[-1] == summary


async def test_an_empty_folder_makes_no_collection(bench: PipelineContext, tmp_path: Path) -> None:
    """There is nothing to create one for."""
    (tmp_path / "empty").mkdir()
    summary = await sync(bench, SyncRequest(inputs=("empty",), cwd=str(tmp_path)))
    assert (summary.total_documents, await bench.store.collections()) == (0, [])


async def owners(bench: PipelineContext) -> list[tuple[str, str, tuple[str, ...]]]:
    """Of each passage its tenant, its source, and the groups that see it."""
    return sorted((one.tenant, one.source, one.allowed) for one in await passages(bench))


async def test_one_folder_may_be_indexed_for_two_tenants(bench: PipelineContext, folder: Path) -> None:
    """Each has its documents, under the same names and ids, and a run of one changes nothing of the other's."""
    await index(bench, folder, tenant="a")
    await index(bench, folder, tenant="b")
    await index(bench, folder)
    names = ["apple.txt", "birch.txt", "cedar.txt"]
    assert await owners(bench) == [(tenant, name, ()) for tenant in ("", "a", "b") for name in names]
    assert len({passage.document_id for passage in await passages(bench)}) == 3
    assert (await index(bench, folder, tenant="a")).unchanged == 9
    (folder / "apple.txt").unlink()
    (folder / "birch.txt").write_text("The birch was felled.")
    summary = await index(bench, folder, tenant="a")
    assert (summary.updated, summary.deleted) == (1, 1)
    assert [name for tenant, name, _ in await owners(bench) if tenant != "a"] == [*names, *names]
    assert sorted(passage.text for passage in await passages(bench) if passage.source == "birch.txt") == [
        "The birch stands in the garden.",
        "The birch stands in the garden.",
        "The birch was felled.",
    ]


async def test_files_of_tenants_may_have_the_same_ids(bench: PipelineContext, folder: Path) -> None:
    """A record's own id is taken within a tenant only."""
    for tenant in ("a", "b"):
        write_records(folder / f"{tenant}.jsonl", r1=f"of {tenant}")
        assert (await index(bench, folder, f"{tenant}.jsonl", tenant=tenant)).refused == ()
    write_records(folder / "c.jsonl", r1="of a, too")
    [refused] = (await index(bench, folder, "c.jsonl", tenant="a")).refused
    assert (refused.reason, "'r1' is taken by a document of a.jsonl" in refused.detail) == ("duplicate_id", True)
    assert await texts(bench) == ["of a", "of b"]


async def test_files_are_for_groups_until_they_are_opened(bench: PipelineContext, folder: Path) -> None:
    """A change of the groups alone is a change; a run that forgets them is refused, and opens nothing."""
    await index(bench, folder, tenant="a", allowed=("legal", "hr"))
    assert {allowed for _, _, allowed in await owners(bench)} == {("hr", "legal")}
    assert (await index(bench, folder, tenant="a", allowed=("hr", "legal"))).unchanged == 3
    for options in ({}, {"rebuild": True}):
        with pytest.raises(Conflict, match=r"apple.txt and 2 more .*\(hr, legal\).*--open"):
            await index(bench, folder, tenant="a", **options)
    assert {allowed for _, _, allowed in await owners(bench)} == {("hr", "legal")}
    assert (await index(bench, folder, tenant="a", allowed=("hr",))).updated == 3
    assert (await index(bench, folder, tenant="a", allowed=())).updated == 3
    assert await owners(bench) == [("a", name, ()) for name in ("apple.txt", "birch.txt", "cedar.txt")]


async def test_a_rebuild_keeps_every_file_for_whom_it_was(
    bench: PipelineContext, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also those of other tenants than the run's, and of files that are gone where the other tenant's run looks."""
    other = tmp_path_factory.mktemp("other")
    (other / "dogwood.txt").write_text("The dogwood is red.")
    (other / "elm.txt").write_text("The elm is gone.")
    await index(bench, folder, tenant="a", allowed=("hr",))
    await index(bench, other, tenant="b")
    await index(bench, other)
    before = await owners(bench)
    (folder / "apple.txt").unlink()
    (other / "elm.txt").unlink()
    summary = await index(bench, other, tenant="b", rebuild=True)
    assert summary.deleted == 1
    after = [("b", "elm.txt", ())]
    assert await owners(bench) == sorted({*before} - {*after})
    assert (await index(bench, folder, tenant="a", allowed=("hr",))).deleted == 1
    assert (await index(bench, other)).deleted == 1


async def test_a_killed_run_of_a_tenant_is_finished_for_it(bench: PipelineContext, folder: Path) -> None:
    """By whoever runs next, for the same tenant and groups."""
    await index(bench, folder, tenant="a", allowed=("hr",))
    lineage = (await bench.store.info("default")).spec.lineage
    [record, *_] = await bench.manifest.documents(lineage, EVERYTHING)
    await bench.manifest.announce(lineage, [record])
    await bench.store.delete_documents("default", [record.id])
    await sync(bench, SyncRequest(inputs=(), cwd=".", delete=False))
    assert await owners(bench) == [("a", name, ("hr",)) for name in ("apple.txt", "birch.txt", "cedar.txt")]
    assert (await records(bench))[-1] == []


async def test_a_refused_file_is_remembered_for_each_tenant(bench: PipelineContext, folder: Path) -> None:
    """And a problem of one is none of the other."""
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 cut short")
    for tenant in ("a", "b", "a"):
        summary = await index(bench, folder, tenant=tenant)
        assert reasons(summary.refused) == [("broken.pdf", "corrupt", False)]
    assert [one.known for one in summary.refused] == [True]
    lineage = (await bench.store.info("default")).spec.lineage
    (folder / "broken.pdf").unlink()
    await index(bench, folder, tenant="b")
    assert len(await bench.manifest.refused(lineage)) == 1


async def test_a_name_with_the_separator_of_tenants_is_refused(bench: PipelineContext, tmp_path: Path) -> None:
    """It would be taken for another tenant's file."""
    (tmp_path / "a\x1fb").mkdir()
    (tmp_path / "a\x1fb" / "c.txt").write_text("text")
    assert reasons((await index(bench, tmp_path)).refused)[0][1:] == ("unsupported", False)


async def test_a_first_run_over_nothing_that_can_be_opened_says_so(bench: PipelineContext, tmp_path: Path) -> None:
    """The one file is too large: it is reported as failed, though there is no collection yet to keep it out of."""
    bench = msgspec.structs.replace(bench, limits=ReadLimits(max_bytes=10))
    (tmp_path / "large.txt").write_text("more than ten bytes")
    summary = await index(bench, tmp_path, "large.txt")
    assert reasons(summary.refused) == [("large.txt", "too_large", False)]
    assert summary.failed == 1


def write_large(path: Path, records: int) -> None:
    """More than what is read as a whole, and little text."""
    more = {"ignored": ["x" * 3000]}
    rows = ({"id": f"r{number:04}", "text": f"Record {number}.", "more": more} for number in range(records))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


async def test_a_large_file_is_compared_piece_by_piece(
    bench: PipelineContext, folder: Path, embedder: HashEmbedder
) -> None:
    """What is new in it is embedded and what it no longer has is deleted, as of any other."""
    path = folder / "large.jsonl"
    write_large(path, 3000)
    assert (await index(bench, folder)).created == 3003
    embedder.embedded.clear()
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*rows[:10], *rows[20:], json.dumps({"id": "new", "text": "A new one."}) + "\n"]))
    summary = await index(bench, folder)
    assert (summary.created, summary.updated, summary.deleted, summary.total_documents) == (1, 0, 10, 2994)
    assert embedder.embedded == ["A new one."]
    embedder.embedded.clear()
    assert (await index(bench, folder)).unchanged == 2994
    assert embedder.embedded == []


def readers() -> set[int]:
    """The reading processes of this one."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return {int(one) for one in children if b"sandbox.child" in Path(f"/proc/{one}/cmdline").read_bytes()}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_reader_that_dies_in_a_large_file(bench: PipelineContext, folder: Path, embedder: HashEmbedder) -> None:
    """What it had handed over is indexed, nothing is deleted, and the next run reads and embeds the rest."""
    write_large(folder / "large.jsonl", 6000)
    killed: list[int] = []
    others = readers()  # of tests before

    def kill(event: Event) -> None:
        # The reader waits: two windows of documents are all that is read ahead of the writer.
        if isinstance(event, Advanced) and event.passages and not killed:
            killed.extend(readers() - others)
            os.kill(killed[0], signal.SIGKILL)

    summary = await index(bench, folder, report=kill)
    assert reasons(summary.refused) == [("large.jsonl", "crashed", True)]
    assert 500 < summary.created < 6000
    embedder.embedded.clear()
    again = await index(bench, folder)
    assert (again.created, again.refused) == (6003 - summary.created, ())
    assert len(embedder.embedded) == again.created
    assert again.total_documents == 6003


def write_table(path: Path, rows: Sequence[int], times: int = 750) -> None:
    """A table of more than what is read as a whole, in several parts, with little text."""
    payload = "Qm9ndXMgYmFzZTY0IGRhdGEs+/aB3dE5" * times  # files in base64 are left out of texts
    path.write_text("id,name,payload\n" + "".join(f"{n},Row {n} {'of words ' * 100},{payload}\n" for n in rows))


async def test_a_large_table_loses_what_it_no_longer_has(
    bench: PipelineContext, folder: Path, embedder: HashEmbedder
) -> None:
    """Rows that are gone are found no more, parts that are gone are no documents, and unchanged ones cost nothing."""
    path = folder / "large.csv"
    write_table(path, range(430))
    first = await index(bench, folder, path.name)
    assert (first.created, first.deleted) == (4, 0)
    embedder.embedded.clear()
    write_table(path, [*range(351), *range(900, 930)])  # the first two parts are the same
    second = await index(bench, folder, path.name)
    assert (second.updated, second.deleted, second.unchanged) == (1, 1, 2)
    assert not any("Row 10 " in text for text in embedder.embedded)
    assert path.stat().st_size > 8 * 2**20
    write_table(path, range(20))  # small, and so one document again
    third = await index(bench, folder, path.name)
    assert (third.created, third.deleted, third.total_documents) == (1, 3, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_table_whose_reader_died_is_completed(bench: PipelineContext, folder: Path) -> None:
    """The next run makes of it what is in the file."""
    path = folder / "large.csv"
    write_table(path, range(2400), 110)
    killed: list[int] = []
    others = readers()

    def kill(event: Event) -> None:
        if isinstance(event, Advanced) and event.passages and not killed:
            killed.extend(readers() - others)
            os.kill(killed[0], signal.SIGKILL)

    summary = await index(bench, folder, path.name, report=kill)
    assert reasons(summary.refused) == [("large.csv", "crashed", True)]
    completed = await index(bench, folder, path.name)
    assert (completed.refused, completed.created + summary.created) == ((), completed.total_documents)
    with path.open("rb") as file:
        read = [part for parts, _ in read_pieces(file, path.name, ReadLimits()) for part in parts]
    whole = {file_document_id(str(path), one.key): one.content_hash() for one in read if isinstance(one, Document)}
    lineage = (await bench.store.info("default")).spec.lineage
    assert await bench.manifest.versions(lineage, str(path)) == whole
