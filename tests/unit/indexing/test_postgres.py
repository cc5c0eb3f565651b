"""PostgreSQL as the queries see it: transactions, versions of tables, outages, and what its errors say."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Thread

import pytest

import app.access.shared
import app.accounting.shared
import app.ranking.shared
import app.services.job_records
import indexing.pipeline.manifest_tables
from indexing.errors import StoreUnavailable
from indexing.postgres import CONNECT_S, INDEX, TIMEOUT_S, Database, DatabaseAway, PostgresConnection
from indexing.tables import NotPrepared
from tests.fakes.postgres import Postgres

FIRST = "CREATE TABLE notes (id BIGINT PRIMARY KEY, text TEXT, data BYTEA, done BIGINT)"
SECOND = "ALTER TABLE notes ADD COLUMN later DOUBLE PRECISION"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    database.prepare("notes", [FIRST])
    yield database
    database.close()


def count(database: Database) -> int:
    with database.connected() as db:
        return int(db.execute("SELECT count(*) FROM notes").fetchone()[0])


@pytest.mark.postgres
def test_values_come_back_as_they_went(database: Database) -> None:
    """Texts in any script, bytes, large integers, nothing, and booleans in columns of integers."""
    row = (2**62, "日本 ? :x 'q'", bytes(range(256)), True)
    with database.connected() as db:
        db.execute("INSERT INTO notes VALUES (?, ?, ?, ?)", row)
        db.execute("INSERT INTO notes VALUES (?, ?, ?, ?)", (1, None, None, None))
        assert db.execute("SELECT * FROM notes ORDER BY id DESC").fetchall() == [row, (1, None, None, None)]
        assert db.execute("UPDATE notes SET done=?", (0,)).rowcount == 2
        assert db.execute("SELECT id FROM notes WHERE id=?", (7,)).fetchone() is None


@pytest.mark.postgres
def test_texts_that_the_server_refuses_are_changed(database: Database) -> None:
    """In what is written and in what is asked for alike, so that they are found."""
    odd = "a\0b\udcffc"
    with database.connected() as db:
        db.execute("INSERT INTO notes (id, text) VALUES (?, ?)", (1, odd))
        assert db.execute("SELECT text FROM notes WHERE text=?", (odd,)).fetchall() == [("a\ufffdb?c",)]


@pytest.mark.postgres
def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    """What fails in its midst leaves nothing, and the connection serves on."""

    def work(db: PostgresConnection) -> None:
        with db.transaction():
            db.execute("INSERT INTO notes (id) VALUES (?)", (1,))
            db.execute("INSERT INTO notes (id) VALUES (?)", (1,))

    with pytest.raises(StoreUnavailable, match="SQLSTATE 23505"), database.connected() as db:
        work(db)
    assert count(database) == 0


@pytest.mark.postgres
def test_tables_grow_by_versions(database_url: str, database: Database) -> None:
    """Each migration runs once; an older program refuses what a newer one has written."""
    with database.connected() as db:
        db.execute("INSERT INTO notes (id) VALUES (?)", (1,))
    for _ in range(2):
        database.prepare("notes", [FIRST, SECOND])
    with database.connected() as db:
        assert db.execute("SELECT id, later FROM notes").fetchall() == [(1, None)]
    with pytest.raises(StoreUnavailable, match=r"written by a newer Winnow \(notes: version 2, this one knows 1\)"):
        database.prepare("notes", [FIRST])


@pytest.mark.postgres
def test_what_is_prepared_is_not_asked_for_again(database: Database) -> None:
    """The same version of a part costs no look at the database a second time."""
    with database.connected() as db:
        db.script("DROP TABLE parts")
    with database.connected(("notes", [FIRST])) as db:  # else it would create the notes again, which are there
        assert db.execute("SELECT to_regclass('parts') IS NULL").fetchone()[0]


@pytest.mark.postgres
def test_new_versions_may_take_long(database: Database) -> None:
    """An index of millions of rows takes minutes; other statements keep their limit, on the same connection."""
    database.prepare("slow", ["CREATE TABLE kept AS SELECT current_setting('statement_timeout') AS timeout"])
    with database.connected() as db:
        assert db.execute("SELECT timeout FROM kept").fetchone() == ("0",)
        assert db.execute("SHOW statement_timeout").fetchone() == ("30s",)
        assert db._raw._usock.gettimeout() == TIMEOUT_S + CONNECT_S


@pytest.mark.postgres
def test_an_outage_is_a_pause(postgres: Postgres, database: Database) -> None:
    """While the server is away every call says so, and when to come back; then all goes on by itself."""
    assert count(database) == 0
    postgres.stop()
    try:
        for _ in range(2):
            with pytest.raises(DatabaseAway, match="cannot be reached: Connection refused; is it running") as away:
                count(database)
            assert away.value.retry_after == 2.0
            assert "not-asked" not in str(away.value)
    finally:
        postgres.start()
    assert count(database) == 0


@pytest.mark.postgres
def test_a_connection_that_the_server_closed_is_not_used_again(postgres: Postgres, database: Database) -> None:
    """An idle one is noticed before anything is sent on it, so that nothing fails."""
    assert count(database) == 0
    ours = "pg_stat_activity WHERE application_name = 'winnow'"
    postgres.sql("postgres", f"SELECT pg_terminate_backend(pid, 5000) FROM {ours}")  # noqa: S608
    assert count(database) == 0


@pytest.mark.postgres
def test_what_the_server_refuses_is_said_with_its_fix(postgres: Postgres) -> None:
    """A database that is not there, by its name."""
    with pytest.raises(StoreUnavailable, match=r"127.0.0.1:\d+/nowhere refused the connection: .* create it"):
        Database(postgres.url("nowhere")).prepare("notes", [FIRST])


@pytest.mark.postgres
def test_a_server_proves_who_it_is(tmp_path: Path, postgres: Postgres) -> None:
    """With the certificate of its authority; a password is sent encrypted, and is in no error."""
    authority = tmp_path / "authority.pem"
    url = postgres.secured("secured", "pass-word", authority)
    for mode in ("prefer", "require", f"verify-full&sslrootcert={authority}"):
        assert encrypted(f"{url}?sslmode={mode}")
    wrong = url.replace("pass-word", "wrong-word")
    for address, why in {
        f"{url}?sslmode=disable": "does not let this user in",
        f"{url}?sslmode=verify-full": "is not believed to be itself: .*; sslrootcert in WINNOW_DATABASE_URL",
        f"{url}?sslmode=verify-full&sslrootcert={authority}".replace("127.0.0.1", "localhost"): "mismatch",
        f"{url}?sslmode=verify-full&sslrootcert={authority}2": "pem2 in WINNOW_DATABASE_URL cannot be read: No such",
        f"{wrong}?sslmode=require": r"does not accept the password \(WINNOW_DATABASE_URL\)",
    }.items():
        with pytest.raises(StoreUnavailable, match=why) as refused:
            encrypted(address)
        assert "-word" not in str(refused.value)


def encrypted(url: str) -> bool:
    database = Database(url)
    try:
        with database.connected() as db:
            return bool(db.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()[0])
    finally:
        database.close()


def in_thread(work: Callable[[], None]) -> Thread:
    thread = Thread(target=work)
    thread.start()
    return thread


def waits_for_a_lock(postgres: Postgres, url: str) -> None:
    """Until some statement of the database has to wait, or an index waits for who came before it."""
    name = url.rpartition("/")[2].partition("?")[0]
    waiting = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event_type = 'Lock'"  # noqa: S608
    while postgres.sql("postgres", waiting) == "0":
        time.sleep(0.05)


INDEXED = "CREATE INDEX CONCURRENTLY IF NOT EXISTS notes_by_text ON notes (text)"


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("under_way", "migration"),
    [
        ("SELECT count(*) FROM notes", SECOND),
        ("INSERT INTO notes (id) VALUES (1)", INDEXED),
    ],
)
def test_others_go_on_while_tables_change(
    postgres: Postgres, database_url: str, database: Database, under_way: str, migration: str
) -> None:
    """A change has to wait for a long report, and an index for who writes; those who come after it do not."""
    other = Database(database_url)
    with other.connected() as slow:
        slow.script(f"BEGIN ISOLATION LEVEL REPEATABLE READ; {under_way}")
        migrating = in_thread(lambda: database.prepare("notes", [FIRST, migration]))
        waits_for_a_lock(postgres, database_url)
        with other.connected() as quick:
            quick.script("SET statement_timeout TO 5000")
            quick.execute("INSERT INTO notes (id) VALUES (?)", (2,))
            assert quick.execute("SELECT id FROM notes").fetchall() == [(2,)]
        slow.script("COMMIT")
    migrating.join()
    with database.connected() as db:
        assert db.execute("SELECT version FROM parts WHERE part='notes'").fetchone() == (2,)
    other.close()


@pytest.mark.parametrize(
    "migrations",
    [
        *(app.accounting.shared.MIGRATIONS, app.access.shared.MIGRATIONS, app.ranking.shared.MIGRATIONS),
        *(app.services.job_records.SHARED_MIGRATIONS, indexing.pipeline.manifest_tables.SHARED_MIGRATIONS),
    ],
)
def test_no_index_is_built_while_others_wait(migrations: Sequence[str]) -> None:
    """One of a table that may have millions of rows is a step by itself."""
    for step in migrations[1:]:
        assert ("INDEX" in step) == (INDEX.match(step.strip()) is not None)
        assert "INDEX" not in step or ";" not in step


@pytest.mark.postgres
def test_several_replicas_build_an_index_once(database_url: str, database: Database) -> None:
    """They start at the same time; none waits for one that waits for it."""
    others = [Database(database_url) for _ in range(4)]
    for thread in [in_thread(partial(one.prepare, "notes", [FIRST, INDEXED, SECOND])) for one in others]:
        thread.join()
    for one in others:
        assert count(one) == 0
        one.close()
    with database.connected() as db:
        assert db.execute("SELECT version FROM parts WHERE part='notes'").fetchone() == (3,)


@pytest.mark.postgres
def test_an_index_whose_building_was_cut_off_is_built_again(database: Database) -> None:
    """PostgreSQL leaves one that nobody uses."""
    with database.connected() as db:
        db.script("INSERT INTO notes (id, text) VALUES (1, 'a'), (2, 'a')")
    with pytest.raises(StoreUnavailable), database.connected() as db:
        db.script("CREATE UNIQUE INDEX CONCURRENTLY notes_by_text ON notes (text)")
    database.prepare("notes", [FIRST, INDEXED])
    with database.connected() as db:
        valid = "SELECT indisvalid, indisunique FROM pg_index WHERE indexrelid = to_regclass('notes_by_text')"
        assert db.execute(valid).fetchall() == [(True, False)]


@pytest.mark.postgres
def test_whoever_only_reads_leaves_the_tables_as_they_are(database_url: str, database: Database) -> None:
    """It says which version there is; a service of that version goes on."""
    reader = Database(database_url, migrates=False)
    reader.prepare("notes", [FIRST])
    with pytest.raises(NotPrepared, match=r"\(notes\) was written by an earlier Winnow: it has version 1, .* reads 2"):
        reader.prepare("notes", [FIRST, SECOND])
    with pytest.raises(NotPrepared, match=r"has no tables of Winnow yet \(other\)") as absent:
        reader.prepare("other", [FIRST])
    assert absent.value.version is None
    database.prepare("notes", [FIRST])
    reader.close()


@pytest.mark.postgres
def test_the_clock_of_the_database_counts(database_url: str) -> None:
    """However wrong those of the machines are."""
    machines = [Database(database_url, clock=lambda off=off: time.time() + off) for off in (-7200.0, 0.0, 86_400.0)]
    for one in machines:
        one.hear_clock()
    told = [one.now() for one in machines]
    assert max(told) - min(told) < 5
    for one in machines:
        one.close()
