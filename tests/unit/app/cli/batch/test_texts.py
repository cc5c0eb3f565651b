"""The texts of a file: lines, rows of JSON, tables; what is no text; and whether a file is still the same."""

from pathlib import Path

import pytest

from app.cli.batch.texts import Item, fingerprint, items_of, rest_of
from app.errors import Conflict, InvalidRequest


def items(path: Path, content: str | bytes, field: str = "text") -> list[Item]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(items_of(path, field))


def test_each_line_that_is_not_blank_is_a_text(tmp_path: Path) -> None:
    """Its number is its id; a byte order mark and the end of the line are no part of it."""
    found = items(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\n\n  two \n\xff\nlast")
    assert found[:2] == [Item(1, "one"), Item(3, "  two ")]
    assert found[2:] == [Item(4, problem="line 4 is not UTF-8"), Item(5, "last")]


def test_a_row_of_json_has_its_text_in_a_field(tmp_path: Path) -> None:
    """Or is the text; an id that the service would not take is replaced by the number of the line."""
    lines = [
        '{"id":"a","body":"one"}',
        '"two"',
        '{"id":true,"body":"three"}',
        '{"body":4}',
        "[1]",
        "nonsense",
        '{"id":9}',
    ]
    found = items(tmp_path / "a.jsonl", "\n".join(lines), "body")
    assert [(item.id, item.text) for item in found[:3]] == [("a", "one"), (2, "two"), (3, "three")]
    assert [item.id for item in found[3:]] == [4, 5, 6, 9]
    assert all(item.problem for item in found[3:])
    assert "--field" in found[3].problem


def test_a_column_of_a_table_has_the_texts(tmp_path: Path) -> None:
    """Quoted fields may hold line breaks; the column `id` names the rows, else their numbers do."""
    assert items(tmp_path / "a.csv", 'text,n\n"one\ntwo",1\nthree,2\n') == [Item(1, "one\ntwo"), Item(2, "three")]
    assert items(tmp_path / "a.tsv", "\ufeffid\tbody\nx\tone\n\ttwo\n", "body") == [Item("x", "one"), Item(2, "two")]


@pytest.mark.parametrize(
    "content",
    ["a,b\n1,2\n", b"text\n\xff\n", "", 'text\none\n"two\nthree\n'],
    ids=["no such column", "not UTF-8", "empty", "open quotation"],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, content: str | bytes) -> None:
    """Before anything is paid for."""
    with pytest.raises(InvalidRequest):
        items(tmp_path / "a.csv", content)


def test_a_text_that_is_too_long_is_a_problem_of_its_own(tmp_path: Path) -> None:
    """The service reads no longer lines."""
    found = items(tmp_path / "a.txt", f"{'x' * 250_000}\n{'x' * 200_000}\n{'ä' * 130_000}")
    assert [bool(item.problem) for item in found] == [True, False, True]
    assert [bool(item.problem) for item in items(tmp_path / "b.txt", "\x01" * 41_000 + "\n" + "\x01" * 42_000)] == [
        False,
        True,
    ]


def test_a_row_that_is_nested_too_deeply_is_a_problem_of_its_own(tmp_path: Path) -> None:
    """The others are texts."""
    found = items(tmp_path / "a.jsonl", '{"text":' + "[" * 100_000 + "]" * 100_000 + '}\n"two"\n')
    assert (found[0].problem, found[1]) == ("line 1 is nested too deeply", Item(2, "two"))


def test_a_file_begins_as_before_if_something_was_added(tmp_path: Path) -> None:
    """Not if something changed or is gone."""
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    before = fingerprint(path)
    assert before.begins(path)
    path.write_text("one\ntwo\nthree\n")
    assert before.begins(path)
    for other in ("one\nTwo\nthree\n", "one\n"):
        path.write_text(other)
        assert not before.begins(path)


def test_a_last_line_that_has_grown_is_not_as_before(tmp_path: Path) -> None:
    """What is written behind an unfinished line belongs to its text."""
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo")
    before = fingerprint(path)
    for content, same in (("one\ntwo", True), ("one\ntwo\nthree", True), ("one\ntwofold\n", False)):
        path.write_text(content)
        assert before.begins(path) is same
    path.write_text("")
    nothing = fingerprint(path)
    path.write_text("one")
    assert nothing.begins(path)


def test_the_rest_follows_what_is_done(tmp_path: Path) -> None:
    """If the last row of the output is of the text at that place."""
    path = tmp_path / "a.txt"
    path.write_text("one\n\ntwo\nthree\n")
    assert [item.text for item in rest_of(path, "text", 2, 3)] == ["three"]
    assert len(list(rest_of(path, "text", 0, None))) == 3
    for done, last_id in ((2, 2), (4, 5)):
        with pytest.raises(Conflict):
            rest_of(path, "text", done, last_id)
