"""The documents of jobs, until they are indexed: on the disk, or in the database that replicas share."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from struct import Struct
from typing import Protocol
from zlib import crc32

import msgspec

from app.errors import WinnowError
from app.services.document_validation import Submission, SubmittedFile
from indexing.disk import DiskGuard, disk_error
from indexing.pipeline.ingest import DocumentResult, SubmittedDocument
from indexing.postgres import Database

_HEAD = Struct("<II")
"""Before each submission: the length of its encoding, and its checksum."""
_SUFFIX, _UNFINISHED = ".submissions", ".new"


_PIECE = 4_000_000
"""Bytes of a row in the database, which sends them as twice as many characters."""


class SpoolDamaged(WinnowError):
    """The documents of a job are missing on disk, or not what was written."""


class _Record(msgspec.Struct, array_like=True):
    """A submission: a document, a file or a failure. The first record of a job names the collection instead."""

    document: SubmittedDocument | None = None
    file: SubmittedFile | None = None
    failure: DocumentResult | None = None
    collection: str | None = None


class Uploads(Protocol):
    """What jobs are to index. Every call blocks: make it in a thread.

    Writing raises DiskFull and StoreUnavailable, reading SpoolDamaged and StoreUnavailable.
    """

    def write(self, job_id: str, collection: str, submissions: Iterable[Submission], size: int) -> None:
        """Store them, about `size` bytes, in the place of what the job had; safe when this returns."""
        ...

    def read(self, job_id: str, start: int = 0) -> Iterator[Submission]:
        """The submissions from `start` on, one by one."""
        ...

    def collection(self, job_id: str) -> str | None:
        """The collection that a job is for; None if its upload is damaged."""
        ...

    def jobs(self) -> dict[str, int]:
        """The jobs that have an upload here, the oldest first, with its bytes."""
        ...

    def delete(self, job_id: str) -> None:
        """Remove what a job had, if it is there."""
        ...


class Spool:
    """A directory with one file for each job. Every call blocks: make it in a thread.

    Writing raises DiskFull and StoreUnavailable, reading SpoolDamaged.
    """

    def __init__(self, directory: Path, disk: DiskGuard) -> None:
        self._directory, self._disk = directory, disk

    def write(self, job_id: str, collection: str, submissions: Iterable[Submission], size: int) -> None:
        """Store them, about `size` bytes, in the place of what the job had; on the disk when this returns."""
        self._disk.check(size)
        path = self._path(job_id)
        new = path.with_suffix(_UNFINISHED)
        with self._writing():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    file.writelines(_frame(_Record(collection=collection)))
                    for submission in submissions:
                        file.writelines(_frame(_recorded(submission)))
                    file.flush()
                    os.fsync(file.fileno())
                new.replace(path)
                _sync_directory(self._directory)
            except BaseException:
                new.unlink(missing_ok=True)
                raise

    def read(self, job_id: str, start: int = 0) -> Iterator[Submission]:
        """The submissions from `start` on, one by one."""
        for record in self._records(job_id, start + 1):
            if submission := record.document or record.file or record.failure:
                yield submission

    def collection(self, job_id: str) -> str | None:
        """The collection that a job is for; None if its upload is damaged."""
        try:
            record = next(self._records(job_id, 0), None)
        except SpoolDamaged:
            return None
        return record.collection if record else None

    def jobs(self) -> dict[str, int]:
        """The jobs that have an upload here, the oldest first, with its bytes. Removes what was not written whole."""
        try:
            paths = list(self._directory.iterdir())
        except FileNotFoundError:
            return {}
        for path in paths:
            if path.suffix == _UNFINISHED:
                path.unlink(missing_ok=True)
        uploads = [(path.stat(), path.stem) for path in paths if path.suffix == _SUFFIX]
        return {job_id: stat.st_size for stat, job_id in sorted(uploads, key=lambda one: one[0].st_mtime_ns)}

    def delete(self, job_id: str) -> None:
        """Remove what a job had, if it is there."""
        self._path(job_id).unlink(missing_ok=True)

    def _records(self, job_id: str, start: int) -> Iterator[_Record]:
        try:
            with self._path(job_id).open("rb") as file:
                while head := file.read(_HEAD.size):
                    size, checksum = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 1)
                    if start > 0:
                        start -= 1
                        file.seek(size, os.SEEK_CUR)
                        continue
                    yield _decoded(file.read(size), size, checksum)
        except FileNotFoundError as exc:
            raise SpoolDamaged("its documents are missing on disk: upload them again") from exc

    def _path(self, job_id: str) -> Path:
        return self._directory / f"{job_id}{_SUFFIX}"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The one seam for the errors of the disk."""
        try:
            yield
        except OSError as exc:
            raise disk_error(exc, f"the upload cannot be kept in {self._directory}") from exc


class SharedSpool:
    """Uploads in the database: a row for each submission, or several for a large one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, job_id: str, collection: str, submissions: Iterable[Submission], size: int) -> None:
        """All of it in one transaction."""
        with self._database.connected() as db, db.transaction():
            db.execute("DELETE FROM uploads WHERE job=?", (job_id,))
            records = chain((_Record(collection=collection),), map(_recorded, submissions))
            for number, record in enumerate(records):
                data = msgspec.msgpack.encode(record)
                pieces = (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
                rows = ((job_id, number, piece, part) for piece, part in enumerate(pieces))
                db.executemany("INSERT INTO uploads (job, number, piece, data) VALUES (?,?,?,?)", rows)

    def read(self, job_id: str, start: int = 0) -> Iterator[Submission]:
        """The submissions from `start` on, each when it is asked for."""
        if self._record(job_id, 0) is None:
            raise SpoolDamaged("its documents are missing in the database: upload them again")
        for number in count(start + 1):
            if (record := self._record(job_id, number)) is None:
                return
            if submission := record.document or record.file or record.failure:
                yield submission

    def collection(self, job_id: str) -> str | None:
        """Of the first record."""
        record = self._record(job_id, 0)
        return record.collection if record else None

    def jobs(self) -> dict[str, int]:
        """By the time of their first piece."""
        sql = "SELECT job, CAST(sum(length(data)) AS BIGINT) FROM uploads GROUP BY job ORDER BY min(at), job"
        with self._database.connected() as db:
            return dict(db.execute(sql).fetchall())

    def delete(self, job_id: str) -> None:
        """All of its rows."""
        with self._database.connected() as db:
            db.execute("DELETE FROM uploads WHERE job=?", (job_id,))

    def _record(self, job_id: str, number: int) -> _Record | None:
        with self._database.connected() as db:
            sql = "SELECT data FROM uploads WHERE job=? AND number=? ORDER BY piece"
            data = b"".join(part for (part,) in db.execute(sql, (job_id, number)))
        return _decoded(data, len(data), crc32(data)) if data else None


def _recorded(submission: Submission) -> _Record:
    if isinstance(submission, SubmittedDocument):
        return _Record(document=submission)
    if isinstance(submission, SubmittedFile):
        return _Record(file=submission)
    return _Record(failure=submission)


def _frame(record: _Record) -> tuple[bytes, bytes]:
    data = msgspec.msgpack.encode(record)
    return _HEAD.pack(len(data), crc32(data)), data


def _decoded(data: bytes, size: int, checksum: int) -> _Record:
    if len(data) != size or crc32(data) != checksum:
        raise SpoolDamaged("its documents are damaged on disk: upload them again; what is indexed stays")
    try:
        return msgspec.msgpack.decode(data, type=_Record)
    except msgspec.ValidationError as exc:  # not even who may see them is guessed
        raise SpoolDamaged("its documents are as another version of Winnow keeps them: upload them again") from exc


def _sync_directory(directory: Path) -> None:
    """A renamed file survives a power cut once its directory is on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
