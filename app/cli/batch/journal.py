"""The output of a run, which is also its journal: a row for each text, in order, written as soon as it is known.

Killed at any moment, a run has lost nothing: what is whole of the output is done, a half-written last row is cut off,
and the next run goes on behind it. Beside the output lies a small file that says what it is the output of, so that no
run goes on with another file or other options.
"""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from app.cli.batch.texts import Fingerprint, Item
from app.errors import Conflict, InvalidRequest, WinnowError

SUFFIX = ".run.json"


class CannotWrite(WinnowError):
    """The disk takes no more: it is full, say. What is written stays."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What an output is of. `options` are those that change a result. `token` names it from its first run on."""

    command: str
    input: str
    field: str
    options: dict[str, Any]
    fingerprint: Fingerprint
    token: str = ""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at of a row."""

    id: int | str
    error: dict[str, Any] | None = None
    cost_usd: float = 0.0


_ROWS = msgspec.json.Decoder(Written)


class Journal:
    """The output file, locked for this process. `done` rows are in it, of which `failed` are errors."""

    def __init__(self, path: Path, origin: Origin, *, restart: bool = False) -> None:
        """Open it and go on where it ends. Raises Conflict where it is of something else, or in use; CannotWrite."""
        self.path = path
        self._new = not path.exists()
        self._origin_path = path.with_name(path.name + SUFFIX)
        self.done = self.failed = 0
        self.cost_usd = 0.0
        self.last_id: int | str | None = None
        self._file = _opened(path)
        try:
            self._lock()
            if restart:
                self._file.truncate(0)
            token = (self._check(origin) if not restart else "") or secrets.token_hex(8)
            self.origin = msgspec.structs.replace(origin, token=token)
            self._read()
            self._say_origin()
        except BaseException as exc:
            self._file.close()
            if isinstance(exc, OSError):
                raise CannotWrite(f"{path} cannot be written: {exc.strerror}") from exc
            raise

    def append(self, row: bytes, written: Written) -> None:
        """Write a row, which ends in a newline. Raises OSError."""
        while row:  # a full disk takes a part of it, and then raises
            row = row[self._file.write(row) :]
        self._count(written)

    def settled(self, items: Iterator[Item]) -> Iterator[Item]:
        """These items, which are all of the file, each with its row if there is one without an error."""
        rows = self._lines()
        for item in items:
            row = next(rows, b"")
            good = row and _ROWS.decode(row).error is None
            yield Item(item.id, row=row) if good else item

    def replace(self, other: "Journal") -> None:
        """Take the other one's place, once this one is whole."""
        self.path.replace(other.path)
        self._origin_path.replace(other._origin_path)

    def discard_if_new(self) -> None:
        """Remove an output that this run has begun, if there is nothing in it."""
        if self._new and not self.done:
            self.path.unlink(missing_ok=True)
            self._origin_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Have it on the disk."""
        os.fsync(self._file.fileno())
        self._file.close()

    def _count(self, written: Written) -> None:
        self.done += 1
        self.failed += written.error is not None
        self.cost_usd += written.cost_usd
        self.last_id = written.id

    def _lock(self) -> None:
        import portalocker  # other commands start without it

        try:
            portalocker.lock(self._file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.LockException as exc:
            raise Conflict(f"another run is writing {self.path}") from exc

    def _check(self, origin: Origin) -> str:
        """The token of the output, "" if it is a new one. Raises Conflict if it is of something else."""
        fault = ""
        try:
            before = msgspec.json.decode(self._origin_path.read_bytes(), type=Origin)
        except (OSError, msgspec.DecodeError):
            before, fault = origin, f"{self.path} exists, and is not the output of such a run"
        if (before.command, before.field, before.options) != (origin.command, origin.field, origin.options):
            fault = f"{self.path} was begun by {_described(before)}, now it is {_described(origin)}"
        elif not before.fingerprint.begins(Path(origin.input)):
            fault = f"{origin.input} is not what {self.path} was begun with"
        if fault and self.path.stat().st_size:
            raise Conflict(f"{fault}; --restart begins again, or write to another file")
        return "" if fault else before.token

    def _read(self) -> None:
        """Count what is there; cut off what is not a whole row."""
        whole, line = 0, b""
        for line in self._lines():
            try:
                written = _ROWS.decode(line) if line.endswith(b"\n") else None
            except (msgspec.DecodeError, UnicodeDecodeError):
                written = None
            if written is None:
                break
            self._count(written)
            whole += len(line)
            line = b""
        if whole + len(line) < self.path.stat().st_size:
            raise Conflict(f"row {self.done + 1} of {self.path} is damaged; --restart begins again")
        self._file.truncate(whole)

    def _lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from file

    def _say_origin(self) -> None:
        """Replace the file in one step: a kill leaves the old one or the new one."""
        temporary = self._origin_path.with_name(self._origin_path.name + ".new")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(self.origin), indent=1))
        temporary.replace(self._origin_path)


def _opened(path: Path) -> IO[bytes]:
    """Raises InvalidRequest for a pipe, a device or a place where nothing can be written."""
    if path.exists() and not path.is_file():
        raise InvalidRequest(f"{path} is no file; --out needs one that can be read again")
    try:
        return path.open("ab+", buffering=0)
    except OSError as exc:
        raise InvalidRequest(f"{path} cannot be written: {exc.strerror}") from exc


def _described(origin: Origin) -> str:
    return f"{origin.command} of {origin.field!r} with {msgspec.json.encode(origin.options).decode()}"
