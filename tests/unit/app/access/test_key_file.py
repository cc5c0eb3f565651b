"""The keys: what holds in a file and in a database, and what of the file."""

import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.access.key_file import KeyFile, Keys
from app.access.keys import KeyRequest, digest_of
from app.access.shared import KeyTable
from app.errors import InvalidRequest
from indexing.errors import NotFound, StoreUnavailable
from indexing.postgres import Database
from tests.conftest import both

NOW = 1_800_000_000.0

SEARCHING = KeyRequest(name="ci", scopes=("search",))


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "home" / "keys.sqlite3", lambda: NOW)


@pytest.fixture
def keys(kind: str, file: KeyFile, request: pytest.FixtureRequest) -> Iterator[Keys]:
    if kind == "sqlite":
        yield file
        return
    database = Database(request.getfixturevalue("database_url"))
    yield KeyTable(database, lambda: NOW)
    database.close()


def test_there_is_no_file_before_the_first_key(file: KeyFile) -> None:
    """Looking creates none."""
    assert file.all() == []
    assert file.stamp() is None
    assert not file.path.exists()


def test_a_key_is_kept(file: KeyFile) -> None:
    """Under its name, without its secret, in a file that only its owner can read."""
    key, token = file.create(SEARCHING)
    assert KeyFile(file.path, lambda: NOW).all() == [key]
    assert key.digest == digest_of(token)
    assert token.encode() not in file.path.read_bytes()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


@both()
def test_a_name_is_used_once(keys: Keys) -> None:
    """Not again after the key is revoked: its usage and budget would be mixed."""
    keys.create(SEARCHING)
    keys.revoke("ci")
    with pytest.raises(InvalidRequest, match="choose another name"):
        keys.create(SEARCHING)


@both()
def test_revoking_is_for_good(keys: Keys) -> None:
    """By name or by id, and it can be done again."""
    key, _ = keys.create(SEARCHING)
    assert keys.revoke(key.id).revoked_at is not None
    assert keys.revoke("ci") == keys.all()[0]
    with pytest.raises(InvalidRequest, match="is revoked"):
        keys.rotate("ci", 0)


@both()
@pytest.mark.parametrize("work", [lambda keys: keys.revoke("nope"), lambda keys: keys.rotate("nope", 0)])
def test_a_missing_key_is_not_found(keys: Keys, work: Callable[[Keys], object]) -> None:
    """Whatever is to be done with it."""
    with pytest.raises(NotFound, match="key 'nope' not found"):
        work(keys)


@both()
def test_rotating_gives_another_secret(keys: Keys) -> None:
    """The one before is good for the time that was asked for."""
    _, first = keys.create(SEARCHING)
    rotated, second = keys.rotate("ci", 60)
    assert rotated.accepts(digest_of(second), NOW)
    assert rotated.accepts(digest_of(first), NOW + 59)
    assert not rotated.accepts(digest_of(first), NOW + 60)


@both()
def test_of_many_rotations_at_once_one_secret_remains(keys: Keys) -> None:
    """None is lost half done."""
    keys.create(SEARCHING)
    with ThreadPoolExecutor(8) as pool:
        tokens = [token for _, token in pool.map(lambda _: keys.rotate("ci", 0), range(30))]
    (key,) = keys.all()
    assert sum(key.accepts(digest_of(token), NOW) for token in tokens) == 1


@both()
def test_keys_come_by_name(keys: Keys) -> None:
    """In the order of Python, whatever that of the database; with everything that they are bound to."""
    names = ["B", "Z.1", "a", "a-1", "a.b", "aB"]
    for name in reversed(names):
        keys.create(KeyRequest(name=name, scopes=("search",), groups=("日本",), requests_per_minute=5))
    assert [key.name for key in keys.all()] == names
    assert {(key.groups, key.requests_per_minute) for key in keys.all()} == {(("日本",), 5)}


@both()
def test_every_change_has_a_stamp(keys: Keys) -> None:
    """Creating, renewing and revoking."""
    stamps = []
    for change in (lambda: keys.create(SEARCHING), lambda: keys.rotate("ci", 60), lambda: keys.revoke("ci")):
        change()
        stamps.append(keys.stamp())
    assert keys.stamp() == stamps[-1]
    assert len({*stamps}) == 3


def test_the_stamp_tells_of_changes(file: KeyFile) -> None:
    """Of every one, and a file that has just changed is not settled."""
    stamps = [file.stamp()]
    for name in ("a", "b"):
        file.create(KeyRequest(name=name, scopes=("search",)))
        stamps.append(file.stamp())
    assert len({*stamps[:2]}) == 2
    moment = file.path.stat().st_mtime
    assert not KeyFile(file.path, lambda: moment + 0.5).is_settled(file.stamp())
    assert KeyFile(file.path, lambda: moment + 60).is_settled(file.stamp())


def test_a_read_only_disk_can_be_read(file: KeyFile) -> None:
    """The file alone is enough: there is no write-ahead log beside it."""
    key, _ = file.create(SEARCHING)
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]
    file.path.chmod(0o400)
    file.path.parent.chmod(0o500)
    try:
        assert file.all() == [key]
    finally:
        file.path.parent.chmod(0o700)


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_damaged_file_is_one_clear_line(file: KeyFile, content: bytes) -> None:
    """It is neither read as empty nor written over."""
    file.path.parent.mkdir()
    file.path.write_bytes(content)
    for work in (file.all, lambda: file.create(SEARCHING)):
        with pytest.raises(StoreUnavailable, match=r"keys\.sqlite3 are damaged: restore it"):
            work()
    assert file.path.read_bytes() == content


def test_an_unreadable_record_is_no_key_less(file: KeyFile) -> None:
    """Everything is refused rather than a bound forgotten."""
    file.create(SEARCHING)
    with sqlite3.connect(file.path) as db:
        db.execute("UPDATE keys SET record = '{}'")
    db.close()
    with pytest.raises(StoreUnavailable, match="a record that cannot be read"):
        file.all()


@pytest.mark.parametrize(
    ("change", "message"),
    [("application_id = 7", "belongs to another program"), ("user_version = 99", "by a newer Winnow")],
)
def test_a_foreign_file_is_not_read(file: KeyFile, change: str, message: str) -> None:
    """Another program's, or a later version's."""
    file.create(SEARCHING)
    with sqlite3.connect(file.path) as db:
        db.execute(f"PRAGMA {change}")
    db.close()
    with pytest.raises(StoreUnavailable, match=message):
        file.all()
