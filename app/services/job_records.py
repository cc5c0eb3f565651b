"""What is known of jobs: a SQLite file in the home directory, or tables that replicas share."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from indexing.documents import Audience
from indexing.pipeline.ingest import DocumentResult, Versions
from indexing.sqlite import SqliteFile, set_aside_if_damaged
from indexing.tables import Connection, Tables

MAX_ERRORS = 1000
"""Failed documents that a job lists; it counts all of them."""

log = structlog.get_logger()

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
UNFINISHED = ("queued", "running")

Outcome = Literal["created", "updated", "unchanged", "failed"]


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A job and how far it is. `documents` is null until its files are read; `bytes` is the size of the upload.

    `expected_passages` is an estimate for all documents, `expected_done` the part of it that is indexed. `intended` is
    what the documents that are being indexed will become, so that a restart in their midst counts them rightly.
    `number` orders the jobs; it is given when the record is saved first. `tenant` submitted it (None: the operator),
    and its documents are for the sets of groups `allowed`.
    """

    number: int = 0
    id: str
    collection: str
    state: JobState = "queued"
    bytes: int
    documents: int | None = None
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: int = 0
    passages: int = 0
    expected_passages: float = 0.0
    expected_done: float = 0.0
    intended: tuple[Outcome, ...] = ()
    detail: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    tenant: str | None = None
    allowed: tuple[tuple[str, ...], ...] = ()

    def is_shown_to(self, audience: Audience) -> bool:
        """Whether the audience may see all of its documents."""
        if audience.unrestricted:
            return True
        ours = self.tenant is not None and audience.admits(self.collection)
        return ours and all(audience.sees(self.tenant or "", groups) for groups in self.allowed or ((),))

    @property
    def position(self) -> int:
        """How many documents have been indexed or have failed."""
        return self.created + self.updated + self.unchanged + self.failed


_MIGRATIONS = (
    """
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, collection TEXT NOT NULL, state TEXT NOT NULL,
  bytes INTEGER NOT NULL, documents INTEGER, created INTEGER NOT NULL, updated INTEGER NOT NULL,
  unchanged INTEGER NOT NULL, failed INTEGER NOT NULL, passages INTEGER NOT NULL, expected_passages REAL NOT NULL,
  expected_done REAL NOT NULL, intended TEXT NOT NULL, detail TEXT, created_at TEXT NOT NULL, started_at TEXT,
  finished_at TEXT);
CREATE TABLE errors (job TEXT NOT NULL, result TEXT NOT NULL);
CREATE INDEX errors_by_job ON errors (job);
""",
    """
CREATE TABLE overtaken (
  collection TEXT NOT NULL, document TEXT NOT NULL, job INTEGER NOT NULL, PRIMARY KEY (collection, document))
  WITHOUT ROWID;
""",
    """
DROP TABLE overtaken;
CREATE TABLE overtaken (
  collection TEXT NOT NULL, document TEXT NOT NULL, version TEXT NOT NULL, job INTEGER NOT NULL,
  PRIMARY KEY (collection, document, version)) WITHOUT ROWID;
""",
    """
ALTER TABLE jobs ADD COLUMN tenant TEXT;
ALTER TABLE jobs ADD COLUMN allowed TEXT NOT NULL DEFAULT '[]';
""",
)
SHARED_MIGRATIONS = (
    """
CREATE TABLE jobs (
  number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id TEXT NOT NULL UNIQUE, collection TEXT NOT NULL,
  state TEXT NOT NULL, bytes BIGINT NOT NULL, documents BIGINT, created BIGINT NOT NULL, updated BIGINT NOT NULL,
  unchanged BIGINT NOT NULL, failed BIGINT NOT NULL, passages BIGINT NOT NULL,
  expected_passages DOUBLE PRECISION NOT NULL, expected_done DOUBLE PRECISION NOT NULL, intended TEXT NOT NULL,
  detail TEXT, created_at TEXT NOT NULL, started_at TEXT, finished_at TEXT, tenant TEXT, allowed TEXT NOT NULL);
CREATE TABLE errors (rowid BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job TEXT NOT NULL, result TEXT NOT NULL);
CREATE INDEX errors_by_job ON errors (job);
CREATE TABLE overtaken (
  collection TEXT NOT NULL, document TEXT NOT NULL, version TEXT NOT NULL, job BIGINT NOT NULL,
  PRIMARY KEY (collection, document, version));
CREATE TABLE uploads (
  job TEXT NOT NULL, number BIGINT NOT NULL, piece BIGINT NOT NULL, data BYTEA NOT NULL,
  at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (job, number, piece));
""",
)
"""The same tables in PostgreSQL, and the uploads that are files elsewhere. Append only."""

COLUMNS = JobRecord.__struct_fields__[1:]
"""All but the number."""
_SELECT = f"SELECT number, {', '.join(COLUMNS)} FROM jobs"  # noqa: S608
_SAVE = (
    f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT (id) DO UPDATE "  # noqa: S608
    f"SET {', '.join(f'{column}=excluded.{column}' for column in COLUMNS)}"
)
_DELETE = ("DELETE FROM errors WHERE job=?", "DELETE FROM jobs WHERE id=?")
_NEWEST = "SELECT max(number) FROM jobs WHERE collection=? AND state IN (?,?)"
_OVERTAKE = (
    "INSERT INTO overtaken VALUES (?,?,?,?) ON CONFLICT (collection, document, version) DO UPDATE "
    "SET job=CASE WHEN overtaken.job > excluded.job THEN overtaken.job ELSE excluded.job END"
)
_OVERTAKEN = """SELECT document, version FROM overtaken
  JOIN jobs ON jobs.collection=overtaken.collection AND number<=job WHERE jobs.id=?"""
_FORGET_OVERTAKEN = """DELETE FROM overtaken WHERE NOT EXISTS (
  SELECT 1 FROM jobs WHERE jobs.collection=overtaken.collection AND number<=job AND state IN (?,?))"""
_TO_PRUNE = "SELECT id FROM jobs WHERE finished_at IS NOT NULL ORDER BY number DESC LIMIT 1000000000 OFFSET ?"


class JobRecords:
    """Several processes may read the file while one writes. Raises StoreUnavailable, DiskFull."""

    def __init__(self, tables: Tables) -> None:
        self._file = tables

    @classmethod
    def in_file(cls, path: Path, quarantine: Path) -> "JobRecords":
        """A file that SQLite cannot read is moved to `quarantine`. Blocks: open it in a thread."""
        if moved := set_aside_if_damaged(path, quarantine):
            log.error(
                "the file of the jobs was damaged and is made anew; uploads are taken up again", moved_to=str(moved)
            )
        return cls(SqliteFile(path, "the jobs", _MIGRATIONS))

    async def close(self) -> None:
        """Finish the calls under way, then close the file."""
        await self._file.close()

    async def save(self, record: JobRecord, errors: Sequence[DocumentResult] = (), *, durable: bool = True) -> None:
        """Write the record, and add failed documents."""
        rows = [(record.id, msgspec.json.encode(error).decode()) for error in errors]
        await self._file.write(
            (_SAVE, [_row(record)]), ("INSERT INTO errors (job, result) VALUES (?,?)", rows), durable=durable
        )

    async def find(self, job_id: str) -> tuple[JobRecord, tuple[DocumentResult, ...]] | None:
        """A job with its failed documents, the first 1000; None for an unknown id."""

        def read(db: Connection) -> tuple[JobRecord, tuple[DocumentResult, ...]] | None:
            row = db.execute(f"{_SELECT} WHERE id=?", (job_id,)).fetchone()
            errors = db.execute("SELECT result FROM errors WHERE job=? ORDER BY rowid", (job_id,)).fetchall()
            failed = tuple(msgspec.json.decode(error, type=DocumentResult) for (error,) in errors)
            return (_record(row), failed) if row else None

        return await self._file.run(read)

    async def unfinished(self) -> list[JobRecord]:
        """In the order in which they came."""
        sql = f"{_SELECT} WHERE state IN (?,?) ORDER BY number"
        return await self._file.query(_records, sql, *UNFINISHED)

    async def page(
        self,
        *,
        before: int | None,
        limit: int,
        state: JobState | None,
        collection: str | None,
        audience: Audience,
    ) -> list[JobRecord]:
        """Up to `limit` jobs that the audience may see, the newest first: those with a number below `before`, of this
        state and collection.
        """
        conditions = {"number<?": before, "state=?": state, "collection=?": collection}
        given = {condition: value for condition, value in conditions.items() if value is not None}
        where = f"WHERE {' AND '.join(given)}" if given else ""

        def read(db: Connection) -> list[JobRecord]:
            rows = map(_record, db.execute(f"{_SELECT} {where} ORDER BY number DESC", tuple(given.values())))
            return list(islice((record for record in rows if record.is_shown_to(audience)), limit))

        return await self._file.run(read)

    async def overtake(self, collection: str, versions: Mapping[str, str]) -> None:
        """Note what these documents become (id -> version, "" for none) after every unfinished job of the collection
        had come. With none it only finds out whether the file can be used.
        """
        ((newest,),) = await self._file.query(list, _NEWEST, collection, *UNFINISHED)
        if versions and newest is not None:
            rows = [(collection, document, version, newest) for document, version in versions.items()]
            await self._file.write((_OVERTAKE, rows), durable=True)

    async def overtaken(self, job_id: str, documents: Sequence[str]) -> Versions:
        """Which of these were to become what after this job had come."""
        sql = f"{_OVERTAKEN} AND document IN ({','.join('?' * len(documents))})"
        found: Versions = {}
        for document, version in await self._file.query(list, sql, job_id, *documents):
            found.setdefault(document, set()).add(version)
        return found

    async def delete(self, job_id: str) -> None:
        """Forget a job."""
        await self._file.write(*((sql, [(job_id,)]) for sql in _DELETE))

    async def prune(self, keep: int) -> None:
        """Forget the oldest finished jobs, all but `keep` of them, and who overtook those that are finished."""

        def remove(db: Connection) -> None:
            with db.transaction(durable=False):
                db.execute(_FORGET_OVERTAKEN, UNFINISHED)
                old = db.execute(_TO_PRUNE, (keep,)).fetchall()
                for sql in _DELETE:
                    db.executemany(sql, old)

        await self._file.run(remove)


def _row(record: JobRecord) -> tuple[object, ...]:
    values = {
        **msgspec.to_builtins(record),
        "intended": ",".join(record.intended),
        "allowed": msgspec.json.encode(record.allowed).decode(),
    }
    return tuple(values[column] for column in COLUMNS)


def _record(row: Sequence[Any]) -> JobRecord:
    values = dict(zip(JobRecord.__struct_fields__, row, strict=True))
    values["intended"] = tuple(values["intended"].split(",")) if values["intended"] else ()
    values["allowed"] = msgspec.json.decode(values["allowed"])
    return msgspec.convert(values, JobRecord)


def _records(rows: list[tuple[Any, ...]]) -> list[JobRecord]:
    return [_record(row) for row in rows]
