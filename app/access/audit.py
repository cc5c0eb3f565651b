"""The audit log: who did what, when, and how it ended, as JSON lines in the home. No text of a request is in it."""

import logging
import os
import queue
from collections.abc import Callable
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import QueueListener, RotatingFileHandler
from pathlib import Path
from threading import Lock

import msgspec
import structlog

from app.access.rates import Bucket

AUDIT_FILE = "audit.jsonl"
MAX_BYTES, FILES = 10_000_000, 5
"""Of one file, and how many earlier ones are kept."""

REFUSALS_PER_MINUTE = 120
"""Who is refused all the time must not push out what others have done."""

WAITING = 10_000
"""Lines that wait for the disk; what is more is lost."""

log = structlog.get_logger()


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `key` is the caller's, None where nobody was known; `status` None: the client left."""

    at: datetime
    request_id: str
    key: str | None
    client: str | None
    method: str
    route: str
    status: int | None


class AuditLog:
    """Writes in a thread of its own. Nothing is opened before the first line. `now`: seconds since 1970.

    A disk that fails, fails no request: it is logged once.
    """

    def __init__(self, path: Path, now: Callable[[], float], max_bytes: int = MAX_BYTES) -> None:
        self._path, self._now, self._max_bytes = path, now, max_bytes
        self._lines: queue.Queue[logging.LogRecord] = queue.Queue(WAITING)
        self._listener: QueueListener | None = None
        self._refusals = Bucket(REFUSALS_PER_MINUTE, now())
        self._starting = Lock()

    def record(
        self, *, request_id: str, key: str | None, client: str | None, method: str, route: str, status: int | None
    ) -> None:
        """Add a line, without waiting for it to be written."""
        at = self._now()
        if status in (401, 403, 429):
            if self._refusals.level(at) < 1:
                return
            self._refusals.take(1, at)
        entry = AuditEntry(
            at=datetime.fromtimestamp(at, UTC),
            request_id=request_id,
            key=key,
            client=client,
            method=method,
            route=route,
            status=status,
        )
        self._start()
        try:
            self._lines.put_nowait(logging.makeLogRecord({"msg": msgspec.json.encode(entry).decode()}))
        except queue.Full:
            log.error("a line of the audit log is lost: the disk is too slow", path=str(self._path))

    def close(self) -> None:
        """Write what is left. Blocks."""
        if self._listener is not None:
            self._listener.stop()
            for handler in self._listener.handlers:
                handler.close()
            self._listener = None

    def _start(self) -> None:
        with self._starting:
            if self._listener is None:
                self._listener = QueueListener(self._lines, _PrivateFile(self._path, self._max_bytes))
                self._listener.start()


class _PrivateFile(RotatingFileHandler):
    """A file that only its owner can read, and the earlier ones of it."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=FILES, encoding="utf-8", delay=True)
        self._failing = False

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line."""
        super().emit(record)
        self._failing = self._failing and self.stream is None

    def handleError(self, record: logging.LogRecord) -> None:
        """Say once that the disk fails."""
        if not self._failing:
            self._failing = True
            log.exception("the audit log cannot be written", path=self.baseFilename)
