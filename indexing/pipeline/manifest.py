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

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from indexing.documents import Document
from indexing.sqlite import SqliteFile, transaction

T = TypeVar("T")

_MIGRATIONS = (
    """
CREATE TABLE IF NOT EXISTS sources (
  lineage TEXT NOT NULL, path TEXT NOT NULL, name TEXT NOT NULL, hash TEXT NOT NULL, bytes INTEGER NOT NULL,
  indexed_at REAL NOT NULL, PRIMARY KEY (lineage, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
  lineage TEXT NOT NULL, id TEXT NOT NULL, path TEXT, source TEXT NOT NULL, title TEXT NOT NULL, version TEXT,
  passages INTEGER NOT NULL, indexed_at REAL NOT NULL, body BLOB, PRIMARY KEY (lineage, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS documents_by_path ON documents (lineage, path);
CREATE INDEX IF NOT EXISTS documents_unfinished ON documents (lineage) WHERE version IS NULL;
""",
)
"""How a file of version n (0: a new one, or one without a version) becomes one of version n + 1. Append only."""
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


class Totals(msgspec.Struct, frozen=True):
    """Finished documents, their passages, and documents that are being written or deleted."""

    documents: int
    passages: int
    unfinished: int


class Manifest:
    """The record of an index. Several processes may read it while one writes. Raises StoreUnavailable."""

    def __init__(self, path: Path) -> None:
        """Blocks: open it in a thread."""
        self._file = SqliteFile(path, "the manifest", _MIGRATIONS)

    async def close(self) -> None:
        """Finish the calls under way, then close the file."""
        await self._file.close()

    async def sources(self, lineage: str) -> dict[str, SourceRecord]:
        """Every finished source by path."""
        return await self._file.query(
            _source_records, "SELECT path, name, hash, bytes FROM sources WHERE lineage=?", lineage
        )

    async def versions(self, lineage: str, path: str) -> dict[str, str | None]:
        """The documents of a source: id -> version."""
        return await self._file.query(
            dict, "SELECT id, version FROM documents WHERE lineage=? AND path=?", lineage, path
        )

    async def paths(self, lineage: str) -> dict[str, str]:
        """Every file that documents came from, finished or not: path -> the name that users see."""
        sql = "SELECT path, source FROM documents WHERE lineage=? AND path NOT NULL"
        return await self._file.query(dict, sql, lineage)

    async def with_owners(self, lineage: str, work: Callable[[OwnerOf], T]) -> T:
        """Call `work` with a look-up of where documents came from. It runs in the manifest's thread: no document is
        announced or committed between a look-up and what `work` concludes from it.
        """
        sql = "SELECT path, source FROM documents WHERE lineage=? AND id=?"
        return await self._file.run(lambda db: work(lambda key: db.execute(sql, (lineage, key)).fetchone()))

    async def document(self, lineage: str, document_id: str) -> DocumentRecord | None:
        """One document without its body."""
        records = await self._file.query(_document_records, f"{_SELECT} WHERE lineage=? AND id=?", lineage, document_id)
        return records[0] if records else None

    async def document_with_body(self, lineage: str, document_id: str) -> DocumentRecord | None:
        """One document as it was submitted, its version that of its body.

        There is no body if it came from a file, or is being deleted.
        """
        sql = f"SELECT {', '.join(_COLUMNS)}, body FROM documents WHERE lineage=? AND id=?"  # noqa: S608
        return await self._file.query(_document_with_body, sql, lineage, document_id)

    async def documents(self, lineage: str, *, after: str = "", limit: int = 100) -> list[DocumentRecord]:
        """Finished documents by id, those after `after`, without their bodies."""
        where = "WHERE lineage=? AND id>? AND version IS NOT NULL ORDER BY id LIMIT ?"
        return await self._file.query(_document_records, f"{_SELECT} {where}", lineage, after, limit)

    async def whole(self, lineage: str, document_ids: Sequence[str]) -> list[DocumentRecord]:
        """The finished ones of these documents, with the bodies of those that were submitted."""
        sql = f"SELECT {', '.join(_COLUMNS)}, body FROM documents WHERE lineage=? AND id=? AND version NOT NULL"  # noqa: S608

        def read(db: sqlite3.Connection) -> list[DocumentRecord]:
            rows = [row for key in document_ids for row in db.execute(sql, (lineage, key))]
            records = zip(_document_records([row[:-1] for row in rows]), rows, strict=True)
            return [msgspec.structs.replace(record, body=_unpack(row[-1])) for record, row in records]

        return await self._file.run(read)

    async def known(self, lineage: str) -> dict[str, tuple[str | None, int]]:
        """Every document: id -> (version, or None while it is being written or deleted; number of passages)."""
        sql = "SELECT id, version, passages FROM documents WHERE lineage=?"
        return await self._file.query(lambda rows: {row[0]: row[1:] for row in rows}, sql, lineage)

    async def totals(self, lineage: str) -> "Totals":
        """What is on record, counted."""
        sql = (
            "SELECT count(version), coalesce(sum(passages) FILTER (WHERE version NOT NULL), 0), "
            "count(*) FILTER (WHERE version IS NULL) FROM documents WHERE lineage=?"
        )
        return await self._file.query(lambda rows: Totals(*rows[0]), sql, lineage)

    async def take_over(self, lineage: str, documents: Sequence[tuple[DocumentRecord, bool]]) -> int:
        """Make documents of a file its own that are recorded as submitted: those with just this content, and those
        whose id comes from its path (the second of each pair says so). Returns how many.
        """
        sql = """
            UPDATE documents SET path=?, source=?, body=NULL
            WHERE lineage=? AND id=? AND path IS NULL AND version NOT NULL AND (version=? OR ?)"""

        def execute(db: sqlite3.Connection) -> int:
            with transaction(db, durable=False):
                return sum(
                    db.execute(sql, (d.path, d.source, lineage, d.id, d.version, by_path)).rowcount
                    for d, by_path in documents
                )

        return await self._file.run(execute)

    async def adopt(
        self, lineage: str, documents: Sequence[DocumentRecord], sources: Iterable[SourceRecord] = (), now: float = 0.0
    ) -> None:
        """Record finished documents and sources whose passages are in the store already, as they are given.

        A document that has been recorded in the meantime stays as it is.
        """
        await self._file.write(
            (
                "INSERT OR IGNORE INTO documents VALUES (?,?,?,?,?,?,?,?,?)",
                (
                    (lineage, d.id, d.path, d.source, d.title, d.version, d.passages, d.indexed_at, _pack(d.body))
                    for d in documents
                ),
            ),
            (
                "INSERT OR REPLACE INTO sources VALUES (?,?,?,?,?,?)",
                ((lineage, s.path, s.name, s.hash, s.bytes, now) for s in sources),
            ),
        )

    async def submitted(self, lineage: str) -> dict[str, str | None]:
        """Documents without a file: id -> version."""
        return await self._file.query(
            dict, "SELECT id, version FROM documents WHERE lineage=? AND path IS NULL", lineage
        )

    async def count(self, lineage: str) -> int:
        """Finished documents."""
        sql = "SELECT count(*) FROM documents WHERE lineage=? AND version NOT NULL"
        return await self._file.query(lambda rows: int(rows[0][0]), sql, lineage)

    async def unfinished(self, lineage: str) -> list[DocumentRecord]:
        """Announced and never committed or forgotten: what a killed run left behind. Without bodies."""
        return await self._file.query(_document_records, f"{_SELECT} WHERE lineage=? AND version IS NULL", lineage)

    async def announce(self, lineage: str, documents: Sequence[DocumentRecord]) -> None:
        """Passages of these documents are about to be written: until the commit, neither they nor their sources
        count.
        """
        await self._file.write(
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
        await self._file.write(
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
        await self._file.write(
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
        await self._file.write(
            ("DELETE FROM documents WHERE lineage=? AND id=?", ((lineage, key) for key in document_ids)),
            ("DELETE FROM sources WHERE lineage=? AND path=?", ((lineage, path) for path in paths)),
        )

    async def keep_lineages(self, lineages: Iterable[str]) -> None:
        """Drop the rows of all other lineages: of collections that are gone, and of rebuilds that were killed."""
        lineages_kept = list(lineages)
        marks = ",".join("?" * len(lineages_kept))
        sql = "DELETE FROM {} WHERE lineage NOT IN ({})"
        await self._file.write(*((sql.format(table, marks), [lineages_kept]) for table in _TABLES))

    async def forget_lineage(self, lineage: str) -> None:
        """Drop the rows of one lineage."""
        await self._file.write(*((f"DELETE FROM {table} WHERE lineage=?", [(lineage,)]) for table in _TABLES))  # noqa: S608


def _source_records(rows: list[tuple[Any, ...]]) -> dict[str, SourceRecord]:
    return {row[0]: SourceRecord(path=row[0], name=row[1], hash=row[2], bytes=row[3]) for row in rows}


def _document_records(rows: list[tuple[Any, ...]]) -> list[DocumentRecord]:
    return [DocumentRecord(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]


def _document_with_body(rows: list[tuple[Any, ...]]) -> DocumentRecord | None:
    if not rows:
        return None
    (record,) = _document_records([row[:-1] for row in rows])
    body = _unpack(rows[0][-1])
    return record if body is None else msgspec.structs.replace(record, body=body, version=body.content_hash())


def _pack(document: Document | None) -> bytes | None:
    return None if document is None else zlib.compress(msgspec.msgpack.encode(document), 6)


def _unpack(packed: bytes | None) -> Document | None:
    return None if packed is None else msgspec.msgpack.decode(zlib.decompress(packed), type=Document)
