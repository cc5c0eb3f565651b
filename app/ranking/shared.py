"""What replicas share of ranking, in their PostgreSQL database: calibrations, trust in models, and the score cache."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

import msgspec
import structlog

from app.errors import WinnowError
from app.ranking.cache import ModelReply, decoded
from app.ranking.calibration import Fits, StoredFit, owner_of
from app.ranking.models import Calibration
from app.ranking.trust import Owner, Record, StoredRecord, Topic, TopicReading, TrustBook
from indexing.concurrency import BackgroundTasks
from indexing.postgres import Database, PostgresConnection
from indexing.tables import Connection, upsert

MIGRATIONS = (
    """
CREATE TABLE calibrations (
  model TEXT COLLATE "C" NOT NULL, prompt_version TEXT COLLATE "C" NOT NULL, fit BYTEA NOT NULL,
  PRIMARY KEY (model, prompt_version));
CREATE TABLE trust (
  backend TEXT COLLATE "C" NOT NULL, way TEXT COLLATE "C" NOT NULL, known BYTEA NOT NULL, PRIMARY KEY (backend, way));
CREATE TABLE scores (
  key TEXT COLLATE "C" PRIMARY KEY, reply BYTEA NOT NULL, at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp());
CREATE INDEX scores_by_age ON scores (at);
""",
)
_PART = ("ranking", MIGRATIONS)

REFRESH_S = 5.0
"""How old what a replica knows of calibrations and trust may be."""

READ_S, REST_S = 0.25, 30.0
"""How long a ranking waits for the cache, and how long it goes without once that was too long, or the database away."""

EXPIRY_DAYS = 30
PRUNED_AFTER = 1000
"""Replies that this process has written."""

_PUT_FIT = upsert("calibrations", ("model", "prompt_version", "fit"), ("model", "prompt_version"))
_PUT_TRUST = upsert("trust", ("backend", "way", "known"), ("backend", "way"))
_READ = f"SELECT key, reply FROM scores WHERE key = ANY(?) AND at > clock_timestamp() - interval '{EXPIRY_DAYS} days'"  # noqa: S608
_WRITE = """INSERT INTO scores (key, reply) SELECT * FROM unnest(CAST(? AS TEXT[]), CAST(? AS BYTEA[]))
  ON CONFLICT (key) DO UPDATE SET reply=excluded.reply, at=excluded.at"""
_EXPIRED = f"DELETE FROM scores WHERE at <= clock_timestamp() - interval '{EXPIRY_DAYS} days'"  # noqa: S608
_SURPLUS = "DELETE FROM scores WHERE key IN (SELECT key FROM scores ORDER BY at DESC, key OFFSET ?)"

log = structlog.get_logger()


def store_fit(database: Database, fit: StoredFit) -> None:
    """Store it in place of an earlier fit of the same model and prompts. Blocks. Raises StoreUnavailable."""
    with database.connected(_PART) as db:
        put_fit(db, fit)


def put_fit(db: Connection, fit: StoredFit) -> None:
    """As `store_fit`, in tables that are there."""
    db.execute(_PUT_FIT, (fit.model, fit.prompt_version, msgspec.json.encode(fit)))


def read_trust(database: Database) -> dict[Owner, Record]:
    """Blocks. Raises StoreUnavailable."""
    with database.connected(_PART) as db:
        return _trust(db)


class SharedFits(Mapping[tuple[str, str], Calibration]):
    """The calibrations that all replicas have, as they were a few seconds ago."""

    def __init__(self) -> None:
        self.known: Fits = {}

    def __getitem__(self, owner: tuple[str, str]) -> Calibration:
        return self.known[owner]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


class SharedTrust(TrustBook):
    """The records of all replicas. What a model makes of a topic is written in the background."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._writes = BackgroundTasks()

    def add(self, owner: Owner, readings: Mapping[Topic, TopicReading]) -> None:
        """At once here, and a moment later for the others."""
        super().add(owner, readings)
        if readings:
            self._writes.start(self._write(owner, self.record(owner)))

    def merge(self, others: Mapping[Owner, Record]) -> None:
        """Hear what other replicas know. Of the same model all readings count."""
        for owner, record in others.items():
            known = self.record(owner).readings
            if not record.readings.keys() <= known.keys():
                self._records = {**self._records, owner: Record(readings={**record.readings, **known})}

    async def close(self) -> None:
        """Once everything is written."""
        await self._writes.ended()

    async def _write(self, owner: Owner, record: Record) -> None:
        try:
            await self._database.run(partial(_add_trust, owner, record), _PART)
        except (WinnowError, msgspec.MsgspecError) as exc:
            log.warning("what a model made of the controls cannot be kept", detail=str(exc))


class SharedRanking:
    """Keeps `fits` and `trust` up to date; `trust` is None where models are trusted as they are."""

    def __init__(self, database: Database, *, controls: bool) -> None:
        self._database = database
        self.fits = SharedFits()
        self.trust = SharedTrust(database) if controls else None
        self._refreshing: asyncio.Task[None] | None = None
        self._failure = ""

    async def open(self) -> None:
        """Read what is known, and again every few seconds from then on. A database that is away is waited for."""
        if self._refreshing is None:
            await self.refresh()
            self._refreshing = asyncio.create_task(self._refresh_for_ever())

    async def close(self) -> None:
        """Once everything is written."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        if self.trust is not None:
            await self.trust.close()

    async def refresh(self) -> None:
        """Read what replicas have found out; while that fails, what is known counts."""
        try:
            fits, trust = await self._database.run(lambda db: (_fits(db), _trust(db)), _PART)
        except (WinnowError, msgspec.MsgspecError) as exc:  # the latter of what another version wrote
            if str(exc) != self._failure:
                log.warning("calibrations and trust cannot be read: those known so far count", detail=str(exc))
            self._failure = str(exc)
            return
        self._failure = ""
        self.fits.known = {owner_of(stored): stored.fit.calibration for stored in fits}
        if self.trust is not None:
            self.trust.merge(trust)

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.refresh()


class CacheTable:
    """`app.ranking.cache.Kept` in the database: the latest `entries` replies of all replicas, for 30 days.

    It raises nothing: while the database is away or slow, rankings go without.
    """

    def __init__(self, database: Database, entries: int, pruned_after: int = PRUNED_AFTER) -> None:
        self._database, self._entries, self._pruned_after = database, entries, pruned_after
        self._resting_until = 0.0
        self._written = 0
        self._writes = BackgroundTasks()

    async def read(self, keys: Sequence[str]) -> Mapping[str, ModelReply]:
        """Those of the keys that it holds: one look, which takes a quarter of a second at most."""
        if self._rests():
            return {}
        try:
            async with asyncio.timeout(READ_S):
                rows = await self._database.run(lambda db: db.execute(_READ, (list(keys),)).fetchall(), _PART)
        except (WinnowError, TimeoutError) as exc:
            self._rest(exc)
            return {}
        replies: dict[str, ModelReply] = {}
        for key, reply in rows:
            with suppress(msgspec.MsgspecError):  # of another version: it is asked for, and written again
                replies[key] = decoded(bytes(reply))
        return replies

    def write(self, entries: Mapping[str, ModelReply]) -> None:
        """In the background; returns at once."""
        if not self._rests():
            self._writes.start(self._write(dict(entries)))

    async def close(self) -> None:
        """Once everything is written."""
        await self._writes.ended()

    async def _write(self, entries: Mapping[str, ModelReply]) -> None:
        keys = sorted(entries)  # in one order: two replicas must not wait for each other
        replies = [msgspec.msgpack.encode(entries[key]) for key in keys]
        self._written += len(keys)
        prune = self._written >= self._pruned_after
        if prune:
            self._written = 0
        with suppress(WinnowError):  # reading says so
            await self._database.run(partial(self._save, keys, replies, prune), _PART)

    def _save(self, keys: list[str], replies: list[bytes], prune: bool, db: PostgresConnection) -> None:
        with db.transaction(durable=False):
            db.execute(_WRITE, (keys, replies))
            if prune:
                db.execute(_EXPIRED)
                db.execute(_SURPLUS, (self._entries,))

    def _rests(self) -> bool:
        return asyncio.get_running_loop().time() < self._resting_until

    def _rest(self, exc: Exception) -> None:
        self._resting_until = asyncio.get_running_loop().time() + REST_S
        log.warning("rankings go without the shared score cache", seconds=REST_S, detail=str(exc) or "it is slow")


def _fits(db: Connection) -> tuple[StoredFit, ...]:
    rows = db.execute("SELECT fit FROM calibrations ORDER BY model, prompt_version")
    return tuple(msgspec.json.decode(fit, type=StoredFit) for (fit,) in rows)


def _trust(db: Connection) -> dict[Owner, Record]:
    rows = [msgspec.json.decode(known, type=StoredRecord) for (known,) in db.execute("SELECT known FROM trust")]
    return {(row.backend, row.model, row.prompt_version, row.way): row.record for row in rows}


def _add_trust(owner: Owner, record: Record, db: PostgresConnection) -> None:
    """What others have written of the same model meanwhile stays; what they wrote of an earlier one does not."""
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(hashtextextended('winnow trust', 0))")
        others = _trust(db).get(owner, Record())
        put_trust(db, owner, Record(readings={**others.readings, **record.readings}))


def put_trust(db: Connection, owner: Owner, record: Record) -> None:
    """In the place of what is known of the backend, asked in this way."""
    backend, model, version, way = owner
    known = StoredRecord(
        backend=backend, model=model, prompt_version=version, way=way, trust=round(record.trust, 3), record=record
    )
    db.execute(_PUT_TRUST, (backend, way, msgspec.json.encode(known)))
