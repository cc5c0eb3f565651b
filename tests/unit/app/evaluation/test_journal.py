"""What stands a kill."""

from pathlib import Path

import pytest

from app.errors import InvalidRequest
from app.evaluation.runner import Journal, Record


def test_what_was_appended_is_there_again(tmp_path: Path) -> None:
    """In order; and nothing when a fresh start is asked for."""
    journal = Journal(tmp_path / "new" / "j.jsonl", Record)
    assert journal.begin(fresh=False) == []
    records = [Record(id="a"), Record(id="zwei\n", error="timeout")]
    for record in records:
        journal.append(record)
    assert journal.begin(fresh=False) == records
    assert journal.begin(fresh=True) == []
    assert journal.begin(fresh=False) == []


def test_a_torn_line_is_forgotten(tmp_path: Path) -> None:
    """What a kill cut off is taken away, so that the next record has a line of its own."""
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"id":"a"}\n{"id":"b"')
    journal = Journal(path, Record)
    assert journal.begin(fresh=False) == [Record(id="a")]
    journal.append(Record(id="c"))
    assert journal.begin(fresh=False) == [Record(id="a"), Record(id="c")]


def test_something_else_is_not_taken_for_a_journal(tmp_path: Path) -> None:
    """The error says how to go on."""
    path = tmp_path / "j.jsonl"
    path.write_bytes(b"hello\n")
    with pytest.raises(InvalidRequest, match="--fresh"):
        Journal(path, Record).begin(fresh=False)
    assert Journal(path, Record).begin(fresh=True) == []
