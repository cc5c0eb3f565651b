"""The documents of jobs, until they are indexed: on the disk, or in the database that replicas share."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from struct import Struct
from tempfile import SpooledTemporaryFile
from typing import IO, Protocol
from zlib import crc32

import msgspec

from app.errors import WinnowError
from app.services.document_validation import Submission, SubmittedFile
from app.services.incoming import Incoming
from indexing.disk import DiskGuard, disk_error
from indexing.pipeline.ingest import DocumentResult, SubmittedDocument
from indexing.postgres import Database, PostgresConnection

_HEAD = Struct("<II")
"""Before each submission: the length of its encoding, and its checksum."""
_SUFFIX, _UNFINISHED, _FILE = ".submissions", ".new", ".file"


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


Add = Callable[[Iterable[Submission]], None]
"""Takes submissions in their order. Large files that lie elsewhere are moved or copied."""


class Uploads(Protocol):
    """What jobs are to index. Every call blocks: make it in a thread.

    Writing raises DiskFull and StoreUnavailable, reading SpoolDamaged and StoreUnavailable.
    """

    def writing(self, job_id: str, collection: str, size: int) -> AbstractContextManager[Add]:
        """What is added in the block, about `size` bytes, comes in the place of what the job had, unless the block
        fails; safe when it has ended.
        """
        ...

    def write(self, job_id: str, collection: str, submissions: Iterable[Submission], size: int) -> None:
        """As `writing`, for what is there already."""
        with self.writing(job_id, collection, size) as add:
            add(submissions)

    def read(self, job_id: str, start: int = 0, incoming: Incoming | None = None) -> Iterator[Submission]:
        """The submissions from `start` on, one by one. Large files of a database are put into `incoming`."""
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


class Spool(Uploads):
    """A directory with one file for each job, and one for each large file of it. Every call blocks: make it in a
    thread.

    Writing raises DiskFull and StoreUnavailable, reading SpoolDamaged.
    """

    def __init__(self, directory: Path, disk: DiskGuard) -> None:
        self._directory, self._disk = directory, disk

    @contextmanager
    def writing(self, job_id: str, collection: str, size: int) -> Iterator[Add]:
        """`size` is beside large files, which are moved."""
        self._disk.check(size)
        path = self._path(job_id)
        new = path.with_suffix(_UNFINISHED)
        files: list[Path] = []
        with _writing(self._directory):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:

                    def add(submissions: Iterable[Submission]) -> None:
                        for submission in submissions:
                            if isinstance(submission, SubmittedFile) and submission.path:
                                files.append(self._directory / f"{job_id}.{len(files)}{_FILE}")
                                submission = _moved(submission, files[-1])
                            file.writelines(_frame(_recorded(submission)))

                    file.writelines(_frame(_Record(collection=collection)))
                    yield add
                    file.flush()
                    os.fsync(file.fileno())
                new.replace(path)
                _sync_directory(self._directory)
            except BaseException:
                new.unlink(missing_ok=True)
                if not path.exists():
                    self._delete_files(job_id, ())
                raise
            self._delete_files(job_id, files)

    def read(self, job_id: str, start: int = 0, incoming: Incoming | None = None) -> Iterator[Submission]:
        """The submissions from `start` on, one by one."""
        for record in self._records(job_id, start + 1):
            submission = record.document or record.file or record.failure
            if isinstance(submission, SubmittedFile) and submission.path:
                submission = self._found(submission)
            if submission:
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
        whole = {path.stem for path in paths if path.suffix == _SUFFIX}
        for path in paths:
            if path.suffix == _UNFINISHED or (path.suffix == _FILE and path.name.partition(".")[0] not in whole):
                path.unlink(missing_ok=True)
        uploads = [(path.stat(), path.stem) for path in paths if path.suffix == _SUFFIX]
        return {job_id: stat.st_size for stat, job_id in sorted(uploads, key=lambda one: one[0].st_mtime_ns)}

    def delete(self, job_id: str) -> None:
        """Remove what a job had, if it is there."""
        self._path(job_id).unlink(missing_ok=True)
        self._delete_files(job_id, ())

    def _found(self, file: SubmittedFile) -> SubmittedFile:
        path = self._directory / file.path
        try:
            if path.stat().st_size == file.length:
                return msgspec.structs.replace(file, path=str(path))
        except FileNotFoundError:
            pass
        raise SpoolDamaged("one of its files is missing or damaged on disk: upload it again")

    def _delete_files(self, job_id: str, but: Collection[Path]) -> None:
        for path in self._directory.glob(f"{job_id}.*{_FILE}"):
            if path not in but:
                path.unlink(missing_ok=True)

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


class SharedSpool(Uploads):
    """Uploads in the database: a row for each submission, or several for a large one; the content of a large file has
    the negative number of its submission. What is collected for a transaction is in `directory`.
    """

    def __init__(self, database: Database, directory: Path) -> None:
        self._database, self._directory = database, directory

    @contextmanager
    def writing(self, job_id: str, collection: str, size: int) -> Iterator[Add]:
        """All of it in one transaction, which does not wait for the block: it may read a file for long."""
        files: dict[int, Path] = {}
        numbers = count(1)
        with _writing(self._directory):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with SpooledTemporaryFile(_PIECE, dir=str(self._directory)) as collected:

                def add(submissions: Iterable[Submission]) -> None:
                    for submission, number in zip(submissions, numbers, strict=False):
                        if isinstance(submission, SubmittedFile) and submission.path:
                            files[number] = Path(submission.path)
                            submission = msgspec.structs.replace(submission, path="")
                        collected.writelines(_frame(_recorded(submission)))

                collected.writelines(_frame(_Record(collection=collection)))
                yield add
                collected.seek(0)
                with self._database.connected() as db, db.transaction():
                    _insert_all(db, job_id, collected, files)

    def read(self, job_id: str, start: int = 0, incoming: Incoming | None = None) -> Iterator[Submission]:
        """The submissions from `start` on, each when it is asked for."""
        if self._record(job_id, 0) is None:
            raise SpoolDamaged("its documents are missing in the database: upload them again")
        for number in count(start + 1):
            if (record := self._record(job_id, number)) is None:
                return
            submission = record.document or record.file or record.failure
            if isinstance(submission, SubmittedFile) and submission.length > len(submission.data) and incoming:
                submission = self._fetched(job_id, number, submission, incoming)
            if submission:
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

    def _fetched(self, job_id: str, number: int, file: SubmittedFile, incoming: Incoming) -> SubmittedFile:
        path = incoming.new_file()
        with self._database.connected() as db:
            for piece in count():
                sql = "SELECT data FROM uploads WHERE job=? AND number=? AND piece=?"
                if (row := db.execute(sql, (job_id, -number, piece)).fetchone()) is None:
                    break
                incoming.append(path, row[0])
        if path.stat().st_size != file.length:
            raise SpoolDamaged("one of its files is missing in the database: upload it again")
        return msgspec.structs.replace(file, path=str(path))


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """The one seam for the errors of the disk."""
    try:
        yield
    except OSError as exc:
        raise disk_error(exc, f"the upload cannot be kept in {directory}") from exc


def _insert_all(db: PostgresConnection, job_id: str, collected: IO[bytes], files: Mapping[int, Path]) -> None:
    db.execute("DELETE FROM uploads WHERE job=?", (job_id,))
    for number in count():
        if not (head := collected.read(_HEAD.size)):
            return
        _insert(db, job_id, number, _pieces(collected, _HEAD.unpack(head)[0]))
        if path := files.get(number):
            with path.open("rb") as file:
                _insert(db, job_id, -number, _pieces(file, path.stat().st_size))


def _insert(db: PostgresConnection, job_id: str, number: int, pieces: Iterable[bytes]) -> None:
    rows = ((job_id, number, piece, data) for piece, data in enumerate(pieces))
    db.executemany("INSERT INTO uploads (job, number, piece, data) VALUES (?,?,?,?)", rows)


def _pieces(file: IO[bytes], size: int) -> Iterator[bytes]:
    """The next `size` bytes."""
    while size > 0 and (data := file.read(min(size, _PIECE))):
        size -= len(data)
        yield data


def _moved(file: SubmittedFile, target: Path) -> SubmittedFile:
    """Its content at `target`, on the disk when this returns; `path` is then the name of that."""
    with Path(file.path).open("rb") as content:
        os.fsync(content.fileno())
    Path(file.path).replace(target)
    return msgspec.structs.replace(file, path=target.name)


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
