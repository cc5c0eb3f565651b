"""Brings what a home has in SQLite into the PostgreSQL database that replicas share.

Each part goes in one transaction, which leaves a mark: a second run finds what the first has done.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec

from app.access.key_file import KEY_FILE
from app.access.shared import MIGRATIONS as KEY_TABLES
from app.accounting.ledger import COLUMNS, LEDGER_FILE, open_for_writing
from app.accounting.shared import MIGRATIONS as LEDGER_TABLES
from app.errors import Conflict
from app.ranking.calibration import FITS_FILE, read_fits
from app.ranking.shared import MIGRATIONS as RANKING_TABLES
from app.ranking.shared import put_fit, put_trust
from app.ranking.trust import TRUST_FILE, read_records
from app.services.job_records import COLUMNS as JOB_COLUMNS
from app.services.job_records import SHARED_MIGRATIONS as JOB_TABLES
from app.services.job_records import UNFINISHED, JobRecords
from app.services.jobs import JOBS_FILE
from indexing.errors import StoreUnavailable
from indexing.pipeline.manifest import Manifest
from indexing.pipeline.manifest_tables import SHARED_MIGRATIONS as MANIFEST_TABLES
from indexing.pipeline.manifest_tables import TABLES as MANIFEST_COLUMNS
from indexing.postgres import Database, PostgresConnection

_MARKS = (
    """
CREATE TABLE migrated (
  part TEXT PRIMARY KEY, home TEXT NOT NULL, at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp());
""",
)

_BATCH = 100
"""Rows that one statement inserts."""

Report = Callable[[str, int, int], None]
"""Hears of a part, how many of its rows are there, and how many there will be."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What belongs together. `copy` writes it in a transaction; `tables` must be empty before."""

    name: str
    file: Path
    part: str
    migrations: Sequence[str]
    tables: Sequence[str]
    copy: Callable[[PostgresConnection, Report], int]


class Migrated(msgspec.Struct, frozen=True, kw_only=True):
    """A part, and the rows that were written; None: an earlier run has done it."""

    name: str
    rows: int | None


def migrate(home: Path, manifest: Path | None, database: Database, report: Report) -> list[Migrated]:
    """Bring over what the home has. `manifest`: its file, where the index is on a server that replicas share.

    Blocks. Nothing may write to the home or to the database meanwhile. Raises Conflict where the database has something
    of its own already, or a job is unfinished, StoreUnavailable.
    """
    database.prepare("migration", _MARKS)
    parts = [part for part in _parts(home, manifest) if part.file.exists()]
    for part in parts:
        database.prepare(part.part, part.migrations)
    with database.connected() as db:
        left = [part for part in parts if not _is_done(db, part, home)]
    done = []
    for part in parts:
        rows = None
        if part in left:
            with database.connected() as db, db.transaction():
                rows = part.copy(db, report)
                db.execute("INSERT INTO migrated (part, home) VALUES (?, ?)", (part.name, str(home)))
        done.append(Migrated(name=part.name, rows=rows))
    return done


def _is_done(db: PostgresConnection, part: Part, home: Path) -> bool:
    """Raises Conflict where something else is there."""
    mark = db.execute("SELECT home FROM migrated WHERE part=?", (part.name,)).fetchone()
    if mark is not None and mark[0] == str(home):
        return True
    if mark is not None:
        raise Conflict(f"the database has the {part.name} of {mark[0]} already; choose an empty one")
    for table in part.tables:
        if db.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()[0]:  # noqa: S608
            raise Conflict(f"the database has {part.name} already (table winnow.{table}); choose an empty one")
    return False


def _parts(home: Path, manifest: Path | None) -> Iterator[Part]:
    keys, ledger, jobs = home / KEY_FILE, home / LEDGER_FILE, home / JOBS_FILE
    yield Part(
        name="keys", file=keys, part="access", migrations=KEY_TABLES, tables=("keys",), copy=partial(_copy_keys, keys)
    )
    yield Part(
        name="ledger",
        file=ledger,
        part="ledger",
        migrations=LEDGER_TABLES,
        tables=("calls", "spending"),
        copy=partial(_copy_ledger, ledger),
    )
    for file in (home / FITS_FILE, home / TRUST_FILE):
        table, copy = ("calibrations", _copy_fits) if file.name == FITS_FILE else ("trust", _copy_trust)
        yield Part(
            name=table, file=file, part="ranking", migrations=RANKING_TABLES, tables=(table,), copy=partial(copy, file)
        )
    if manifest is not None:
        yield Part(
            name="documents",
            file=manifest,
            part="manifest",
            migrations=MANIFEST_TABLES,
            tables=tuple(MANIFEST_COLUMNS),
            copy=partial(_copy_manifest, manifest),
        )
        yield Part(
            name="jobs", file=jobs, part="jobs", migrations=JOB_TABLES, tables=("jobs",), copy=partial(_copy_jobs, jobs)
        )


def _copy_keys(file: Path, db: PostgresConnection, report: Report) -> int:
    rows = _copy(file, db, {"keys": {"id": "id", "name": "name", "record": "record"}}, "keys", report)
    db.execute("UPDATE keys_version SET version = version + 1")
    return rows


def _copy_ledger(file: Path, db: PostgresConnection, report: Report) -> int:
    """A row's own id is random elsewhere; below zero there are no others."""
    open_for_writing(file).close()
    calls = {"uid": "-id", **{column: column for column in COLUMNS}}
    spending = {column: column for column in ("period", "scope", "name", "pico")}
    return _copy(file, db, {"calls": calls, "spending": spending}, "ledger", report)


def _copy_manifest(file: Path, db: PostgresConnection, report: Report) -> int:
    asyncio.run(Manifest(file).close())
    tables = {table: {column: column for column in columns} for table, columns in MANIFEST_COLUMNS.items()}
    return _copy(file, db, tables, "documents", report)


def _copy_jobs(file: Path, db: PostgresConnection, report: Report) -> int:
    """The finished ones: the uploads of others are files. Raises Conflict where there are such."""
    asyncio.run(JobRecords.in_file(file, file.with_name("quarantine")).close())
    with closing(_reading(file)) as source:
        sql = f"SELECT count(*) FROM jobs WHERE state IN ({', '.join('?' * len(UNFINISHED))})"  # noqa: S608
        if unfinished := source.execute(sql, UNFINISHED).fetchone()[0]:
            raise Conflict(f"{unfinished} jobs are not finished: let `winnow serve` without the database finish them")
    tables = {"jobs": {column: column for column in JOB_COLUMNS}, "errors": {"job": "job", "result": "result"}}
    return _copy(file, db, tables, "jobs", report)


def _copy_fits(file: Path, db: PostgresConnection, report: Report) -> int:
    fits = read_fits(file)
    for fit in fits:
        put_fit(db, fit)
    report("calibrations", len(fits), len(fits))
    return len(fits)


def _copy_trust(file: Path, db: PostgresConnection, report: Report) -> int:
    records = read_records(file)
    for owner, record in records.items():
        put_trust(db, owner, record)
    report("trust", len(records), len(records))
    return len(records)


def _copy(
    file: Path, db: PostgresConnection, tables: Mapping[str, Mapping[str, str]], name: str, report: Report
) -> int:
    """The rows of tables in their order; each column with the expression in the file that gives it."""
    done = 0
    try:
        with closing(_reading(file)) as source:
            total = sum(int(source.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in tables)  # noqa: S608
            for table, columns in tables.items():
                cursor = source.execute(f"SELECT {', '.join(columns.values())} FROM {table} ORDER BY {_order(table)}")  # noqa: S608
                while rows := cursor.fetchmany(_BATCH):
                    places = f"({', '.join('?' * len(columns))})"
                    db.execute(
                        f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([places] * len(rows))}",  # noqa: S608
                        [value for row in rows for value in row],
                    )
                    done += len(rows)
                    report(name, done, total)
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"{file} cannot be read: {exc}") from exc
    return done


def _order(table: str) -> str:
    """What tells the order in which rows came; keys that have none are in that of their names."""
    return {"calls": "id", "jobs": "number", "errors": "rowid"}.get(table, "1, 2")


def _reading(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
