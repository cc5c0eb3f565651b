"""What has been indexed: sources (files) by content hash, and the documents that came out of them.

One SQLite file (WAL) beside the index. Rows belong to a *lineage*, one filling of a collection (`CollectionSpec`), so
that switching to a rebuilt index switches the manifest with it.

A kill at any moment leaves work that the next run can see. A document goes through these states:

    announce           its passages are about to be written      version NULL
    commit             all of them are in the store              version set
    announce_deletion  its passages are about to be deleted      version and body NULL
    forget             none is left                              no row

What was announced and never committed or forgotten is unfinished: the next run writes it again or removes it.
"""

import asyncio
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from indexing.documents import Document
from indexing.errors import StoreUnavailable

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sources (
  lineage TEXT NOT NULL, path TEXT NOT NULL, name TEXT NOT NULL, hash TEXT NOT NULL, bytes INTEGER NOT NULL,
  indexed_at REAL NOT NULL, PRIMARY KEY (lineage, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
  lineage TEXT NOT NULL, id TEXT NOT NULL, path TEXT, source TEXT NOT NULL, title TEXT NOT NULL, version TEXT,
  passages INTEGER NOT NULL, indexed_at REAL NOT NULL, body BLOB, PRIMARY KEY (lineage, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS documents_by_path ON documents (lineage, path);
CREATE INDEX IF NOT EXISTS documents_unfinished ON documents (lineage) WHERE version IS NULL;
"""
_TABLES = ("sources", "documents")
_COLUMNS = ("id", "path", "source", "title", "version", "passages", "indexed_at")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM documents"  # noqa: S608


OwnerOf = Callable[[str], tuple[str | None, str] | None]
"""Document id -> (path of its file or None, the name that users see); None for an unknown id."""


class SourceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A file and its content hash. `path` is absolute; `name` is what users see."""

    path: str
    name: str
    hash: str
    bytes: int


class DocumentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A document of a lineage. `version` is its content hash, None while it is being written.

    `path` is the file it came from, None for one that was submitted over the API; then `body` is the document itself,
    so that a rebuild can make it anew.
    """

    id: str
    path: str | None
    source: str
    title: str
    version: str | None
    passages: int
    body: Document | None = None
    indexed_at: float = 0.0


class Manifest:
    """The record of an index. Several processes may read it while one writes. Raises StoreUnavailable.

    A thread of its own holds the connection, and every call waits for it: SQLite may wait for a disk or read 50,000
    rows (160 ms), and an event loop must not. sqlite3 refuses the connection to any other thread, so a call that
    strays from it fails in the tests instead of blocking in production.
    """

    def __init__(self, path: Path) -> None:
        """Blocks: open it in a thread."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="winnow-manifest")
        try:
            self._db = self._thread.submit(self._connect).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    async def close(self) -> None:
        """Finish the calls under way, then close the file."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
            self._thread.shutdown(wait=False)

    async def sources(self, lineage: str) -> dict[str, SourceRecord]:
        """Every finished source by path."""
        return await self._query(
            _source_records, "SELECT path, name, hash, bytes FROM sources WHERE lineage=?", lineage
        )

    async def versions(self, lineage: str, path: str) -> dict[str, str | None]:
        """The documents of a source: id -> version."""
        return await self._query(dict, "SELECT id, version FROM documents WHERE lineage=? AND path=?", lineage, path)

    async def paths(self, lineage: str) -> dict[str, str]:
        """Every file that documents came from, finished or not: path -> the name that users see."""
        sql = "SELECT path, source FROM documents WHERE lineage=? AND path NOT NULL"
        return await self._query(dict, sql, lineage)

    async def with_owners(self, lineage: str, work: Callable[[OwnerOf], T]) -> T:
        """Call `work` with a look-up of where documents came from. It runs in the manifest's thread: no document is
        announced or committed between a look-up and what `work` concludes from it.
        """
        sql = "SELECT path, source FROM documents WHERE lineage=? AND id=?"
        return await self._run(lambda: work(lambda key: self._db.execute(sql, (lineage, key)).fetchone()))

    async def document(self, lineage: str, document_id: str) -> DocumentRecord | None:
        """One document without its body."""
        records = await self._query(_document_records, f"{_SELECT} WHERE lineage=? AND id=?", lineage, document_id)
        return records[0] if records else None

    async def document_with_body(self, lineage: str, document_id: str) -> DocumentRecord | None:
        """One document as it was submitted, its version that of its body.

        There is no body if it came from a file, or is being deleted.
        """
        sql = f"SELECT {', '.join(_COLUMNS)}, body FROM documents WHERE lineage=? AND id=?"  # noqa: S608
        return await self._query(_document_with_body, sql, lineage, document_id)

    async def documents(self, lineage: str, *, after: str = "", limit: int = 100) -> list[DocumentRecord]:
        """Finished documents by id, those after `after`, without their bodies."""
        where = "WHERE lineage=? AND id>? AND version IS NOT NULL ORDER BY id LIMIT ?"
        return await self._query(_document_records, f"{_SELECT} {where}", lineage, after, limit)

    async def submitted(self, lineage: str) -> dict[str, str | None]:
        """Documents without a file: id -> version."""
        return await self._query(dict, "SELECT id, version FROM documents WHERE lineage=? AND path IS NULL", lineage)

    async def count(self, lineage: str) -> int:
        """Finished documents."""
        sql = "SELECT count(*) FROM documents WHERE lineage=? AND version NOT NULL"
        return await self._query(lambda rows: int(rows[0][0]), sql, lineage)

    async def unfinished(self, lineage: str) -> list[DocumentRecord]:
        """Announced and never committed or forgotten: what a killed run left behind. Without bodies."""
        return await self._query(_document_records, f"{_SELECT} WHERE lineage=? AND version IS NULL", lineage)

    async def announce(self, lineage: str, documents: Sequence[DocumentRecord]) -> None:
        """Passages of these documents are about to be written: until the commit, neither they nor their sources
        count.
        """
        await self._write(
            (
                "DELETE FROM sources WHERE lineage=? AND path=?",
                {(lineage, d.path) for d in documents if d.path is not None},
            ),
            (
                "INSERT OR REPLACE INTO documents VALUES (?,?,?,?,?,?,?,?,?)",
                # A generator: the bodies are compressed in the thread.
                ((lineage, d.id, d.path, d.source, d.title, None, 0, d.indexed_at, _pack(d.body)) for d in documents),
            ),
        )

    async def announce_deletion(self, lineage: str, document_ids: Sequence[str]) -> None:
        """Passages of these documents are about to be deleted: from now on neither they nor their sources count."""
        path_of = "SELECT path FROM documents WHERE lineage=? AND id=?"
        await self._write(
            (
                f"DELETE FROM sources WHERE lineage=? AND path=({path_of})",  # noqa: S608
                ((lineage, lineage, document_id) for document_id in document_ids),
            ),
            (
                "UPDATE documents SET version=NULL, body=NULL WHERE lineage=? AND id=?",
                ((lineage, document_id) for document_id in document_ids),
            ),
        )

    async def commit(
        self, lineage: str, documents: Iterable[DocumentRecord], sources: Iterable[SourceRecord], now: float
    ) -> None:
        """All passages of these documents, and all documents of these sources, are in the store."""
        await self._write(
            (
                "UPDATE documents SET version=?, passages=?, indexed_at=? WHERE lineage=? AND id=?",
                ((d.version, d.passages, now, lineage, d.id) for d in documents),
            ),
            (
                "INSERT OR REPLACE INTO sources VALUES (?,?,?,?,?,?)",
                ((lineage, s.path, s.name, s.hash, s.bytes, now) for s in sources),
            ),
        )

    async def forget(self, lineage: str, document_ids: Sequence[str] = (), paths: Sequence[str] = ()) -> None:
        """These documents, and these sources, are no longer in the store."""
        await self._write(
            ("DELETE FROM documents WHERE lineage=? AND id=?", ((lineage, key) for key in document_ids)),
            ("DELETE FROM sources WHERE lineage=? AND path=?", ((lineage, path) for path in paths)),
        )

    async def keep_lineages(self, lineages: Iterable[str]) -> None:
        """Drop the rows of all other lineages: of collections that are gone, and of rebuilds that were killed."""
        lineages_kept = list(lineages)
        marks = ",".join("?" * len(lineages_kept))
        sql = "DELETE FROM {} WHERE lineage NOT IN ({})"
        await self._write(*((sql.format(table, marks), [lineages_kept]) for table in _TABLES))

    async def forget_lineage(self, lineage: str) -> None:
        """Drop the rows of one lineage."""
        await self._write(*((f"DELETE FROM {table} WHERE lineage=?", [(lineage,)]) for table in _TABLES))  # noqa: S608

    async def _query(self, make: Callable[[list[tuple[Any, ...]]], T], sql: str, *parameters: object) -> T:
        """What `make` makes of the rows. It runs in the thread too: there may be tens of thousands of rows."""
        return await self._run(lambda: make(self._db.execute(sql, parameters).fetchall()))

    async def _write(self, *statements: tuple[str, Iterable[Sequence[object]]]) -> None:
        """Every statement for every one of its rows, in one transaction."""

        def execute() -> None:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for sql, rows in statements:
                    self._db.executemany(sql, rows)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

        await self._run(execute)

    async def _run(self, work: Callable[[], T]) -> T:
        """`work` in the thread that holds the connection. A caller that is cancelled does not stop it."""
        if self._closed:
            raise StoreUnavailable(f"the manifest {self._path} has been closed")

        def run() -> T:
            with self._sqlite_errors():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def _connect(self) -> sqlite3.Connection:
        with self._sqlite_errors():
            # Without an isolation level sqlite3 begins no transactions of its own: `_write` does.
            db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                # In WAL mode a power cut may take the last commits, and never damages the file. A lost commit is
                # found as unfinished; the passages themselves are written before it.
                db.execute("PRAGMA synchronous=NORMAL")
                db.executescript(_SCHEMA)
            except BaseException:
                db.close()
                raise
            return db

    @contextmanager
    def _sqlite_errors(self) -> Iterator[None]:
        """The one seam for SQLite's errors."""
        try:
            yield
        except sqlite3.Error as exc:
            raise StoreUnavailable(f"the manifest {self._path} cannot be used: {exc}") from exc


def _source_records(rows: list[tuple[Any, ...]]) -> dict[str, SourceRecord]:
    return {row[0]: SourceRecord(path=row[0], name=row[1], hash=row[2], bytes=row[3]) for row in rows}


def _document_records(rows: list[tuple[Any, ...]]) -> list[DocumentRecord]:
    return [DocumentRecord(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]


def _document_with_body(rows: list[tuple[Any, ...]]) -> DocumentRecord | None:
    if not rows:
        return None
    (record,) = _document_records([row[:-1] for row in rows])
    packed = rows[0][-1]
    if packed is None:
        return record
    body = msgspec.msgpack.decode(zlib.decompress(packed), type=Document)
    return msgspec.structs.replace(record, body=body, version=body.content_hash())


def _pack(document: Document | None) -> bytes | None:
    return None if document is None else zlib.compress(msgspec.msgpack.encode(document), 6)
