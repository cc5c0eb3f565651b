"""The documents of jobs on disk."""

import errno
import os
import struct
from pathlib import Path
from zlib import crc32

import msgspec
import pytest

from app.services.document_validation import SubmittedFile, failed
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


@pytest.mark.postgres
def test_uploads_in_a_database_are_like_those_on_the_disk(database_url: str) -> None:
    """They come back as they were from any place on, in pieces if they are large; written again they are replaced."""
    database = Database(database_url)
    database.prepare("jobs", SHARED_MIGRATIONS)
    spool = SharedSpool(database)
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
