import sqlite3
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from indexing.documents import EVERYTHING, Block, Document
from indexing.errors import StoreUnavailable
from indexing.pipeline.manifest import DocumentRecord, IndexedFile, Manifest, SourceRecord
from indexing.pipeline.manifest_tables import SHARED_MIGRATIONS
from indexing.postgres import Database
from indexing.writer import PostgresTables
from tests.conftest import both

pytestmark = pytest.mark.anyio


@pytest.fixture
async def manifest(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Manifest]:
    if kind == "sqlite":
        manifest = Manifest(tmp_path / "home" / "manifest.sqlite3")
        yield manifest
        await manifest.close()
        return
    database = Database(request.getfixturevalue("database_url"))
    manifest = Manifest(PostgresTables(database, "manifest", SHARED_MIGRATIONS))
    yield manifest
    await manifest.close()
    database.close()


def document(key: str, path: str | None = "/a.txt", body: Document | None = None, version: str = "") -> DocumentRecord:
    version = version or f"v-{key}"
    return DocumentRecord(id=key, path=path, source="a.txt", title="A", version=version, passages=2, body=body)


SOURCE = SourceRecord(path="/a.txt", name="a.txt", hash="h", bytes=3)


BROKEN = SourceRecord(path=None, name="n", hash="h", bytes=1)  # type: ignore[arg-type]


async def finish(manifest: Manifest, *documents: DocumentRecord, source: SourceRecord | None = SOURCE) -> None:
    await manifest.announce("L", documents)
    await manifest.commit("L", documents, [source] if source else [], 7.0)
    await manifest.settled("L", [d.id for d in documents])


@both()
async def test_a_document_counts_only_once_it_is_committed(manifest: Manifest) -> None:
    """An announced document is unfinished; the commit gives it its version, passages and time."""
    await manifest.announce("L", [document("x")])
    assert (await manifest.count("L"), await manifest.documents("L", EVERYTHING), await manifest.sources("L")) == (
        0,
        [],
        [],
    )
    assert [(p.id, p.op, p.version, p.counts) for p in await manifest.unfinished("L")] == [("x", "write", "v-x", None)]
    await manifest.commit("L", [document("x")], [SOURCE], 7.0)
    assert [(p.id, p.op, p.version, p.counts) for p in await manifest.unfinished("L")] == [("x", "sweep", "v-x", "v-x")]
    await manifest.settled("L", ["x"])
    assert [(d.id, d.version, d.passages, d.indexed_at) for d in await manifest.documents("L", EVERYTHING)] == [
        ("x", "v-x", 2, 7.0)
    ]
    assert (await manifest.count("L"), await manifest.unfinished("L"), await manifest.sources("L")) == (
        1,
        [],
        [SOURCE],
    )


@both()
async def test_announcing_a_document_reopens_its_source(manifest: Manifest) -> None:
    """A file with a document under way is not finished, whatever its hash was."""
    await finish(manifest, document("x"), document("y"))
    assert await manifest.announce("L", [document("x", version="w"), document("z")]) == {"x": "v-x", "z": None}
    assert await manifest.sources("L") == []
    assert await manifest.versions("L", "/a.txt") == {"x": None, "y": "v-y", "z": None}
    assert await manifest.files("L") == {"/a.txt": IndexedFile("a.txt")}


@both()
async def test_the_earlier_version_counts_until_the_next_one_is_committed(manifest: Manifest) -> None:
    """With its body; the commit replaces all of it at once."""
    old, new = Document(text="old"), Document(text="new")
    await finish(manifest, document("h", None, old, "v1"), source=None)
    await manifest.announce("L", [document("h", None, new, "v2")])
    assert [d.version for d in await manifest.documents("L", EVERYTHING)] == ["v1"]
    assert [d.body for d in await manifest.whole("L", ["h", "nobody"])] == [old]
    assert [(p.version, p.counts, p.submitted) for p in await manifest.unfinished("L")] == [("v2", "v1", True)]
    pending = await manifest.pending_with_body("L", "h")
    assert pending is not None
    assert (pending.body, pending.version) == (new, new.content_hash())
    await manifest.commit("L", [document("h", None, new, "v2")], [], 8.0)
    assert [(d.version, d.body) for d in await manifest.whole("L", ["h"])] == [("v2", new)]
    assert await manifest.pending_with_body("L", "h") is None


@both()
async def test_what_another_writer_announced_is_not_committed(manifest: Manifest) -> None:
    """A commit without its announcement, or after a deletion, changes nothing."""
    await manifest.commit("L", [document("x")], [], 7.0)
    await manifest.announce("L", [document("x", version="v2")])
    await manifest.commit("L", [document("x", version="v1")], [], 7.0)
    await manifest.announce_deletion("L", ["x"])
    await manifest.commit("L", [document("x", version="v2")], [], 7.0)
    assert await manifest.documents("L", EVERYTHING) == []
    assert [p.op for p in await manifest.unfinished("L")] == ["delete"]


@both()
async def test_announcing_a_deletion_reopens_the_source_and_hides_the_document(manifest: Manifest) -> None:
    """A document that is being deleted counts no more, and there is nothing to write it from."""
    await finish(manifest, document("x"), document("h", None, Document(text="handed")))
    await manifest.announce_deletion("L", ["x", "h"])
    assert await manifest.sources("L") == []
    assert {(p.id, p.op, p.counts) for p in await manifest.unfinished("L")} == {
        ("x", "delete", None),
        ("h", "delete", None),
    }
    assert await manifest.document_with_body("L", "h") is None
    assert await manifest.pending_with_body("L", "h") is None
    assert await manifest.count("L") == 0


@both()
async def test_what_is_forgotten_is_gone(manifest: Manifest) -> None:
    """Documents and sources are forgotten each by themselves."""
    await finish(manifest, document("x"), document("y"))
    await manifest.announce_deletion("L", ["x"])
    await manifest.settled("L", ["x"])
    assert [d.id for d in await manifest.documents("L", EVERYTHING)] == ["y"]
    assert await manifest.versions("L", "/a.txt") == {"y": "v-y"}
    await manifest.commit("L", [], [SOURCE], 7.0)
    await manifest.forget_sources("L", ["/a.txt"])
    assert (await manifest.count("L"), await manifest.sources("L"), await manifest.unfinished("L")) == (1, [], [])


@both()
async def test_sources_come_in_pages_by_path(manifest: Manifest) -> None:
    """Each once, of this lineage alone, also where the last page is just full."""
    sources = [SourceRecord(path=f"/{name}.txt", name=name, hash=f"h-{name}", bytes=1) for name in "aBcä"]
    await manifest.commit("L", [], reversed(sources), 7.0)
    await manifest.commit("M", [], [SourceRecord(path="/b.txt", name="b", hash="h", bytes=1)], 7.0)
    in_order = sorted(sources, key=lambda source: source.path)
    assert [page async for page in manifest.source_pages("L", 2)] == [in_order[:2], in_order[2:]]
    assert [page async for page in manifest.source_pages("L", 3)] == [in_order[:3], in_order[3:]]
    assert await manifest.sources("L", after="/B.txt", limit=1) == [in_order[1]]


@both()
async def test_a_document_that_was_handed_over_comes_back_as_it_was(manifest: Manifest) -> None:
    """Its body keeps text, blocks and metadata; the lists do not load it."""
    body = Document(text="a b", title="T", blocks=(Block("paragraph", 0, 3),), metadata={"year": 2024, "tags": ["x"]})
    await finish(manifest, document("h", None, body), source=None)
    found = await manifest.document_with_body("L", "h")
    assert found is not None
    assert (found.body, found.version) == (body, "v-h")
    assert (await manifest.documents("L", EVERYTHING))[0].body is None
    assert await manifest.submitted("L") == {"h": "v-h"}
    assert await manifest.document_with_body("L", "nobody") is None


@both()
async def test_documents_are_listed_in_pages(manifest: Manifest) -> None:
    """By id, after the last one seen."""
    await finish(manifest, *[document(key) for key in "dbac"])
    assert [d.id for d in await manifest.documents("L", EVERYTHING, limit=2)] == ["a", "b"]
    assert [d.id for d in await manifest.documents("L", EVERYTHING, after="b", limit=2)] == ["c", "d"]


@both()
async def test_lineages_do_not_see_each_other(manifest: Manifest) -> None:
    """The same ids in two lineages are two documents, and each lineage can be forgotten."""
    await finish(manifest, document("x"))
    for lineage in ("M", "N"):
        await manifest.announce(lineage, [document("x")])
    await manifest.forget_lineage("M")
    assert [len(await manifest.unfinished(lineage)) for lineage in "LMN"] == [0, 0, 1]
    assert await manifest.lineages() == {"L", "N"}
    await manifest.forget_lineage("L")
    assert (await manifest.count("L"), await manifest.lineages()) == (0, {"N"})


async def test_what_is_written_is_there_after_reopening(tmp_path: Path) -> None:
    """Nothing is kept in memory alone."""
    first = Manifest(tmp_path / "m.sqlite3")
    await finish(first, document("x"))
    second = Manifest(tmp_path / "m.sqlite3")
    assert await second.count("L") == 1
    await first.close()
    await second.close()


@both()
async def test_a_closed_manifest_says_so(manifest: Manifest) -> None:
    """Closing twice is no error."""
    await manifest.close()
    await manifest.close()
    with pytest.raises(StoreUnavailable, match="has been closed"):
        await manifest.count("L")


@both()
async def test_the_owners_of_documents_are_named(manifest: Manifest) -> None:
    """With the path of their file, None for a submitted one; an unknown id has no owner."""
    await finish(manifest, document("x"))
    await finish(manifest, document("h", None, Document(text="submitted")), source=None)
    owners = await manifest.with_owners("L", lambda owner_of: [owner_of(key) for key in ("x", "h", "nobody")])
    assert owners == [("/a.txt", "a.txt"), (None, "a.txt"), None]


@both()
async def test_a_failed_change_changes_nothing(manifest: Manifest) -> None:
    """A transaction is whole or not at all, and the manifest works on."""
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        await manifest.commit("L", [], [SOURCE, BROKEN], 7.0)
    assert await manifest.sources("L") == []
    await finish(manifest, document("x"))
    assert await manifest.count("L") == 1


async def test_a_file_that_is_no_manifest_is_refused_in_plain_words(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "m.sqlite3").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreUnavailable, match=r"m\.sqlite3 cannot be used") as caught:
        Manifest(tmp_path / "m.sqlite3")
    assert isinstance(caught.value.__cause__, sqlite3.Error)


OLD_SCHEMA = """
CREATE TABLE sources (
  lineage TEXT NOT NULL, path TEXT NOT NULL, name TEXT NOT NULL, hash TEXT NOT NULL, bytes INTEGER NOT NULL,
  indexed_at REAL NOT NULL, PRIMARY KEY (lineage, path)) WITHOUT ROWID;
CREATE TABLE documents (
  lineage TEXT NOT NULL, id TEXT NOT NULL, path TEXT, source TEXT NOT NULL, title TEXT NOT NULL, version TEXT,
  passages INTEGER NOT NULL, indexed_at REAL NOT NULL, body BLOB, PRIMARY KEY (lineage, id)) WITHOUT ROWID;
CREATE INDEX documents_by_path ON documents (lineage, path);
CREATE INDEX documents_unfinished ON documents (lineage) WHERE version IS NULL;
"""


async def test_a_manifest_of_an_earlier_version_keeps_what_is_left_to_do(tmp_path: Path) -> None:
    """What had no version is written again where it can be, and else deleted; what had one counts on."""
    body = Document(text="handed over")
    packed = zlib.compress(msgspec.msgpack.encode(body))
    old = sqlite3.connect(tmp_path / "m.sqlite3")
    old.executescript(OLD_SCHEMA)
    rows = [
        ("done", "/a.txt", "v", None),
        ("file", "/b.txt", None, None),
        ("handed", None, None, packed),
        ("deleted", None, None, None),
    ]
    old.executemany("INSERT INTO documents VALUES ('L',?,?,'s','t',?,0,7.0,?)", rows)
    old.commit()
    old.close()
    manifest = Manifest(tmp_path / "m.sqlite3")
    assert [(d.id, d.version) for d in await manifest.documents("L", EVERYTHING)] == [("done", "v")]
    assert {(p.id, p.op, p.path, p.submitted) for p in await manifest.unfinished("L")} == {
        ("file", "write", "/b.txt", False),
        ("handed", "write", None, True),
        ("deleted", "delete", None, False),
    }
    found = await manifest.pending_with_body("L", "handed")
    assert found is not None
    assert (found.body, found.version) == (body, body.content_hash())
    await manifest.close()
