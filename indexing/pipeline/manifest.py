"""What has been indexed: sources (files) by content hash, and the documents that came out of them.

One SQLite file (WAL) beside the index. Rows belong to a *lineage*, one filling of a collection (`CollectionSpec`), so
that switching to a rebuilt index switches the manifest with it. A document is announced before its first passage is
written and committed after its last, and announced again before its passages are deleted: after a kill, what was
announced and never committed or forgotten is known, and the next run finishes or removes it.
"""

import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from indexing.documents import Document
from indexing.errors import StoreUnavailable

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


class SourceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A file whose every document is in the store. `path` is absolute; `name` is what users see."""

    path: str
    name: str
    hash: str
    bytes: int


class DocumentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A document of a lineage. `version` is its content hash, None while it is being written.

    `path` is the file it came from, None for one that was handed over by API; then `body` is the document itself, so
    that a rebuild can make it anew.
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
    """Thread-safe; several processes may read while one writes. Raises StoreUnavailable when the file fails."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.RLock()
        with self._using():
            self._db = sqlite3.connect(path, check_same_thread=False, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def sources(self, lineage: str) -> dict[str, SourceRecord]:
        """Every finished source by path."""
        rows = self._all("SELECT path, name, hash, bytes FROM sources WHERE lineage=?", lineage)
        return {r[0]: SourceRecord(path=r[0], name=r[1], hash=r[2], bytes=r[3]) for r in rows}

    def versions(self, lineage: str, path: str) -> dict[str, str | None]:
        """The documents of a source: id -> version."""
        return dict(self._all("SELECT id, version FROM documents WHERE lineage=? AND path=?", lineage, path))

    def paths(self, lineage: str) -> dict[str, str]:
        """Every file that documents came from, finished or not: path -> the name that users see."""
        return dict(self._all("SELECT path, source FROM documents WHERE lineage=? AND path NOT NULL", lineage))

    def document(self, lineage: str, document_id: str) -> DocumentRecord | None:
        """One document without its body."""
        rows = self._all(f"{_SELECT} WHERE lineage=? AND id=?", lineage, document_id)
        return _record(rows[0]) if rows else None

    def document_with_body(self, lineage: str, document_id: str) -> DocumentRecord | None:
        """One document as it was handed over, its version that of its body; no body if it came from a file, or is
        being deleted.
        """
        record = self.document(lineage, document_id)
        rows = self._all("SELECT body FROM documents WHERE lineage=? AND id=?", lineage, document_id)
        body = _unpack(rows[0][0]) if rows else None
        if record is None or body is None:
            return record
        return msgspec.structs.replace(record, body=body, version=body.content_hash())

    def documents(self, lineage: str, *, after: str = "", limit: int = 100) -> list[DocumentRecord]:
        """Finished documents by id, those after `after`, without their bodies."""
        where = "WHERE lineage=? AND id>? AND version IS NOT NULL ORDER BY id LIMIT ?"
        return [_record(r) for r in self._all(f"{_SELECT} {where}", lineage, after, limit)]

    def handed_over(self, lineage: str) -> dict[str, str | None]:
        """Documents without a file: id -> version."""
        return dict(self._all("SELECT id, version FROM documents WHERE lineage=? AND path IS NULL", lineage))

    def count(self, lineage: str) -> int:
        """Finished documents."""
        return int(self._all("SELECT count(*) FROM documents WHERE lineage=? AND version NOT NULL", lineage)[0][0])

    def unfinished(self, lineage: str) -> list[DocumentRecord]:
        """Announced and never committed or forgotten: what a killed run left behind. Without bodies."""
        return [_record(r) for r in self._all(f"{_SELECT} WHERE lineage=? AND version IS NULL", lineage)]

    def announce(self, lineage: str, documents: Sequence[DocumentRecord]) -> None:
        """Passages of these documents are about to be written: until the commit, neither they nor their sources
        count.
        """
        rows = [(lineage, d.id, d.path, d.source, d.title, None, 0, d.indexed_at, _pack(d.body)) for d in documents]
        paths = {(lineage, d.path) for d in documents if d.path is not None}
        with self._transaction():
            self._db.executemany("DELETE FROM sources WHERE lineage=? AND path=?", paths)
            self._db.executemany("INSERT OR REPLACE INTO documents VALUES (?,?,?,?,?,?,?,?,?)", rows)

    def announce_deletion(self, lineage: str, document_ids: Sequence[str]) -> None:
        """Passages of these documents are about to be deleted: from now on neither they nor their sources count."""
        rows = [(lineage, document_id) for document_id in document_ids]
        path = "SELECT path FROM documents WHERE lineage=? AND id=?"
        with self._transaction():
            self._db.executemany(
                f"DELETE FROM sources WHERE lineage=? AND path=({path})",  # noqa: S608
                [(lineage, *row) for row in rows],
            )
            self._db.executemany("UPDATE documents SET version=NULL, body=NULL WHERE lineage=? AND id=?", rows)

    def commit(
        self, lineage: str, documents: Iterable[DocumentRecord], sources: Iterable[SourceRecord], now: float
    ) -> None:
        """All passages of these documents, and all documents of these sources, are in the store."""
        done = [(d.version, d.passages, now, lineage, d.id) for d in documents]
        files = [(lineage, s.path, s.name, s.hash, s.bytes, now) for s in sources]
        with self._transaction():
            self._db.executemany(
                "UPDATE documents SET version=?, passages=?, indexed_at=? WHERE lineage=? AND id=?", done
            )
            self._db.executemany("INSERT OR REPLACE INTO sources VALUES (?,?,?,?,?,?)", files)

    def forget(self, lineage: str, document_ids: Sequence[str] = (), paths: Sequence[str] = ()) -> None:
        """These documents, and these sources, are no longer in the store."""
        with self._transaction():
            self._db.executemany("DELETE FROM documents WHERE lineage=? AND id=?", [(lineage, i) for i in document_ids])
            self._db.executemany("DELETE FROM sources WHERE lineage=? AND path=?", [(lineage, p) for p in paths])

    def keep_lineages(self, lineages: Iterable[str]) -> None:
        """Drop the rows of all other lineages: of collections that are no more, and of rebuilds that were killed."""
        kept = list(lineages)
        marks = ",".join("?" * len(kept))
        with self._transaction():
            for table in ("sources", "documents"):
                self._db.execute(f"DELETE FROM {table} WHERE lineage NOT IN ({marks})", kept)  # noqa: S608

    def forget_lineage(self, lineage: str) -> None:
        """Drop the rows of a lineage that is no more."""
        with self._transaction():
            for table in ("sources", "documents"):
                self._db.execute(f"DELETE FROM {table} WHERE lineage=?", (lineage,))  # noqa: S608

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._using():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _all(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self._lock, self._using():
            return self._db.execute(sql, parameters).fetchall()

    @contextmanager
    def _using(self) -> Iterator[None]:
        """The one seam for SQLite's errors."""
        try:
            yield
        except sqlite3.Error as exc:
            raise StoreUnavailable(f"the manifest {self._path} cannot be used: {exc}") from exc


_COLUMNS = ("id", "path", "source", "title", "version", "passages", "indexed_at")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM documents"  # noqa: S608


def _record(row: tuple[Any, ...]) -> DocumentRecord:
    return DocumentRecord(**dict(zip(_COLUMNS, row, strict=True)))


def _pack(document: Document | None) -> bytes | None:
    return None if document is None else zlib.compress(msgspec.msgpack.encode(document), 6)


def _unpack(body: object) -> Document | None:
    return msgspec.msgpack.decode(zlib.decompress(body), type=Document) if isinstance(body, bytes) else None
