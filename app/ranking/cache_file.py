"""The score cache's file: one SQLite database (WAL) that several processes may use. It can be deleted at any time."""

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import structlog

from app.ranking.cache import Said

CACHE_FILE = "scores.sqlite3"

_BUSY_S = 1.0
"""How long another process may keep the file to itself before we do without it."""

_decoder: msgspec.msgpack.Decoder[Said] = msgspec.msgpack.Decoder(Said)

log = structlog.get_logger()


class CacheFile:
    """A `Shelf` of the latest `entries`. Whatever is wrong with the file is logged once, and then it is empty."""

    def __init__(self, path: Path, entries: int) -> None:
        self._path, self._entries = path, entries
        self._db: sqlite3.Connection | None = None
        self._broken = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score-cache")

    async def read(self, keys: Sequence[str]) -> Mapping[str, Said]:
        """Those of them that it has."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, keys)

    def write(self, entries: Mapping[str, Said]) -> None:
        """In the background."""
        self._thread.submit(self._write, entries)

    async def close(self) -> None:
        """After everything is written."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _read(self, keys: Sequence[str]) -> Mapping[str, Said]:
        if self._broken:
            return {}
        sql = f"SELECT key, said FROM said WHERE key IN ({', '.join('?' * len(keys))})"  # noqa: S608
        try:
            return {key: _decoder.decode(said) for key, said in self._opened().execute(sql, tuple(keys))}
        except (sqlite3.Error, msgspec.MsgspecError, OSError) as exc:
            self._give_up(exc)
            return {}

    def _write(self, entries: Mapping[str, Said]) -> None:
        if self._broken:
            return
        rows = [(key, msgspec.msgpack.encode(said)) for key, said in entries.items()]
        try:
            with self._opened() as db:
                db.executemany("INSERT OR REPLACE INTO said (key, said) VALUES (?, ?)", rows)
                db.execute("DELETE FROM said WHERE id <= (SELECT max(id) FROM said) - ?", (self._entries,))
        except (sqlite3.Error, OSError) as exc:
            self._give_up(exc)

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, timeout=_BUSY_S)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS said "
                "(id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, said BLOB NOT NULL)"
            )
        return self._db

    def _give_up(self, exc: Exception) -> None:
        """A busy file may be free the next time; a damaged one stays so."""
        busy = isinstance(exc, sqlite3.OperationalError) and exc.sqlite_errorcode in (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
        )
        if not busy:
            self._broken = True
            log.warning("doing without the score cache's file", path=str(self._path), detail=str(exc))

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
