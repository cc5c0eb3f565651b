"""Writing to collections, several at a time."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.errors import InvalidRequest, Overloaded
from app.services.admission import Gate, Gates, Places
from app.services.document_validation import SubmittedFile, failed
from app.services.documents import MAX_AT_ONCE, MAX_BODY_BYTES, SMALL_UPLOAD, Documents
from indexing.documents import EVERYTHING, Audience, Document
from indexing.errors import EmbedderMismatch, StoreUnavailable
from indexing.pipeline.context import PipelineContext, show_what_counts
from indexing.pipeline.ingest import DocumentResult, SubmittedDocument, Versions
from indexing.pipeline.manifest import DocumentRecord, Manifest
from indexing.pipeline.progress import SyncRequest
from indexing.pipeline.write_stage import prepare
from indexing.readers import ReadLimits
from indexing.retrieval.bm25 import Lexical
from indexing.sqlite import SqliteConnection
from indexing.store.base import Point
from indexing.store.embedded import EmbeddedStore
from tests.fakes.embedder import HashEmbedder
from tests.fakes.points import everything
from tests.fakes.source import GivenEmbedder

pytestmark = pytest.mark.anyio


async def overtake(collection: str, versions: Mapping[str, str]) -> None:
    """For tests without jobs."""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[PipelineContext]:
    store, manifest = EmbeddedStore(tmp_path / "index"), Manifest(tmp_path / "manifest.sqlite3")
    yield PipelineContext(
        store=store, manifest=manifest, embedder=GivenEmbedder(HashEmbedder()), limits=ReadLimits(), lexical=Lexical()
    )
    await manifest.close()
    await store.close()


@pytest.fixture
async def documents(bench: PipelineContext) -> AsyncIterator[Documents]:
    async def get() -> PipelineContext:
        return bench

    documents = Documents(get, Gates(2))
    yield documents
    await documents.close()


def submitted(document_id: str, text: str = "dental") -> SubmittedDocument:
    return SubmittedDocument(writer=EVERYTHING, document=Document(text=text), id=document_id)


def version_of(text: str) -> str:
    return Document(text=text).content_hash()


async def ids(bench: PipelineContext) -> set[str]:
    return {passage.document_id for passage in await everything(bench.store, "c")}


async def test_a_long_put_lets_others_in(bench: PipelineContext, documents: Documents) -> None:
    """A small put is done before a large one that came first."""
    order: list[str] = []

    async def put(name: str, count: int) -> None:
        await documents.index("c", [submitted(f"{name}{n}") for n in range(count)])
        order.append(name)

    await asyncio.gather(put("large", 400), put("small", 1))
    assert order == ["small", "large"]


async def test_uploads_at_once_are_bounded(documents: Documents) -> None:
    """One more is Overloaded; when one ends there is room again."""
    with ExitStack() as stack:
        for _ in range(MAX_AT_ONCE):
            stack.enter_context(documents.uploading())
        with pytest.raises(Overloaded):
            stack.enter_context(documents.uploading())
    with documents.uploading():
        pass


async def test_only_small_uploads_pass_the_gate(bench: PipelineContext) -> None:
    """While its places are taken a small one waits; a large one does not."""

    async def get() -> PipelineContext:
        return bench

    gates = Gates(1)
    gates.texts = Gate("writes", Places(1, hold_s=3600))  # kept, however long the large one takes
    documents = Documents(get, gates)
    async with gates.texts.visit():
        small = asyncio.ensure_future(documents.index_at_once("c", [submitted("small")], SMALL_UPLOAD, overtake))
        await documents.index_at_once("c", [submitted("large")], SMALL_UPLOAD + 1, overtake)
        assert not small.done()
    [result] = await small
    assert result.status == "created"


async def test_bodies_in_memory_are_bounded(documents: Documents) -> None:
    """Together, by bytes: a body that is received slowly takes no more than what has arrived of it."""
    with documents.receiving() as slow, documents.receiving() as large:
        slow(1)
        large(MAX_BODY_BYTES - 1)
        with pytest.raises(Overloaded):
            slow(1)
    with documents.receiving() as next_one:
        next_one(MAX_BODY_BYTES)


async def test_what_documents_will_become_is_known_before(documents: Documents) -> None:
    """Created, updated, unchanged or failed, as indexing them then says."""
    await documents.index("c", [submitted("same"), submitted("other", "before")])
    part = [submitted("new"), submitted("same"), failed("invalid", "it is"), submitted("other")]
    intended = await documents.intended("c", part)
    assert intended == [result.status for result in await documents.index("c", part)]
    assert intended == ["created", "unchanged", "failed", "updated"]


async def test_both_spellings_of_an_id_are_one_document(documents: Documents) -> None:
    """Composed and decomposed: put as one, and shown and deleted as either."""
    decomposed, composed = "cafe\u0301", "caf\u00e9"
    await documents.index("c", await documents.read([submitted(decomposed)]))
    again = await documents.index("c", await documents.read([submitted(composed)]))
    assert [(result.id, result.status) for result in again] == [(composed, "unchanged")]
    for spelling in (composed, decomposed):
        assert (await documents.document("c", spelling, EVERYTHING))[0].id == composed
    assert await documents.delete("c", decomposed, overtake, EVERYTHING)
    assert not await documents.delete("c", composed, overtake, EVERYTHING)


async def test_the_rate_of_indexing_is_measured(documents: Documents) -> None:
    """By what was embedded; what is unchanged says nothing."""
    assert not documents.indexing_time.measured
    await documents.index("c", [submitted("a")])
    assert documents.indexing_time.measured
    rate = documents.indexing_time.passages_per_s
    await documents.index("c", [submitted("a")])
    assert documents.indexing_time.passages_per_s == rate


def sent(data: bytes, name: str, **fields: Any) -> SubmittedFile:
    """From an operator's standard input."""
    return SubmittedFile(name=name, data=data, writer=EVERYTHING, **fields)


async def test_bytes_may_be_of_a_tenant_and_for_its_groups(documents: Documents) -> None:
    """As files are; a name that no tenant or group can have is refused."""
    await documents.put_bytes(sent(b"For one group.", "a.txt", tenant="acme", allowed=("hr",)), "c", overtake)
    [record] = (await documents.page("c", Audience(tenant="acme", groups=("hr",)), after="", limit=9))[0]
    assert (record.tenant, record.allowed) == ("acme", ("hr",))
    assert (await documents.page("c", Audience(tenant="acme"), after="", limit=9))[0] == []
    for fields in ({"tenant": "a b"}, {"allowed": ("",)}):
        summary = await documents.put_bytes(sent(b"text", "a.txt", **fields), "c", overtake)
        assert (summary.created, summary.failed) == (0, 1)
        with pytest.raises(InvalidRequest):
            await documents.sync(SyncRequest(inputs=(), cwd=".", collection="c", **fields))


async def test_a_large_file_is_read_some_megabytes_at_a_time(documents: Documents, tmp_path: Path) -> None:
    """Each record once and in order, between what was sent beside it; ids that come again in another piece fail."""
    path = tmp_path / "file"
    line = b'{"id": "%d", "text": "row"}' + b" " * 1_000_000 + b"\n"
    path.write_bytes(b"".join(line % (number % 9) for number in range(10)))
    large = SubmittedFile(name="l.jsonl", path=str(path), length=path.stat().st_size, writer=EVERYTHING)
    broken = SubmittedFile(name="b.pdf", path=str(path), length=1, writer=EVERYTHING)
    submissions = [submitted("first"), large, broken, sent(b"Last.", "last.txt")]
    async with aclosing(documents.read_in_pieces(submissions)) as pieces:
        read = [piece async for piece in pieces]
    assert max(map(len, read)) < 5
    whole = list(chain(*read))
    names = [one.reason if isinstance(one, DocumentResult) else one.id for one in whole]
    assert names[:-1] == ["first", *map(str, range(9)), "duplicate_id", "corrupt"]
    assert whole == await documents.read(submissions)


async def test_who_is_slow_to_take_a_large_file_keeps_no_reader_from_others(
    documents: Documents, tmp_path: Path
) -> None:
    """However many index theirs piece by piece while their callers wait."""
    path = tmp_path / "file"
    path.write_bytes((b'{"text": "row"}' + b" " * 1_000_000 + b"\n") * 10)
    large = SubmittedFile(name="l.jsonl", path=str(path), length=path.stat().st_size, writer=EVERYTHING)
    async with AsyncExitStack() as slow:
        for _ in range(2):
            pieces = await slow.enter_async_context(aclosing(documents.read_in_pieces([large], slowly=True)))
            await anext(pieces)
        async with asyncio.timeout(60):
            assert len(await documents.read([large, sent(b"small", "a.txt")])) == 11


async def test_bytes_that_cannot_be_read_are_told_with_what_the_collection_holds(documents: Documents) -> None:
    """Also where there is no collection yet: none is made for nothing."""
    nowhere = await documents.put_bytes(sent(bytes(range(256)), "a.png"), "c", overtake)
    await documents.put("c", [submitted("x")])
    there = await documents.put_bytes(sent(b"", "a.txt"), "c", overtake)
    assert [(summary.failed, summary.total_documents) for summary in (nowhere, there)] == [(1, 0), (1, 1)]
    assert [one.reason for one in (*nowhere.refused, *there.refused)] == ["corrupt", "empty"]


@pytest.fixture
def sqlite_threads(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The threads that execute SQL on connections opened from now on."""
    threads: set[int] = set()

    class Watched(SqliteConnection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            threads.add(threading.get_ident())
            return super().execute(*arguments)

        def executemany(self, *arguments: Any) -> sqlite3.Cursor:
            threads.add(threading.get_ident())
            return super().executemany(*arguments)

    monkeypatch.setattr("indexing.sqlite.SqliteConnection", Watched)
    return threads


async def test_no_manifest_call_runs_on_the_event_loop(
    sqlite_threads: set[int], documents: Documents, tmp_path: Path
) -> None:
    """Index, list, read, delete and drop: SQLite works in its own thread, whatever is asked."""
    (tmp_path / "note.txt").write_text("Dental cover starts in May.")
    request = SyncRequest(inputs=("note.txt",), cwd=str(tmp_path), collection="c")
    await documents.sync(request)
    await documents.sync(msgspec.structs.replace(request, rebuild=True))
    await documents.put("c", [submitted("x")])
    await documents.put_bytes(sent(b"Orthodontics are covered.", "upload.txt"), "c", overtake)
    records, more = await documents.page("c", EVERYTHING, after="", limit=10)
    assert (len(records), more, len(await documents.collections(EVERYTHING))) == (3, False, 1)
    await documents.document("c", "x", EVERYTHING)
    assert await documents.delete("c", "x", overtake, EVERYTHING)
    await documents.drop("c", EVERYTHING)
    assert len(sqlite_threads) == 1
    assert threading.get_ident() not in sqlite_threads


async def leave_unfinished(bench: PipelineContext, documents: Documents, collection: str, folder: Path) -> str:
    """What kills leave: a new document, an update, a deletion and a file, each begun."""
    await documents.put(collection, [submitted("updated", "before"), submitted("deleted", "before")])
    (folder / "a.jsonl").write_text('{"id": "file", "text": "before"}')
    await documents.sync(SyncRequest(inputs=("a.jsonl",), cwd=str(folder), collection=collection))
    lineage = (await bench.store.info(collection)).spec.lineage
    (folder / "a.jsonl").write_text('{"id": "file", "text": "after"}')
    for key in ("new", "updated", "file"):
        document, path = Document(text="after"), str(folder / "a.jsonl") if key == "file" else None
        body = None if path else document
        record = DocumentRecord(
            id=key, path=path, source="a.jsonl", title="", version=document.content_hash(), passages=1, body=body
        )
        await bench.manifest.announce(lineage, [record])
    await bench.manifest.announce_deletion(lineage, ["deleted"])
    return lineage


async def test_what_a_killed_process_left_is_finished(
    bench: PipelineContext, documents: Documents, tmp_path: Path
) -> None:
    """Submitted documents are written, deletions done, files read again; nothing is left to do."""
    lineage = await leave_unfinished(bench, documents, "c", tmp_path)
    await show_what_counts(bench)
    await documents.finish_unfinished()
    passages = {(p.document_id, p.text) for p in await everything(bench.store, "c")}
    assert passages == {("new", "after"), ("updated", "after"), ("file", "after")}
    assert await bench.manifest.unfinished(lineage) == []
    assert not bench.visibility.counting(lineage)


async def test_a_collection_that_cannot_be_finished_keeps_no_other_from_it(
    bench: PipelineContext, documents: Documents, tmp_path: Path
) -> None:
    """Where the embedder is another one, deletions alone are finished, and the earlier versions count on."""
    stuck = await leave_unfinished(bench, documents, "c", tmp_path)
    spec = msgspec.structs.replace((await bench.store.info("c")).spec, embedder="another")
    await bench.store.drop("c")
    await bench.store.create("c", spec)
    fine = await leave_unfinished(bench, documents, "d", tmp_path)
    with pytest.raises(EmbedderMismatch):
        await documents.finish_unfinished()
    assert {record.id for record in await bench.manifest.unfinished(stuck)} == {"new", "updated", "file"}
    assert await bench.manifest.unfinished(fine) == []


async def test_a_document_is_shown_as_it_was_until_its_update_is_complete(
    bench: PipelineContext, documents: Documents
) -> None:
    """The record and the passages belong together, whatever lies in the store besides."""
    await documents.put("c", [submitted("x", "before")])
    lineage = (await bench.store.info("c")).spec.lineage
    body = Document(text="after")
    record = DocumentRecord(id="x", path=None, source="", title="", version=body.content_hash(), passages=0, body=body)
    prepared = prepare(body, record, HashEmbedder())
    await bench.manifest.announce(lineage, [record])
    point = Point(passage=prepared.passages[0], dense=HashEmbedder().embed_documents(["after"])[0], sparse=None)
    await bench.store.upsert("c", [point])
    found, passages = await documents.document("c", "x", EVERYTHING)
    assert (found.version, [passage.text for passage in passages]) == (
        Document(text="before").content_hash(),
        ["before"],
    )
    assert [record.version for record in (await documents.page("c", EVERYTHING, after="", limit=5))[0]] == [
        found.version
    ]


async def test_those_who_wait_overtake_jobs_with_what_they_wrote(documents: Documents) -> None:
    """Also with what was so already, and with deletions, though nothing was there: an earlier attempt may have been cut
    off. Not with what failed.
    """
    told: list[tuple[str, Mapping[str, str]]] = []

    async def listen(collection: str, versions: Mapping[str, str]) -> None:
        told.append((collection, versions))

    for _ in range(2):
        await documents.index_at_once("c", [submitted("a"), submitted("b", "  ")], 1, listen)
    assert await documents.delete("c", "a", listen, EVERYTHING)
    assert not await documents.delete("c", "a", listen, EVERYTHING)
    assert told == [("c", {"a": version_of("dental")})] * 2 + [("c", {"a": ""})] * 2


async def test_nothing_is_written_where_jobs_cannot_be_told(documents: Documents) -> None:
    """Whoever hears that a request failed must not find that it was carried out."""
    await documents.index_at_once("c", [submitted("a", "before")], 1, overtake)

    async def fail(collection: str, versions: Mapping[str, str]) -> None:
        raise StoreUnavailable("the jobs cannot be used")

    with pytest.raises(StoreUnavailable):
        await documents.index_at_once("c", [submitted("a", "after")], 1, fail)
    with pytest.raises(StoreUnavailable):
        await documents.put_bytes(sent(b"after", "b.txt"), "c", fail)
    with pytest.raises(StoreUnavailable):
        await documents.delete("c", "a", fail, EVERYTHING)
    assert [record.id for record in (await documents.page("c", EVERYTHING, after="", limit=9))[0]] == ["a"]
    assert [one.text for one in (await documents.document("c", "a", EVERYTHING))[1]] == ["before"]


async def test_a_job_leaves_overtaken_documents_as_they_are(documents: Documents) -> None:
    """One that is there keeps its text; one that was deleted does not come back."""
    await documents.index("c", [submitted("a", "the later one")])

    async def overtaken(ids: Sequence[str]) -> Versions:
        return {"a": {"another", version_of("the later one")}, "gone": {""}}

    given = [submitted("a", "the earlier one"), submitted("gone"), submitted("new")]
    results = await documents.index("c", given, overtaken=overtaken)
    assert [(one.id, one.status) for one in results] == [("a", "unchanged"), ("gone", "unchanged"), ("new", "created")]
    assert [one.text for one in (await documents.document("c", "a", EVERYTHING))[1]] == ["the later one"]
    assert [record.id for record in (await documents.page("c", EVERYTHING, after="", limit=9))[0]] == ["a", "new"]


async def test_what_was_announced_and_never_written_keeps_no_job_from_its_work(documents: Documents) -> None:
    """A put or a deletion that was cut off before it had changed anything."""
    await documents.index("c", [submitted("a", "the first one"), submitted("b", "the first one")])

    async def overtaken(ids: Sequence[str]) -> Versions:
        return {"a": {version_of("never written")}, "b": {""}}

    results = await documents.index("c", [submitted("a"), submitted("b")], overtaken=overtaken)
    assert [(one.id, one.status) for one in results] == [("a", "updated"), ("b", "updated")]


async def test_a_cluster_cannot_write_to_an_index_in_this_process(documents: Documents, tmp_path: Path) -> None:
    """It says what to set, before anything is read."""
    with pytest.raises(InvalidRequest, match="QDRANT_URL"):
        await documents.sync(SyncRequest(inputs=(str(tmp_path),), cwd="/", ray="auto"))
