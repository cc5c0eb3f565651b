import sqlite3
from pathlib import Path

import pytest

from indexing.errors import DiskFull, StoreUnavailable
from indexing.sqlite import SqliteFile, set_aside_if_damaged

pytestmark = pytest.mark.anyio

FIRST = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)"
SECOND = "ALTER TABLE notes ADD COLUMN stars INTEGER NOT NULL DEFAULT 3; CREATE INDEX by_stars ON notes (stars)"


async def test_the_connection_refuses_every_other_thread(tmp_path: Path) -> None:
    """SQLite is never used on the event loop: a call that strays there raises instead of blocking it."""
    file = SqliteFile(tmp_path / "notes.sqlite3", "the notes", [FIRST])
    with pytest.raises(sqlite3.ProgrammingError, match="same thread"):
        file._db.execute("SELECT 1")
    assert await file.query(len, "SELECT * FROM notes") == 0
    await file.close()


async def test_an_older_file_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its rows stay, and the new migration is applied once."""
    path = tmp_path / "notes.sqlite3"
    old = SqliteFile(path, "the notes", [FIRST])
    await old.write(("INSERT INTO notes (text) VALUES (?)", [("one",), ("two",)]))
    await old.close()
    for _ in range(2):
        new = SqliteFile(path, "the notes", [FIRST, SECOND])
        assert await new.query(list, "SELECT text, stars FROM notes ORDER BY id") == [("one", 3), ("two", 3)]
        await new.close()


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    """An earlier Winnow does not write into a schema that it does not know."""
    path = tmp_path / "notes.sqlite3"
    SqliteFile(path, "the notes", [FIRST, SECOND])
    with pytest.raises(StoreUnavailable, match="written by a newer Winnow"):
        SqliteFile(path, "the notes", [FIRST])


async def test_a_transaction_is_done_whole_or_not_at_all(tmp_path: Path) -> None:
    """The second statement fails: the first one is taken back."""
    file = SqliteFile(tmp_path / "notes.sqlite3", "the notes", [FIRST])
    with pytest.raises(StoreUnavailable, match=r"the notes .* cannot be used"):
        await file.write(
            ("INSERT INTO notes (text) VALUES (?)", [("one",)]),
            ("INSERT INTO notes (text) VALUES (?)", [(None,)]),
            durable=False,
        )
    assert await file.query(len, "SELECT * FROM notes") == 0
    await file.close()


async def test_a_full_disk_is_told_and_the_next_transaction_works(tmp_path: Path) -> None:
    """What did not fit is taken back whole; once there is space, writing goes on."""
    file = SqliteFile(tmp_path / "notes.sqlite3", "the notes", [FIRST])
    await file.run(lambda db: db.execute("PRAGMA max_page_count = 3").fetchall())
    with pytest.raises(DiskFull, match=r"the notes .* the disk is full"):
        await file.write(("INSERT INTO notes (text) VALUES (?)", [("x" * 3000,) for _ in range(10)]))
    await file.run(lambda db: db.execute("PRAGMA max_page_count = 1000").fetchall())
    await file.write(("INSERT INTO notes (text) VALUES (?)", [("x" * 3000,) for _ in range(10)]))
    assert await file.query(len, "SELECT * FROM notes") == 10
    await file.close()


async def test_a_disk_without_room_for_a_new_file_is_told_to_readers_too(tmp_path: Path) -> None:
    """Whoever opens it may only want to read: it cannot be used, and the reason is the disk."""
    with pytest.raises(StoreUnavailable, match=r"the notes .* the disk is full"):
        SqliteFile(tmp_path / "notes.sqlite3", "the notes", [f"PRAGMA max_page_count = 1; {FIRST}"])


async def test_a_disk_without_room_for_readers_is_told_as_full(tmp_path: Path) -> None:
    """SQLite calls it an I/O error: the disk is well, and reading works again when there is space."""
    file = SqliteFile(tmp_path / "notes.sqlite3", "the notes", [FIRST])

    def fail(_: sqlite3.Connection) -> None:
        failure = sqlite3.OperationalError("disk I/O error")
        failure.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
        raise failure

    with pytest.raises(StoreUnavailable, match=r"the notes .* cannot be used: the disk is full"):
        await file.run(fail)
    await file.close()


def test_a_damaged_file_that_cannot_be_moved_is_named(tmp_path: Path) -> None:
    """It stays as it is."""
    damaged, quarantine = tmp_path / "notes.sqlite3", tmp_path / "quarantine"
    damaged.write_bytes(b"no database at all" * 1000)
    quarantine.touch()
    with pytest.raises(StoreUnavailable, match=r"notes.sqlite3 is damaged, and cannot be moved to .*quarantine"):
        set_aside_if_damaged(damaged, quarantine)
    assert damaged.read_bytes() == b"no database at all" * 1000
