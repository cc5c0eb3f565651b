"""Replies of models kept for later rankings: in memory, and in SQLite or a database beyond this process."""

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

ModelReply = LabelScores | str | float
"""Of a label scorer, a judge or a reranker."""

AskModel = Callable[[Sequence[int]], Awaitable[Sequence[ModelReply | None]]]
"""Asks the model for some of the keys, given by index; None where it failed. Raises what the model's call raises."""


def key_of(*parts: str) -> str:
    """One key for everything that a reply depends on; the order of the parts counts, and where each one ends."""
    digest = blake2b(digest_size=20)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


class Kept(Protocol):
    """Replies beyond this process. It raises nothing: a ranking does without it."""

    async def read(self, keys: Sequence[str]) -> Mapping[str, ModelReply]:
        """Those of the keys that it holds."""
        ...

    def write(self, entries: Mapping[str, ModelReply]) -> None:
        """In the background; returns at once."""
        ...

    async def close(self) -> None:
        """Once everything is written."""
        ...


class ScoreCache:
    """The latest `entries` replies in memory, more of them in `file` if there is one."""

    def __init__(self, entries: int, file: Kept | None = None) -> None:
        self._entries = entries
        self._file = file
        self._memory: OrderedDict[str, ModelReply] = OrderedDict()
        self._in_flight: dict[str, asyncio.Future[ModelReply | None]] = {}
        self.hits = self.misses = 0
        """Replies that cost nothing, and replies that a model was asked for."""

    async def lookup(self, keys: Sequence[str]) -> tuple[ModelReply | None, ...]:
        """The reply for each key; None where there is none yet."""
        replies = await self._known(keys)
        self.hits += len(replies) - replies.count(None)
        return replies

    async def fetch(self, keys: Sequence[str], ask: AskModel) -> tuple[tuple[ModelReply | None, ...], int]:
        """The reply for each key, and how many of them cost this caller nothing.

        Replies come from the cache, from another caller who is asking for the same right now, or from `ask`.
        """
        await self._known(keys)  # from the file into memory
        replies: dict[int, ModelReply | None] = {}
        paid: set[int] = set()
        while missing := [index for index in range(len(keys)) if index not in replies]:
            cached = {index: reply for index in missing if (reply := self._look(keys[index])) is not None}
            replies.update(cached)
            missing = [index for index in missing if index not in cached]
            ours = list({keys[index]: index for index in missing if keys[index] not in self._in_flight}.values())
            theirs = {index: self._in_flight[keys[index]] for index in missing if keys[index] in self._in_flight}
            paid.update(ours)
            if ours:
                replies.update(await self._ask(keys, ours, ask))
            replies.update(await _wait_for(theirs))
        self.misses += len(paid)
        self.hits += len(keys) - len(paid)
        return tuple(replies[index] for index in range(len(keys))), len(keys) - len(paid)

    async def close(self) -> None:
        """Everything that is to be written to the file is written first."""
        if self._file is not None:
            await self._file.close()

    async def _known(self, keys: Sequence[str]) -> tuple[ModelReply | None, ...]:
        missing = [key for key in keys if key not in self._memory]
        read = await self._file.read(missing) if self._file and missing else {}
        self._store(read)
        # `read` first: with few entries in memory, some of it may be evicted again already.
        return tuple(read[key] if key in read else self._look(key) for key in keys)

    async def _ask(self, keys: Sequence[str], indices: Sequence[int], ask: AskModel) -> dict[int, ModelReply | None]:
        with self._announced([keys[index] for index in indices]) as futures:
            replies = dict(zip(indices, await ask(indices), strict=True))
            fresh = {keys[index]: reply for index, reply in replies.items() if reply is not None}
            self._store(fresh)
            if self._file is not None and fresh:
                self._file.write(fresh)
            for index, future in zip(indices, futures, strict=True):
                future.set_result(replies[index])
        return replies

    @contextmanager
    def _announced(self, keys: Sequence[str]) -> Iterator[list[asyncio.Future[ModelReply | None]]]:
        """Lets other callers wait for these keys. If the call fails, their futures are cancelled and they ask."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[ModelReply | None]] = [loop.create_future() for _ in keys]
        self._in_flight.update(zip(keys, futures, strict=True))
        try:
            yield futures
        finally:
            for key, future in zip(keys, futures, strict=True):
                del self._in_flight[key]
                future.cancel()  # does nothing to one that has its result

    def _look(self, key: str) -> ModelReply | None:
        reply = self._memory.get(key)
        if reply is not None:
            self._memory.move_to_end(key)
        return reply

    def _store(self, entries: Mapping[str, ModelReply]) -> None:
        self._memory.update(entries)
        while len(self._memory) > self._entries:
            self._memory.popitem(last=False)


async def _wait_for(futures: Mapping[int, asyncio.Future[ModelReply | None]]) -> dict[int, ModelReply | None]:
    """The replies that came. Those whose caller was cancelled or failed are left out: they are worth asking again."""
    if not futures:
        return {}
    # Not `gather`: when one waiter is cancelled, it would cancel the futures that other waiters share.
    await asyncio.wait(futures.values())
    return {index: future.result() for index, future in futures.items() if not future.cancelled()}


CACHE_FILE = "scores.sqlite3"

_BUSY_S = 1.0
"""How long another process may lock the file before the cache does without it."""

_decoder: msgspec.msgpack.Decoder[ModelReply] = msgspec.msgpack.Decoder(ModelReply)

log = structlog.get_logger()


def decoded(reply: bytes) -> ModelReply:
    """As it was encoded with msgpack. Raises msgspec.MsgspecError."""
    return _decoder.decode(reply)


class CacheFile:
    """The latest `entries` replies, in SQLite. It raises nothing: a broken file is logged once, then ignored."""

    def __init__(self, path: Path, entries: int) -> None:
        self._path, self._entries = path, entries
        self._db: sqlite3.Connection | None = None
        self._broken = self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score-cache")

    async def read(self, keys: Sequence[str]) -> Mapping[str, ModelReply]:
        """Those of the keys that the file holds."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, keys)

    def write(self, entries: Mapping[str, ModelReply]) -> None:
        """In the background; returns at once."""
        self._thread.submit(self._write, entries)

    async def close(self) -> None:
        """Once everything is written. May be called again."""
        if not self._closed:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._closed = True
            self._thread.shutdown()

    def _read(self, keys: Sequence[str]) -> Mapping[str, ModelReply]:
        if self._broken:
            return {}
        # The table and its column are called `said` since the first version; renaming them would empty every cache.
        sql = f"SELECT key, said FROM said WHERE key IN ({', '.join('?' * len(keys))})"  # noqa: S608
        try:
            return {key: decoded(reply) for key, reply in self._connection().execute(sql, tuple(keys))}
        except (sqlite3.Error, msgspec.MsgspecError, OSError) as exc:
            self._give_up(exc)
            return {}

    def _write(self, entries: Mapping[str, ModelReply]) -> None:
        if self._broken:
            return
        rows = [(key, msgspec.msgpack.encode(reply)) for key, reply in entries.items()]
        try:
            with self._connection() as db:
                db.executemany("INSERT OR REPLACE INTO said (key, said) VALUES (?, ?)", rows)
                db.execute("DELETE FROM said WHERE id <= (SELECT max(id) FROM said) - ?", (self._entries,))
        except (sqlite3.Error, OSError) as exc:
            self._give_up(exc)

    def _connection(self) -> sqlite3.Connection:
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
        """For this call if the file is busy, for good if it is damaged."""
        busy = isinstance(exc, sqlite3.OperationalError) and exc.sqlite_errorcode in (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
        )
        if not busy:
            self._broken = True
            log.warning("score cache file disabled", path=str(self._path), detail=str(exc))

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
