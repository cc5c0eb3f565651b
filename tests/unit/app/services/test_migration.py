"""From the files of one service to the database of several, on a real PostgreSQL: the same rows on both sides."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from app.access.key_file import KEY_FILE, KeyFile
from app.access.keys import KeyRequest
from app.access.shared import KeyTable
from app.accounting.ledger import LEDGER_FILE, open_for_writing
from app.errors import Conflict
from app.ranking.calibration import FITS_FILE, Fit, StoredFit, store_fit
from app.ranking.trust import TRUST_FILE, TopicReading, TrustBook, topics
from app.services.job_records import JobRecord, JobRecords
from app.services.jobs import JOBS_FILE
from app.services.migration import Migrated, migrate
from indexing.documents import Block, Document
from indexing.pipeline.manifest import DocumentRecord, Manifest, SourceRecord
from indexing.postgres import Database

pytestmark = pytest.mark.postgres

CALLS = 250
FIT = Fit(slope=2.0, offset=-1.0, data_hash="x", n=4, positives=2, ece_before=0.3, ece_after=0.1, log_loss=0.5)
TABLES = {
    KEY_FILE: {"keys": "id, name, record"},
    LEDGER_FILE: {"calls": "at_ms, request_id, key, pico, gpu_s", "spending": "period, scope, name, pico"},
    "manifest.sqlite3": {
        "sources": "lineage, path, name, hash, bytes, indexed_at",
        "documents": "lineage, id, path, title, version, passages, indexed_at, body, allowed",
        "pending": "lineage, id, op, path, version, body",
    },
    JOBS_FILE: {"jobs": "id, collection, state, created, created_at, finished_at"},
}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Of a service that has been in use."""
    KeyFile(tmp_path / KEY_FILE, lambda: 1_800_000_000.0).create(KeyRequest(name="ci", scopes=("search",)))
    with closing(open_for_writing(tmp_path / LEDGER_FILE)) as ledger, ledger.transaction():
        names = "stage, backend, kind, model, outcome, price_source"
        numbers = "requests, input, cached, output, thinking, estimated"
        for n in range(CALLS):
            ledger.execute(
                f"INSERT INTO calls (at_ms, request_id, key, pico, gpu_s, latency_ms, {names}, {numbers}) "  # noqa: S608
                "VALUES (?, ?, 'ci', 7, ?, 1.5, 'chat', 'm', 'openai', 'tiny', 'ok', 'set', 1, 2, 0, 3, 0, 0)",
                (n, f"r\udcff{n}".encode("utf-8", "replace").decode(), None if n % 2 else 0.25),
            )
        ledger.execute("INSERT INTO spending VALUES ('2026-11-30', 'total', '', 1750)")
    asyncio.run(fill(tmp_path))
    store_fit(tmp_path / FITS_FILE, StoredFit(model="m", prompt_version="p", fit=FIT))
    TrustBook(tmp_path / TRUST_FILE).add(("m", "tiny", "p", "judge"), {topics()[0]: TopicReading((1.0,), (0.0,))})
    return tmp_path


async def fill(home: Path, *jobs: JobRecord) -> None:
    manifest = Manifest(home / "manifest.sqlite3")
    body = Document(text="nul \0 and more", title="A", blocks=(Block("paragraph", 0, 14),))
    record = DocumentRecord(id="d0", path=None, source="s", title="A", version="v", passages=2, body=body)
    records = [msgspec.structs.replace(record, id=f"d{n}") for n in range(3)]
    await manifest.announce("L", records)
    await manifest.commit("L", records[:2], [SourceRecord(path="/a", name="a", hash="h", bytes=3)], 7.0)
    await manifest.close()
    file = JobRecords.in_file(home / JOBS_FILE, home / "quarantine")
    await file.save(job("done", "done"))
    for unfinished in jobs:
        await file.save(unfinished)
    await file.close()


def job(job_id: str, state: str) -> JobRecord:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    return JobRecord(id=job_id, collection="c", bytes=3, created_at=at, state=state, finished_at=at)  # type: ignore[arg-type]


def bring(home: Path, database: Database) -> dict[str, int | None]:
    reported: dict[str, int] = {}
    parts: list[Migrated] = migrate(
        home, home / "manifest.sqlite3", database, lambda name, done, total: reported.update({name: total - done})
    )
    assert set(reported.values()) <= {0}
    return {part.name: part.rows for part in parts}


def test_both_sides_have_the_same_rows(home: Path, database: Database) -> None:
    """Of every table; the keys are accepted, and a second run writes nothing."""
    rows = {"keys": 1, "ledger": CALLS + 1, "calibrations": 1, "trust": 1, "documents": 6, "jobs": 1}
    assert bring(home, database) == rows
    for file, tables in TABLES.items():
        for table, columns in tables.items():
            with closing(sqlite3.connect(home / file)) as here, database.connected() as there:
                sql = f"SELECT {columns} FROM {table}"  # noqa: S608
                expected = sorted(map(repr, here.execute(sql)))
                assert sorted(map(repr, there.execute(sql))) == expected
                assert expected
    assert [key.name for key in KeyTable(database, lambda: 0.0).all()] == ["ci"]
    KeyTable(database, lambda: 1_800_000_000.0).create(KeyRequest(name="later", scopes=("search",)))
    assert bring(home, database) == dict.fromkeys(rows)


def test_a_database_in_use_is_refused(home: Path, database: Database) -> None:
    """Nothing of any part is written where one of them is there already; nor while a job is unfinished."""
    KeyTable(database, lambda: 1_800_000_000.0).create(KeyRequest(name="other", scopes=("search",)))
    with pytest.raises(Conflict, match=r"the database has keys already \(table winnow.keys\); choose an empty one"):
        bring(home, database)
    with database.connected() as db:
        assert db.execute("SELECT count(*) FROM calls").fetchone()[0] == 0
        db.execute("DELETE FROM keys")
    asyncio.run(fill(home, job("running", "running")))
    with pytest.raises(Conflict, match="1 jobs are not finished"):
        bring(home, database)
