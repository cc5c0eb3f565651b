"""The documents of jobs on disk, until they are indexed."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from zlib import crc32

import msgspec

from app.errors import WinnowError
from app.services.document_validation import Submission, SubmittedFile
from indexing.disk import DiskGuard, disk_error
from indexing.pipeline.ingest import DocumentResult, SubmittedDocument

_HEAD = Struct("<II")
"""Before each submission: the length of its encoding, and its checksum."""
_SUFFIX, _UNFINISHED = ".submissions", ".new"


class SpoolDamaged(WinnowError):
    """The documents of a job are missing on disk, or not what was written."""


class _Record(msgspec.Struct, array_like=True):
    """A submission: a document, a file or a failure. The first record of a job names the collection instead."""

    document: SubmittedDocument | None = None
    file: SubmittedFile | None = None
    failure: DocumentResult | None = None
    collection: str | None = None


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
