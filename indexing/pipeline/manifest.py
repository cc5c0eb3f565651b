"""What has been indexed: sources (files) by content hash, and the documents that came out of them.

One SQLite file (WAL) beside the index, or tables that replicas of the service share. Rows belong to a *lineage*, one
filling of a collection (`CollectionSpec`), so that switching to a rebuilt index switches the manifest with it.

A row of `documents` describes a finished version, the one that counts: all of its passages are in the store, and
readers see no other version. What is under way has a row in `pending` beside it:

    announce           write     a new version is about to be written; the documents row, if any, still counts
    commit             sweep     the new version counts; passages of others may still be in the store
    announce_deletion  delete    nothing counts any more; passages may still be in the store
    settled            no row    the store holds what counts and nothing else

So a kill at any moment leaves exactly one version that counts, and rows that say what is left to do.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from indexing.documents import Audience, Document, document_key, split_key
from indexing.pipeline.manifest_tables import DOCUMENT, MIGRATIONS, PENDING, REFUSED, SOURCE, TABLES
from indexing.sqlite import SqliteFile
from indexing.tables import Connection, Tables, upsert

T = TypeVar("T")

_ADOPT = """INSERT INTO documents VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (lineage, id) DO UPDATE SET
  path=excluded.path, source=excluded.source, title=excluded.title, version=excluded.version,
  passages=excluded.passages, indexed_at=excluded.indexed_at, body=excluded.body, allowed=excluded.allowed
  WHERE documents.version=?"""

_KEY = ("lineage", "id")
_PUT_SOURCE = upsert("sources", SOURCE, ("lineage", "path"))
_PUT_PENDING = upsert("pending", PENDING, _KEY)
_PUT_DELETION = upsert(
    "pending",
    PENDING,
    _KEY,
    "SELECT lineage, id, 'delete', path, source, title, NULL, NULL, allowed FROM documents WHERE lineage=? AND id=?",
)
_COMMIT = upsert(
    "documents",
    DOCUMENT,
    _KEY,
    "SELECT lineage, id, path, source, title, version, ?, ?, body, allowed FROM pending "
    "WHERE lineage=? AND id=? AND op='write' AND version=?",
)
_COLUMNS = ("id", "path", "source", "title", "version", "passages", "indexed_at", "allowed")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM documents"  # noqa: S608
_SELECT_PENDING = (
    "SELECT p.id, p.op, p.path, p.source, p.version, p.body IS NOT NULL, d.version, p.allowed FROM pending p "
    "LEFT JOIN documents d ON d.lineage=p.lineage AND d.id=p.id"
)

_PAGE = 5_000
"""Sources that are read at a time."""

OwnerOf = Callable[[str], tuple[str | None, str] | None]
"""Document id -> (path of its file or None, the name that users see); None for an unknown id."""


class SourceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A file and its content hash. `name` is what users see.

    `path` is the `document_key` of its tenant and its absolute path: one file may be indexed for two tenants. `allowed`
    are the groups that its documents are to be for; where it is read from the manifest, they have them, and it is ().
    """

    path: str
    name: str
    hash: str
    bytes: int
    allowed: tuple[str, ...] = ()


class IndexedFile(NamedTuple):
    """A file from which documents came: the name that users see, and the groups that may see them."""

    name: str
    allowed: tuple[str, ...] = ()


class RefusedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A file that could not be read, so that it is not read again until it, or the `reading`, changes.

    `reading` is that of `indexing.readers.limits.reading`.
    """

    path: str
    hash: str
    reading: str
    reason: str
    detail: str


class DocumentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A document of a lineage. `id` is its `indexing.documents.document_key`, `version` its content hash. `allowed` are
    the groups that may see it, if not all of its tenant may.

    `path` is the file it came from (as of `SourceRecord`), None for one that was submitted over the API; then `body` is
    the document itself, so that a rebuild can make it anew.
    """

    id: str
    path: str | None
    source: str
    title: str
    version: str
    passages: int
    body: Document | None = None
    indexed_at: float = 0.0
    allowed: tuple[str, ...] = ()

    @property
    def tenant(self) -> str:
        """Whose it is; "" for nobody's."""
        return split_key(self.id)[0]

    @property
    def document_id(self) -> str:
        """Its id, as users know it."""
        return split_key(self.id)[1]


class PendingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is under way with a document: `version` is the one that is written (`op` "write") or counts since ("sweep").

    `counts` is the version that counts meanwhile, None if none does. `submitted` says that the row has the document
    itself.
    """

    id: str
    op: Literal["write", "sweep", "delete"]
    path: str | None
    source: str
    version: str | None
    submitted: bool
    counts: str | None
    allowed: tuple[str, ...] = ()


class Totals(msgspec.Struct, frozen=True):
    """Documents, their passages, and documents with which something is under way."""

    documents: int
    passages: int
    unfinished: int


class Manifest:
    """The record of an index. Several processes may read it while one writes. Raises StoreUnavailable."""

    def __init__(self, place: Path | Tables, *, migrates: bool = True) -> None:
        """In a file, see `SqliteFile`, or in tables made by `SHARED_MIGRATIONS`. Blocks: open it in a thread."""
        in_file = partial(SqliteFile, what="the manifest", migrations=MIGRATIONS, migrates=migrates)
        self._file: Tables = in_file(place) if isinstance(place, Path) else place

    async def close(self) -> None:
        """Finish the calls under way, then close the file."""
        await self._file.close()

    async def sources(self, lineage: str, *, after: str = "", limit: int = _PAGE) -> list[SourceRecord]:
        """Finished sources in the order of their paths, those after the path `after`."""
        sql = "SELECT path, name, hash, bytes FROM sources WHERE lineage=? AND path>? ORDER BY path LIMIT ?"
        return await self._file.query(_source_records, sql, lineage, after, limit)

    async def source_pages(self, lineage: str, size: int = _PAGE) -> AsyncIterator[list[SourceRecord]]:
        """Every finished source, so many at a time: others have their turn meanwhile, and may change later pages."""
        after = ""
        while page := await self.sources(lineage, after=after, limit=size):
            yield page
            after = page[-1].path

    async def versions(self, lineage: str, path: str) -> dict[str, str | None]:
        """The documents of a source: id -> version, None for one that is being written or deleted."""
        sql = (
            "SELECT id, version FROM documents WHERE lineage=? AND path=? "
            "UNION ALL SELECT id, NULL FROM pending WHERE lineage=? AND path=? AND op!='sweep'"  # the later one counts
        )
        return await self._file.query(dict, sql, lineage, path, lineage, path)

    async def files(self, lineage: str) -> dict[str, IndexedFile]:
        """Every file that documents came from, finished or not, by `path`."""
        sql = (
            "SELECT path, source, allowed FROM documents WHERE lineage=? AND path IS NOT NULL "
            "UNION ALL SELECT path, source, allowed FROM pending WHERE lineage=? AND path IS NOT NULL AND op!='sweep'"
        )  # the later one counts
        return await self._file.run(lambda db: _indexed_files(db.execute(sql, (lineage, lineage))))

    async def with_owners(self, lineage: str, work: Callable[[OwnerOf], T]) -> T:
        """Call `work` with a look-up of where documents came from. It runs in the manifest's thread: no document is
        announced or committed between a look-up and what `work` concludes from it.
        """
        sql = (
            "SELECT path, source FROM pending WHERE lineage=? AND id=? AND op='write' "
            "UNION ALL SELECT path, source FROM documents WHERE lineage=? AND id=? LIMIT 1"
        )
        return await self._file.run(lambda db: work(lambda key: db.execute(sql, (lineage, key) * 2).fetchone()))

    async def document(self, lineage: str, document_id: str) -> DocumentRecord | None:
        """One document without its body."""
        records = await self._file.query(_document_records, f"{_SELECT} WHERE lineage=? AND id=?", lineage, document_id)
        return records[0] if records else None

    async def document_with_body(self, lineage: str, document_id: str) -> DocumentRecord | None:
        """One document as it was submitted; there is no body if it came from a file."""
        records = await self.whole(lineage, [document_id])
        return records[0] if records else None

    async def documents(
        self, lineage: str, audience: Audience, *, after: str = "", limit: int = 100
    ) -> list[DocumentRecord]:
        """Documents that the audience may see, by key, those after the key `after`, without their bodies."""
        condition, values = _open_to(audience)
        where = f"WHERE lineage=? AND id>? AND {condition} ORDER BY id LIMIT ?"
        return await self._file.query(_document_records, f"{_SELECT} {where}", lineage, after, *values, limit)

    async def whole(self, lineage: str, document_ids: Sequence[str]) -> list[DocumentRecord]:
        """These documents, as far as they exist, with the bodies of those that were submitted."""
        sql = f"SELECT {', '.join(_COLUMNS)}, body FROM documents WHERE lineage=? AND id=?"  # noqa: S608

        def read(db: Connection) -> list[DocumentRecord]:
            rows = [row for key in document_ids for row in db.execute(sql, (lineage, key))]
            records = zip(_document_records([row[:-1] for row in rows]), rows, strict=True)
            return [msgspec.structs.replace(record, body=_unpack(row[-1])) for record, row in records]

        return await self._file.run(read)

    async def ids_between(self, lineage: str, first: str, end: str) -> list[str]:
        """Documents of which there is anything, from the id `first` up to `end`, which is left out."""
        sql = " UNION ".join(
            f"SELECT id FROM {table} WHERE lineage=? AND id>=? AND id<?"  # noqa: S608
            for table in ("documents", "pending")
        )
        between = (lineage, first, end)
        return await self._file.query(lambda rows: [row[0] for row in rows], sql, *between, *between)

    async def known(self, lineage: str) -> dict[str, tuple[str | None, int]]:
        """Every document: id -> (version, or None where something is under way; number of passages)."""
        sql = (
            "SELECT id, version, passages FROM documents WHERE lineage=? "
            "UNION ALL SELECT id, NULL, 0 FROM pending WHERE lineage=?"  # the later one counts
        )
        return await self._file.query(lambda rows: {row[0]: row[1:] for row in rows}, sql, lineage, lineage)

    async def totals(self, lineage: str) -> "Totals":
        """What is on record, counted."""
        sql = (
            "SELECT count(*), coalesce(sum(passages), 0), (SELECT count(*) FROM pending WHERE lineage=?) "
            "FROM documents WHERE lineage=?"
        )
        return await self._file.query(lambda rows: Totals(*rows[0]), sql, lineage, lineage)

    async def seen(self, lineage: str, audience: Audience) -> tuple[int, int]:
        """How many documents the audience may see, and how many passages they have."""
        condition, values = _open_to(audience)
        sql = f"SELECT count(*), coalesce(sum(passages), 0) FROM documents WHERE lineage=? AND {condition}"  # noqa: S608
        return await self._file.query(lambda rows: (rows[0][0], rows[0][1]), sql, lineage, *values)

    async def take_over(self, lineage: str, documents: Sequence[tuple[DocumentRecord, bool]]) -> int:
        """Make documents of a file its own that are recorded as submitted: those with just this content, and those
        whose id comes from its path (the second of each pair says so). Returns how many.
        """
        sql = """
            UPDATE documents SET path=?, source=?, body=NULL
            WHERE lineage=? AND id=? AND path IS NULL AND (version=? OR ?=1)"""

        def execute(db: Connection) -> int:
            with db.transaction(durable=False):
                return sum(
                    db.execute(sql, (d.path, d.source, lineage, d.id, d.version, int(by_path))).rowcount
                    for d, by_path in documents
                )

        return await self._file.run(execute)

    async def adopt(
        self,
        lineage: str,
        documents: Sequence[DocumentRecord],
        sources: Iterable[SourceRecord] = (),
        now: float = 0.0,
        *,
        instead: Mapping[str, str] | None = None,
    ) -> None:
        """Record finished documents and sources whose passages are in the store already, as they are given.

        A document that has been recorded in the meantime stays as it is, but for one in the version that `instead`
        names (id -> version).
        """
        outdated = instead or {}
        await self._file.write(
            (
                _ADOPT,
                (
                    (
                        *(lineage, d.id, d.path, d.source, d.title, d.version, d.passages, d.indexed_at, _pack(d.body)),
                        _groups(d.allowed),
                        outdated.get(d.id),
                    )
                    for d in documents
                ),
            ),
            (
                _PUT_SOURCE,
                ((lineage, s.path, s.name, s.hash, s.bytes, now) for s in sources),
            ),
        )

    async def submitted(self, lineage: str) -> dict[str, str]:
        """Documents without a file: id -> version."""
        return await self._file.query(
            dict, "SELECT id, version FROM documents WHERE lineage=? AND path IS NULL", lineage
        )

    async def refused(self, lineage: str) -> dict[str, RefusedRecord]:
        """Files that could not be read, by path."""
        sql = "SELECT path, hash, reading, reason, detail FROM refused WHERE lineage=?"
        return await self._file.query(_refused_records, sql, lineage)

    async def remember_refused(self, lineage: str, record: RefusedRecord) -> None:
        """The file could not be read."""
        await self._file.write(
            (
                upsert("refused", REFUSED, ("lineage", "path")),
                [(lineage, record.path, record.hash, record.reading, record.reason, record.detail)],
            )
        )

    async def forget_refused(self, lineage: str, paths: Iterable[str]) -> None:
        """These files are about to be read again, or are gone."""
        await self._file.write(("DELETE FROM refused WHERE lineage=? AND path=?", ((lineage, path) for path in paths)))

    async def count(self, lineage: str) -> int:
        """The number of documents."""
        sql = "SELECT count(*) FROM documents WHERE lineage=?"
        return await self._file.query(lambda rows: int(rows[0][0]), sql, lineage)

    async def unfinished(self, lineage: str) -> list[PendingRecord]:
        """What is under way, or was when the process was killed."""
        return await self._file.query(_pending_records, f"{_SELECT_PENDING} WHERE p.lineage=?", lineage)

    async def unfinished_all(self) -> dict[str, list[PendingRecord]]:
        """As `unfinished`, of every lineage."""
        sql = _SELECT_PENDING.replace("SELECT", "SELECT p.lineage,", 1)

        def by_lineage(rows: list[tuple[Any, ...]]) -> dict[str, list[PendingRecord]]:
            found: dict[str, list[PendingRecord]] = {}
            for lineage, *row in rows:
                found.setdefault(lineage, []).extend(_pending_records([tuple(row)]))
            return found

        return await self._file.query(by_lineage, sql)

    async def pending(self, lineage: str, document_id: str) -> PendingRecord | None:
        """What is under way with one document."""
        sql = f"{_SELECT_PENDING} WHERE p.lineage=? AND p.id=?"
        records = await self._file.query(_pending_records, sql, lineage, document_id)
        return records[0] if records else None

    async def pending_with_body(self, lineage: str, document_id: str) -> DocumentRecord | None:
        """The submitted document that is being written, if one is."""
        sql = (
            "SELECT id, path, source, title, version, 0, 0.0, allowed, body FROM pending "
            "WHERE lineage=? AND id=? AND op='write' AND body IS NOT NULL"
        )
        return await self._file.query(_submitted_record, sql, lineage, document_id)

    async def announce(self, lineage: str, documents: Sequence[DocumentRecord]) -> dict[str, str | None]:
        """Passages of these documents are about to be written: until the commit, their sources are not finished.

        Returns the version of each that counts meanwhile, None for a new one.
        """

        # Not in the manifest's thread: packing 60 MB takes seconds, and everybody would wait for it.
        bodies = await asyncio.to_thread(lambda: [_pack(d.body) for d in documents])
        rows = [
            (lineage, d.id, "write", d.path, d.source, d.title, d.version, body, _groups(d.allowed))
            for d, body in zip(documents, bodies, strict=True)
        ]

        def announce(db: Connection) -> dict[str, str | None]:
            with db.transaction():
                db.executemany(
                    "DELETE FROM sources WHERE lineage=? AND path=?",
                    {(lineage, d.path) for d in documents if d.path is not None},
                )
                db.executemany(_PUT_PENDING, rows)
            versions = (
                (d.id, db.execute("SELECT version FROM documents WHERE lineage=? AND id=?", (lineage, d.id)).fetchone())
                for d in documents
            )
            return {key: row[0] if row else None for key, row in versions}

        return await self._file.run(announce)

    async def announce_deletion(self, lineage: str, document_ids: Sequence[str]) -> None:
        """Passages of these documents are about to be deleted: from now on neither they nor their sources count."""
        keys = [(lineage, document_id) for document_id in document_ids]
        path = "SELECT path FROM {} WHERE lineage=? AND id=?"
        paths = f"{path.format('documents')} UNION {path.format('pending')}"
        await self._file.write(
            (
                f"DELETE FROM sources WHERE lineage=? AND path IN ({paths})",  # noqa: S608
                [(lineage, *key, *key) for key in keys],
            ),
            ("UPDATE pending SET op='delete', version=NULL, body=NULL WHERE lineage=? AND id=?", keys),
            (
                _PUT_DELETION,
                keys,
            ),
            ("DELETE FROM documents WHERE lineage=? AND id=?", keys),
        )

    async def commit(
        self, lineage: str, documents: Sequence[DocumentRecord], sources: Iterable[SourceRecord], now: float
    ) -> None:
        """All passages of these announced documents, and all documents of these sources, are in the store: from now
        on these versions count.
        """
        await self._file.write(
            (
                _COMMIT,
                [(d.passages, now, lineage, d.id, d.version) for d in documents],
            ),
            (
                "UPDATE pending SET op='sweep', body=NULL WHERE lineage=? AND id=? AND op='write' AND version=?",
                [(lineage, d.id, d.version) for d in documents],
            ),
            (
                _PUT_SOURCE,
                ((lineage, s.path, s.name, s.hash, s.bytes, now) for s in sources),
            ),
        )

    async def settled(self, lineage: str, document_ids: Iterable[str]) -> None:
        """The store holds what counts of these documents, and nothing else."""
        keys = [(lineage, document_id) for document_id in document_ids]
        # Not durable: after a power cut the same is done again.
        await self._file.write(("DELETE FROM pending WHERE lineage=? AND id=?", keys), durable=False)

    async def forget_sources(self, lineage: str, paths: Sequence[str]) -> None:
        """These files are gone, and so are their documents."""
        rows = [(lineage, path) for path in paths]
        await self._file.write(("DELETE FROM sources WHERE lineage=? AND path=?", rows), durable=False)

    async def lineages(self) -> set[str]:
        """Of which there is anything."""
        sql = " UNION ".join(f"SELECT lineage FROM {table}" for table in TABLES)  # noqa: S608
        return await self._file.query(lambda rows: {row[0] for row in rows}, sql)

    async def forget_lineage(self, lineage: str) -> None:
        """Drop the rows of one lineage."""
        await self._file.write(*((f"DELETE FROM {table} WHERE lineage=?", [(lineage,)]) for table in TABLES))  # noqa: S608


def _source_records(rows: list[tuple[Any, ...]]) -> list[SourceRecord]:
    return [SourceRecord(path=row[0], name=row[1], hash=row[2], bytes=row[3]) for row in rows]


def _indexed_files(rows: Iterable[tuple[Any, ...]]) -> dict[str, IndexedFile]:
    return {path: IndexedFile(name, _read_groups(allowed)) for path, name, allowed in rows}


def _refused_records(rows: list[tuple[Any, ...]]) -> dict[str, RefusedRecord]:
    return {row[0]: RefusedRecord(**dict(zip(RefusedRecord.__struct_fields__, row, strict=True))) for row in rows}


def _document_records(rows: list[tuple[Any, ...]]) -> list[DocumentRecord]:
    return [
        DocumentRecord(**dict(zip(_COLUMNS[:-1], row[:-1], strict=True)), allowed=_read_groups(row[-1])) for row in rows
    ]


def _pending_records(rows: list[tuple[Any, ...]]) -> list[PendingRecord]:
    fields = PendingRecord.__struct_fields__
    values = ((*row[:5], bool(row[5]), row[6], _read_groups(row[7])) for row in rows)
    return [PendingRecord(**dict(zip(fields, one, strict=True))) for one in values]


def _submitted_record(rows: list[tuple[Any, ...]]) -> DocumentRecord | None:
    if not rows or (body := _unpack(rows[0][-1])) is None:
        return None
    (record,) = _document_records([rows[0][:-1]])
    return msgspec.structs.replace(record, body=body, version=body.content_hash())


def _open_to(audience: Audience) -> tuple[str, tuple[str, ...]]:
    """A condition on rows of `documents`, and its values: as `Audience.sees`."""
    if audience.unrestricted:
        return "1=1", ()
    values: tuple[str, ...]
    owned, values = "replace(id, ?, '')=id", ("\x1f",)  # what `document_key` puts after a tenant
    if audience.tenant:
        first = document_key(audience.tenant, "")
        owned, values = "id>=? AND id<?", (first, first + "\U0010ffff")
    if not audience.groups:
        return f"{owned} AND allowed=''", values
    named = ",".join("?" * len(audience.groups))
    return (
        f"{owned} AND (allowed='' OR EXISTS (SELECT 1 FROM json_each(allowed) WHERE value IN ({named})))",  # noqa: S608
        (*values, *audience.groups),
    )


def _groups(allowed: Sequence[str]) -> str:
    """As a column holds them: "" where everybody in the tenant may see the document."""
    return msgspec.json.encode(allowed).decode() if allowed else ""


def _read_groups(column: str) -> tuple[str, ...]:
    return tuple(msgspec.json.decode(column)) if column else ()


def _pack(document: Document | None) -> bytes | None:
    return None if document is None else zlib.compress(msgspec.msgpack.encode(document), 6)


def _unpack(packed: bytes | None) -> Document | None:
    return None if packed is None else msgspec.msgpack.decode(zlib.decompress(packed), type=Document)
