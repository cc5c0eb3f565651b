"""Commands on a machine without a service, where services share an index."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from app.cli.session import _when_free
from app.cli.writer import WritingService, whom_to_wait_for, writing_service
from app.config.settings import Settings, read_settings
from app.errors import Conflict
from indexing.errors import IndexBusy
from indexing.pipeline.progress import Event, Notice
from indexing.postgres import Database
from indexing.writer import Writer, WriterLock


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    variables = {"WINNOW_HOME": str(tmp_path), "WINNOW_DATABASE_URL": database_url, "QDRANT_URL": "http://127.0.0.1:1"}
    return read_settings(variables, tmp_path)


@pytest.fixture
def lock(database_url: str) -> Iterator[WriterLock]:
    """Of a process that writes."""
    database = Database(database_url)
    lock = WriterLock(database)
    yield lock
    lock.release()
    database.close()


def busy() -> None:
    raise IndexBusy("another replica writes to the index")


def waited_for(settings: Settings) -> tuple[str, str]:
    """What a command says while it waits, and at the end."""
    said: list[Event] = []
    with pytest.raises(IndexBusy) as ended:
        _when_free(settings, lambda _: None, busy, said.append, wait_s=0.1)
    assert [type(one) for one in said] == [Notice]
    return msgspec.to_builtins(said[0])["detail"], str(ended.value)


@pytest.mark.postgres
def test_a_command_waits_for_another_one_and_then_says_so(settings: Settings, lock: WriterLock) -> None:
    """One that nobody can ask to do the work; it is named by its address."""
    notice, end = waited_for(settings)
    who = "another process of Winnow at 127.0.0.1, such as `winnow index`, writes to the index"
    assert notice == f"waiting for up to 0.1 s: {who}"
    assert end.startswith(f"{who}, and did not end within 0.1 s; run this again")


@pytest.mark.postgres
def test_a_writer_that_cannot_be_reached_is_named(settings: Settings, lock: WriterLock) -> None:
    """With the address that it has given."""
    lock.announce(Writer("http://127.0.0.1:9", "secret"))
    assert writing_service(settings) is None
    assert "cannot be reached from here under http://127.0.0.1:9" in waited_for(settings)[1]


@pytest.mark.postgres
def test_nobody_is_waited_for_where_nobody_writes(settings: Settings, tmp_path: Path) -> None:
    """Of a database without tables, which stays so, and without a database."""
    assert (writing_service(settings), whom_to_wait_for(settings)) == (None, "")
    alone = read_settings({"WINNOW_HOME": str(tmp_path)}, tmp_path)
    assert (writing_service(alone), whom_to_wait_for(alone)) == (None, "")
    assert settings.database.url is not None
    database = Database(settings.database.url)
    with database.connected() as db:
        assert db.execute("SELECT to_regclass('winnow.parts') IS NULL").fetchone()[0]
    database.close()


def test_files_are_read_on_their_machine() -> None:
    """Not by a service of another one, whose files have the same names at best."""
    WritingService(Writer("http://127.0.0.1:9", "s"), beside=True).require_files()
    with pytest.raises(Conflict, match="the replica that writes to the index is on another machine"):
        WritingService(Writer("http://10.0.0.9:9", "s"), beside=False).require_files()
