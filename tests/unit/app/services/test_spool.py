"""The documents of jobs on disk."""

import errno
import os
import struct
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from zlib import crc32

import msgspec
import pytest

from app.services.document_validation import SubmittedFile, failed
from app.services.incoming import Incoming
from app.services.job_records import SHARED_MIGRATIONS
from app.services.spool import SharedSpool, Spool, SpoolDamaged
from indexing.disk import DiskGuard
from indexing.documents import EVERYTHING, Block, Document, PageStart
from indexing.errors import DiskFull, StoreUnavailable
from indexing.pipeline.ingest import SubmittedDocument
from indexing.postgres import Database

DOCUMENT = SubmittedDocument(
    writer=EVERYTHING,
    document=Document(
        text="Dental 歯\n\ncover",
        title="T",
        blocks=(Block("paragraph", 0, 8),),
        pages=(PageStart(0, 1),),
        metadata={"a": [1, 2**63 - 1, None, 1.5, {"b": "é"}]},
    ),
    id="d",
    source="s",
)
SUBMISSIONS = [
    DOCUMENT,
    SubmittedFile(writer=EVERYTHING, name="f.pdf", data=bytes(range(256)), media_type="x/y"),
    failed("invalid", "why"),
]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "jobs", DiskGuard(tmp_path, 0))


def test_submissions_come_back_as_they_were(spool: Spool) -> None:
    """Documents, files and failures, in order, from any place on."""
    spool.write("j", "c", SUBMISSIONS, 1)
    for start in range(4):
        assert list(spool.read("j", start)) == SUBMISSIONS[start:]


def test_writing_again_replaces_what_was_there(spool: Spool, tmp_path: Path) -> None:
    """As when files have been read: nothing of the earlier is left."""
    spool.write("j", "c", SUBMISSIONS, 1)
    spool.write("j", "c", [DOCUMENT], 1)
    assert list(spool.read("j")) == [DOCUMENT]
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["j.submissions"]


def test_uploads_say_what_they_are_for(spool: Spool, tmp_path: Path) -> None:
    """Each names its collection; what a killed process had not written whole is removed."""
    assert spool.jobs() == {}
    spool.write("kept", "c", [DOCUMENT], 1)
    spool.write("gone", "d", [DOCUMENT], 1)
    (tmp_path / "jobs" / "half.new").write_bytes(b"x")
    assert set(spool.jobs()) == {"kept", "gone"}
    assert [spool.collection(job_id) for job_id in ("kept", "gone", "nope")] == ["c", "d", None]
    spool.delete("gone")
    spool.delete("gone")
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["kept.submissions"]


@pytest.mark.parametrize("place", [14, 18, 40, 60])
def test_any_changed_byte_is_noticed(spool: Spool, tmp_path: Path, place: int) -> None:
    """In a length, in a checksum, or in a document."""
    spool.write("j", "c", [DOCUMENT], 1)
    path = tmp_path / "jobs" / "j.submissions"
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(SpoolDamaged, match="upload them again"):
        list(spool.read("j"))


def test_documents_without_a_writer_are_refused(spool: Spool, tmp_path: Path) -> None:
    """What another version of Winnow has kept is not taken for the operator's."""
    kept = msgspec.to_builtins(DOCUMENT)
    del kept["writer"]
    records = [msgspec.msgpack.encode(record) for record in ([None, None, None, "c"], [kept, None, None, None])]
    framed = [struct.pack("<II", len(record), crc32(record)) + record for record in records]
    spool.write("j", "c", [], 1)
    (tmp_path / "jobs" / "j.submissions").write_bytes(b"".join(framed))
    with pytest.raises(SpoolDamaged, match="another version of Winnow keeps them: upload them again"):
        list(spool.read("j"))


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, DiskFull), (errno.EIO, StoreUnavailable)])
def test_a_disk_that_fails_leaves_nothing_behind(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    """A full one is DiskFull, others are StoreUnavailable."""

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error):
        spool.write("j", "c", [DOCUMENT], 1)
    assert list((tmp_path / "jobs").iterdir()) == []


def file_at(path: Path, content: bytes) -> SubmittedFile:
    path.write_bytes(content)
    return SubmittedFile(writer=EVERYTHING, name="l.bin", path=str(path), length=len(content))


def content_of(submission: object) -> bytes:
    assert isinstance(submission, SubmittedFile)
    return Path(submission.path).read_bytes()


def test_large_files_are_moved_and_go_with_their_job(spool: Spool, tmp_path: Path) -> None:
    """They come back with their content, and are deleted with the upload, or when documents come in its place."""
    for end in (lambda: spool.delete("j"), lambda: spool.write("j", "c", [DOCUMENT], 1)):
        files = [file_at(tmp_path / "a", b"first"), file_at(tmp_path / "b", b"second")]
        spool.write("j", "c", [files[0], DOCUMENT, files[1]], 1)
        assert not any(Path(file.path).exists() for file in files)
        first, document, second = spool.read("j")
        assert [content_of(first), document, content_of(second)] == [b"first", DOCUMENT, b"second"]
        end()
        assert [path for path in (tmp_path / "jobs").iterdir() if path.suffix == ".file"] == []


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"firs")])
def test_a_large_file_that_is_not_whole_is_noticed(
    spool: Spool, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """One that is missing, or has another length."""
    spool.write("j", "c", [file_at(tmp_path / "a", b"first")], 1)
    [path] = (tmp_path / "jobs").glob("*.file")
    damage(path)
    with pytest.raises(SpoolDamaged, match="upload it again"):
        list(spool.read("j"))


def test_large_files_of_no_upload_are_removed(spool: Spool, tmp_path: Path) -> None:
    """A kill came between them and what names them; those of an upload stay."""
    spool.write("kept", "c", [file_at(tmp_path / "a", b"first")], 1)
    (tmp_path / "jobs" / "gone.0.file").write_bytes(b"second")
    assert list(spool.jobs()) == ["kept"]
    assert [content_of(one) for one in spool.read("kept")] == [b"first"]
    assert len(list((tmp_path / "jobs").glob("*.file"))) == 1


def failing() -> Iterator[SubmittedDocument]:
    raise KeyError
    yield DOCUMENT


def test_a_block_that_fails_changes_nothing(spool: Spool, tmp_path: Path) -> None:
    """What the job had is still there with its files, and of a new one nothing is."""
    spool.write("j", "c", [file_at(tmp_path / "a", b"first")], 1)
    for job_id in ("j", "new"):
        documents = [DOCUMENT, *([file_at(tmp_path / "b", b"second")] if job_id == "new" else [])]
        with pytest.raises(KeyError):
            spool.write(job_id, "c", chain(documents, failing()), 1)
    assert [content_of(one) for one in spool.read("j")] == [b"first"]
    assert len(list((tmp_path / "jobs").iterdir())) == 2


@pytest.mark.postgres
@pytest.mark.anyio
async def test_large_files_are_kept_in_the_database_in_pieces(database_url: str, tmp_path: Path) -> None:
    """Each comes back as a file, which is gone at the end; what was added bit by bit comes in order."""
    database = Database(database_url)
    database.prepare("jobs", SHARED_MIGRATIONS)
    spool = SharedSpool(database, tmp_path / "jobs")
    large, small = bytes(range(256)) * 40_000, b"second"
    with spool.writing("j", "c", 1) as add:
        add([DOCUMENT])
        add([file_at(tmp_path / "a", large), DOCUMENT])
        add([file_at(tmp_path / "b", small)])
    with database.connected() as db:
        assert db.execute("SELECT max(length(data)) FROM uploads").fetchone()[0] == 4_000_000
    for path in (tmp_path / "a", tmp_path / "b"):
        path.unlink()  # another machine reads it
    async with Incoming(tmp_path / "other", DiskGuard(tmp_path, 0)) as incoming:
        before, first, document, second = spool.read("j", incoming=incoming)
        assert [before, document] == [DOCUMENT, DOCUMENT]
        assert [content_of(first), content_of(second)] == [large, small]
    assert list((tmp_path / "other").iterdir()) == list((tmp_path / "jobs").iterdir()) == []
    with database.connected() as db:
        db.execute("DELETE FROM uploads WHERE number=-2 AND piece=1")
    async with Incoming(tmp_path / "other", DiskGuard(tmp_path, 0)) as incoming:
        with pytest.raises(SpoolDamaged, match="upload it again"):
            list(spool.read("j", incoming=incoming))
    spool.delete("j")
    assert spool.jobs() == {}
    database.close()


@pytest.mark.postgres
def test_uploads_in_a_database_are_like_those_on_the_disk(database_url: str, tmp_path: Path) -> None:
    """They come back as they were from any place on, in pieces if they are large; written again they are replaced."""
    database = Database(database_url)
    database.prepare("jobs", SHARED_MIGRATIONS)
    spool = SharedSpool(database, tmp_path)
    large = SubmittedFile(writer=EVERYTHING, name="l.bin", data=bytes(range(256)) * 40_000)
    spool.write("j", "c", [DOCUMENT], 1)
    spool.write("j", "c", [*SUBMISSIONS, large], 1)
    for start in range(5):
        assert list(spool.read("j", start)) == [*SUBMISSIONS, large][start:]
    spool.write("k", "d", [DOCUMENT], 1)
    assert list(spool.jobs()) == ["j", "k"]
    assert spool.jobs()["j"] > 256 * 40_000
    assert [spool.collection(job_id) for job_id in ("j", "k", "nope")] == ["c", "d", None]
    spool.delete("j")
    spool.delete("j")
    with pytest.raises(SpoolDamaged, match="missing in the database"):
        list(spool.read("j"))
    database.close()
