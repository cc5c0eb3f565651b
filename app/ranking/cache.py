"""Grades that a model has given, kept in memory or in SQLite."""

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from app.backends.base import LabelScores

Said = LabelScores | str
"""By a label scorer, or by a judge."""

Ask = Callable[[Sequence[int]], Awaitable[Sequence[Said | None]]]
"""Asks the model for those of the keys (by their places); None where it failed. Raises what the model's call raises."""


class Shelf(Protocol):
    """Keeps entries beyond this process. What it cannot do is done without it: it raises nothing."""

    async def read(self, keys: Sequence[str]) -> Mapping[str, Said]: ...

    def write(self, entries: Mapping[str, Said]) -> None:
        """Returns at once."""

    async def close(self) -> None: ...


class Found(msgspec.Struct, frozen=True):
    """What there is for each key, None where there is nothing; how many of them cost this caller nothing."""

    said: tuple[Said | None, ...]
    hits: int


def key_of(*parts: str) -> str:
    """One key for what a reply depends on; the order of the parts counts, and so does where one ends."""
    digest = blake2b(digest_size=20)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


class ScoreCache:
    """The latest `entries` of them in memory, all of them on the shelf if there is one."""

    def __init__(self, entries: int, shelf: Shelf | None = None) -> None:
        self._entries = entries
        self._shelf = shelf
        self._kept: OrderedDict[str, Said] = OrderedDict()
        self._coming: dict[str, asyncio.Future[Said | None]] = {}

    async def known(self, keys: Sequence[str]) -> tuple[Said | None, ...]:
        """What is there already."""
        missing = [key for key in keys if key not in self._kept]
        read = await self._shelf.read(missing) if self._shelf and missing else {}
        self._keep(read)
        return tuple(read[key] if key in read else self._look(key) for key in keys)

    async def fetch(self, keys: Sequence[str], ask: Ask) -> Found:
        """What is there, what somebody else is just asking for, and the rest by asking."""
        await self.known(keys)  # from the shelf into memory
        said: dict[int, Said | None] = {}
        paid: set[int] = set()
        while left := [place for place in range(len(keys)) if place not in said]:
            here = {place: found for place in left if (found := self._look(keys[place])) is not None}
            said.update(here)
            away = [place for place in left if place not in here]
            ours = list({keys[place]: place for place in away if keys[place] not in self._coming}.values())
            theirs = {place: self._coming[keys[place]] for place in away if keys[place] in self._coming}
            paid.update(ours)
            said.update(await self._ask(keys, ours, ask))
            said.update(await _wait_for(theirs))
        return Found(tuple(said[place] for place in range(len(keys))), hits=len(keys) - len(paid))

    async def close(self) -> None:
        """What is on its way to the shelf gets there."""
        if self._shelf is not None:
            await self._shelf.close()

    async def _ask(self, keys: Sequence[str], places: Sequence[int], ask: Ask) -> dict[int, Said | None]:
        if not places:
            return {}
        with self._announced([keys[place] for place in places]) as futures:
            said = dict(zip(places, await ask(places), strict=True))
            fresh = {keys[place]: one for place, one in said.items() if one is not None}
            self._keep(fresh)
            if self._shelf is not None and fresh:
                self._shelf.write(fresh)
            for place, future in zip(places, futures, strict=True):
                future.set_result(said[place])
        return said

    @contextmanager
    def _announced(self, keys: Sequence[str]) -> Iterator[list[asyncio.Future[Said | None]]]:
        """Others wait for these meanwhile; those that do not come leave them to ask themselves."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Said | None]] = [loop.create_future() for _ in keys]
        self._coming.update(zip(keys, futures, strict=True))
        try:
            yield futures
        finally:
            for key, future in zip(keys, futures, strict=True):
                del self._coming[key]
                future.cancel()  # one that has its result keeps it

    def _look(self, key: str) -> Said | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def _keep(self, entries: Mapping[str, Said]) -> None:
        self._kept.update(entries)
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)


async def _wait_for(coming: Mapping[int, asyncio.Future[Said | None]]) -> dict[int, Said | None]:
    """What came. What did not, because whoever asked has gone or failed, is left out: it is worth asking again.

    The futures belong to all who wait, so that none of them may be cancelled with one of the waiters.
    """
    if not coming:
        return {}
    await asyncio.wait(coming.values())
    return {place: future.result() for place, future in coming.items() if not future.cancelled()}


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
