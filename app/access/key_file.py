"""Making, listing, renewing and revoking keys, and the SQLite file of the home that has them, which commands and the
service share.
"""

import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from app.access.keys import Key, KeyInfo, KeyRequest, NewKey, digest_of, info_of, new_key, new_token, with_secret
from app.errors import pointing_at
from indexing.disk import disk_error
from indexing.errors import DiskFull, NotFound, StoreUnavailable
from indexing.sqlite import SqliteConnection
from indexing.tables import Connection

KEY_FILE = "keys.sqlite3"

APPLICATION_ID = 0x574E4B59
"""Marks a SQLite file as one with keys of Winnow: "WNKY"."""

VERSION = 1

_TABLE = "CREATE TABLE keys (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL) WITHOUT ROWID"
_BUSY_S = 5.0
_SETTLED_NS = 2 * 10**9
"""A file that changed as recently may change again without another time: file systems have coarse clocks."""

_FIX = "restore it from a backup, or move it away and create new keys"

Stamp = tuple[int, ...]


class Keys(ABC):
    """Reads and writes the keys. Every method blocks, and raises StoreUnavailable. `now`: seconds since 1970."""

    path: Path
    """Where they are, for people."""

    quick = True
    """Whether a stamp takes microseconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    @abstractmethod
    def stamp(self) -> Stamp | None:
        """Differs from that of another content; None if there were never any."""

    @abstractmethod
    def is_settled(self, stamp: Stamp | None) -> bool:
        """Whether the same stamp will mean the same content."""

    @abstractmethod
    def all(self) -> list[Key]:
        """All of them, the revoked ones too, by name."""

    def create(self, request: KeyRequest) -> tuple[Key, str]:
        """Add a key; return it with its token. Raises InvalidRequest where the name has been used."""
        with self._writing() as db:
            keys = keys_in(db)
            if any(key.name == request.name for key in keys):
                raise pointing_at("/name", f"there is, or was, a key called {request.name!r}; choose another name")
            key, token = new_key(request, [key.id for key in keys], self._now())
            db.execute("INSERT INTO keys (id, name, record) VALUES (?, ?, ?)", (key.id, key.name, _record(key)))
        return key, token

    def rotate(self, name: str, overlap_s: float) -> tuple[Key, str]:
        """Give a key a new secret; the one before is accepted for so long. Raises NotFound, InvalidRequest."""
        with self._writing() as db:
            key = _named(db, name)
            if key.revoked_at is not None:
                raise pointing_at("/key", f"the key {key.name!r} is revoked; create another one")
            token = new_token(key.id)
            rotated = msgspec.structs.replace(
                key, digest=digest_of(token), previous=key.digest, previous_until=self._now() + overlap_s
            )
            _replace(db, rotated)
        return rotated, token

    def revoke(self, name: str) -> Key:
        """Refuse a key from now on; it stays in the list. Raises NotFound."""
        with self._writing() as db:
            key = _named(db, name)
            if key.revoked_at is None:
                revoked_at = datetime.fromtimestamp(self._now(), UTC)
                key = msgspec.structs.replace(key, revoked_at=revoked_at, previous=b"", previous_until=0.0)
                _replace(db, key)
        return key

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Connection]:
        """A transaction, one at a time."""


class KeyFile(Keys):
    """Keys in a file.

    The journal is the classic one, not WAL: a disk that is read-only can then be read. Each operation has a connection
    of its own, so that a file that was replaced is noticed.
    """

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.path = path

    def stamp(self) -> Stamp | None:
        """Differs from that of another content; None if there is no file. Takes microseconds."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StoreUnavailable(str(disk_error(exc, f"the keys {self.path} cannot be read"))) from exc
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def is_settled(self, stamp: Stamp | None) -> bool:
        """Whether the same stamp will mean the same content."""
        return stamp is None or abs(self._now() * 10**9 - stamp[3]) > _SETTLED_NS

    def all(self) -> list[Key]:
        """All of them, the revoked ones too, by name."""
        if self.stamp() is None:
            return []
        with self._connected(f"{self.path.absolute().as_uri()}?mode=ro") as db:
            return keys_in(db) if _number(db, "PRAGMA user_version") else []

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction. The file is created if missing, readable only by its owner."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.stamp() is None:
                os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError as exc:
            raise StoreUnavailable(str(disk_error(exc, f"the keys {self.path} cannot be written"))) from exc
        with self._connected(f"{self.path.absolute().as_uri()}?mode=rw") as db, db.transaction():
            if not _number(db, "PRAGMA user_version"):
                db.execute(_TABLE)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {VERSION}")
            yield db

    @contextmanager
    def _connected(self, uri: str) -> Iterator[SqliteConnection]:
        """The one seam for SQLite's errors."""
        try:
            opened = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, factory=SqliteConnection)
            with closing(opened) as db:
                self._check(db)
                yield db
        except sqlite3.DatabaseError as exc:
            code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise StoreUnavailable(f"the keys {self.path} are damaged: {_FIX}") from exc
            if code == sqlite3.SQLITE_FULL:
                raise DiskFull(f"the keys {self.path} cannot be written: the disk is full; free some space") from exc
            raise StoreUnavailable(f"the keys {self.path} cannot be used: {exc}") from exc
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise StoreUnavailable(f"the keys {self.path} have a record that cannot be read: {_FIX}") from exc

    def _check(self, db: sqlite3.Connection) -> None:
        version, application = _number(db, "PRAGMA user_version"), _number(db, "PRAGMA application_id")
        tables = _number(db, "SELECT count(*) FROM sqlite_master")
        if application != APPLICATION_ID and (application or tables):
            raise StoreUnavailable(f"{self.path} belongs to another program: move it away")
        if version > VERSION:
            raise StoreUnavailable(f"the keys {self.path} were written by a newer Winnow: upgrade")


def keys_in(db: Connection) -> list[Key]:
    """By name."""
    return [_decode(record) for (record,) in db.execute("SELECT record FROM keys ORDER BY name")]


def _named(db: Connection, name: str) -> Key:
    """By its id or its name."""
    row = db.execute("SELECT record FROM keys WHERE id = ? OR name = ? ORDER BY id = ?", (name, name, name)).fetchone()
    if row is None:
        raise NotFound(f"key {name[:100]!r} not found")
    return _decode(row[0])


def _replace(db: Connection, key: Key) -> None:
    db.execute("UPDATE keys SET record = ? WHERE id = ?", (_record(key), key.id))


def _record(key: Key) -> bytes:
    return msgspec.json.encode(key)


def _decode(record: bytes) -> Key:
    return msgspec.json.decode(record, type=Key)


def _number(db: sqlite3.Connection, sql: str) -> int:
    return int(db.execute(sql).fetchone()[0])


MAX_OVERLAP_S = 30 * 86_400


def changed_nothing() -> None:
    """Where nobody else has to know."""


class KeyAdministration:
    """Every method blocks, and raises StoreUnavailable. `changed` is called after each change, before it returns.

    A key can be bound to `backends`. `now`: seconds since 1970.
    """

    def __init__(
        self,
        file: Keys,
        backends: Sequence[str],
        now: Callable[[], float],
        changed: Callable[[], None] = changed_nothing,
    ) -> None:
        self._file, self._backends, self._now, self._changed = file, backends, now, changed

    def all(self) -> list[KeyInfo]:
        """The keys by name, those too that are expired or revoked."""
        return [info_of(key, self._now()) for key in self._file.all()]

    def create(self, request: KeyRequest) -> NewKey:
        """Raises InvalidRequest."""
        request.check(self._backends, datetime.fromtimestamp(self._now(), UTC))
        return self._new(*self._file.create(request))

    def rotate(self, name: str, overlap_s: float) -> NewKey:
        """A new secret for the key of this name or id; the one before holds for `overlap_s`.

        Raises NotFound, InvalidRequest.
        """
        return self._new(*self._file.rotate(name, overlap_s))

    def revoke(self, name: str) -> KeyInfo:
        """Raises NotFound."""
        key = self._file.revoke(name)
        self._changed()
        return info_of(key, self._now())

    def _new(self, key: Key, token: str) -> NewKey:
        self._changed()
        return with_secret(key, token, self._now())
