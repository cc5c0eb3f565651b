"""The output as a journal: going on, half-written rows, other files and options, two runs at once."""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.cli.batch.journal import CannotWrite, Journal, Origin, Written
from app.cli.batch.texts import Item, fingerprint
from app.errors import Conflict, InvalidRequest

ROWS = [b'{"id":1,"label":"A","cost_usd":0.5}\n', b'{"id":2,"error":{"detail":"no"},"cost_usd":0.25}\n']


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("one\ntwo\nthree\n")
    return path


def origin(texts: Path, **options: Any) -> Origin:
    return Origin(command="classify", input=str(texts), field="text", options=options, fingerprint=fingerprint(texts))


def written(out: Path, texts: Path) -> Journal:
    journal = Journal(out, origin(texts))
    for row in ROWS:
        journal.append(row, msgspec.json.decode(row, type=Written))
    return journal


def test_a_run_goes_on_where_the_output_ends(tmp_path: Path, texts: Path) -> None:
    """With what is done, failed and paid so far."""
    written(tmp_path / "out", texts).close()
    journal = Journal(tmp_path / "out", origin(texts))
    assert (journal.done, journal.failed, journal.cost_usd, journal.last_id) == (2, 1, 0.75, 2)
    journal.append(b'{"id":3}\n', Written(id=3))
    journal.close()
    assert (tmp_path / "out").read_bytes() == b"".join(ROWS) + b'{"id":3}\n'


def test_a_half_written_row_is_cut_off(tmp_path: Path, texts: Path) -> None:
    """Wherever the kill came; also one that lacks but its newline, which may have been longer."""
    out = tmp_path / "out"
    written(out, texts).close()
    for end in range(1, len(ROWS[1])):
        out.write_bytes(ROWS[0] + ROWS[1][:end])
        journal = Journal(out, origin(texts))
        assert journal.done == 1
        journal.close()
        assert out.read_bytes() == ROWS[0]


def test_a_row_damaged_in_the_middle_is_not_cut_off(tmp_path: Path, texts: Path) -> None:
    """What follows it has been paid for: nothing is touched."""
    out = tmp_path / "out"
    written(out, texts).close()
    out.write_bytes(damaged := b"nonsense\n" + b"".join(ROWS))
    with pytest.raises(Conflict, match="row 1"):
        Journal(out, origin(texts))
    assert out.read_bytes() == damaged


def test_no_run_goes_on_with_something_else(tmp_path: Path, texts: Path) -> None:
    """Other options, another file, a changed one, an output of somebody else's; unless it is to begin again."""
    out = tmp_path / "out"
    written(out, texts).close()
    with pytest.raises(Conflict, match="was begun by"):
        Journal(out, origin(texts, labels=["A", "B"]))
    texts.write_text("one\nTWO\nthree\n")
    with pytest.raises(Conflict, match="not what"):
        Journal(out, origin(texts))
    (other := tmp_path / "other").write_text("mine\n")
    with pytest.raises(Conflict, match="not the output"):
        Journal(other, origin(texts))
    assert other.read_text() == "mine\n"
    journal = Journal(out, origin(texts, labels=["A", "B"]), restart=True)
    assert (journal.done, out.stat().st_size) == (0, 0)
    journal.close()


def test_more_texts_may_be_added(tmp_path: Path, texts: Path) -> None:
    """A file that has grown is gone on with."""
    written(tmp_path / "out", texts).close()
    with texts.open("a") as file:
        file.write("four\n")
    journal = Journal(tmp_path / "out", origin(texts))
    assert journal.done == 2
    journal.close()


def test_two_runs_do_not_write_one_output(tmp_path: Path, texts: Path) -> None:
    """The second one says so."""
    journal = written(tmp_path / "out", texts)
    with pytest.raises(Conflict, match="another run"):
        Journal(tmp_path / "out", origin(texts))
    journal.close()


def test_an_output_that_cannot_be_a_journal_is_refused(tmp_path: Path, texts: Path) -> None:
    """A place that does not exist, a device."""
    for out in (tmp_path / "nowhere" / "out", Path("/dev/null"), tmp_path):
        with pytest.raises(InvalidRequest):
            Journal(out, origin(texts))


def test_good_rows_are_settled_and_failed_ones_are_not(tmp_path: Path, texts: Path) -> None:
    """What has no row yet is a text, too."""
    journal = written(tmp_path / "out", texts)
    items = [Item(1, "one"), Item(2, "two"), Item(3, "three")]
    assert list(journal.settled(iter(items))) == [Item(1, row=ROWS[0]), *items[1:]]
    retry = Journal(tmp_path / "out.retry", origin(texts))
    retry.replace(journal)
    retry.close()
    journal.close()
    assert {path.name for path in tmp_path.iterdir()} == {"texts.txt", "out", "out.run.json"}


def test_a_disk_that_is_full_keeps_what_is_whole(tmp_path: Path, texts: Path, disk_of: Callable[[int], None]) -> None:
    """The row that did not fit is cut off by the next run, which goes on with it."""
    out, size = tmp_path / "out", len(b"".join(ROWS))
    written(out, texts).close()
    journal = Journal(out, origin(texts))
    disk_of(size + 5)
    with pytest.raises(OSError, match="File too large"):
        journal.append(b'{"id":3}\n', Written(id=3))
    journal.close()
    assert (journal.done, out.stat().st_size) == (2, size + 5)
    disk_of(10**6)
    journal = Journal(out, origin(texts))
    assert (journal.done, journal.last_id) == (2, 2)
    journal.append(b'{"id":3}\n', Written(id=3))
    journal.close()
    assert out.read_bytes() == b"".join(ROWS) + b'{"id":3}\n'


def test_a_disk_that_is_full_at_the_start_is_one_clear_error(
    tmp_path: Path, texts: Path, disk_of: Callable[[int], None]
) -> None:
    """Not even the file that says what the output is of can be written."""
    disk_of(10)
    with pytest.raises(CannotWrite, match="File too large"):
        Journal(tmp_path / "out", origin(texts))


@pytest.fixture
def disk_of() -> Iterator[Callable[[int], None]]:
    """Makes the disk full once a file has so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
