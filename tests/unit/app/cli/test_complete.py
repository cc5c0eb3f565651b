"""Where the cursor of `winnow complete` stands."""

from pathlib import Path

import pytest
import rich_click as click

from app.cli.complete import at_cursor

CODE = "def f(x):\r\n    return \n\nprint(f(1))\n"


@pytest.mark.parametrize(
    ("cursor", "before", "after"),
    [
        ("2", "def f(x):\r\n    return ", "\n\nprint(f(1))\n"),
        ("1", "def f(x):", "\r\n    return \n\nprint(f(1))\n"),
        ("1:5", "def ", "f(x):\r\n    return \n\nprint(f(1))\n"),
        ("3:1", "def f(x):\r\n    return \n", "\nprint(f(1))\n"),
        ("5", CODE, ""),
    ],
)
def test_the_text_is_cut_at_the_cursor(tmp_path: Path, cursor: str, before: str, after: str) -> None:
    """Before a column, at the end of a line, and below the last one; a folder's colon is no line."""
    path = tmp_path / "a:1" / "code.py"
    path.parent.mkdir()
    path.write_bytes(CODE.encode())
    assert at_cursor(f"{path}:{cursor}") == (path, before, after)


@pytest.mark.parametrize(
    ("cursor", "problem"),
    [
        ("code.py", "is not FILE:LINE"),
        ("code.py:0", "is not FILE:LINE"),
        ("code.py:6", "has 5 lines, and no line 6"),
        ("code.py:1:11", "line 1 of code.py has 9 characters, and no column 11"),
        ("gone.py:1", "gone.py cannot be read: No such file"),
    ],
)
def test_a_cursor_that_stands_nowhere_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cursor: str, problem: str
) -> None:
    """With what there is instead."""
    monkeypatch.chdir(tmp_path)
    Path("code.py").write_bytes(CODE.encode())
    with pytest.raises(click.UsageError, match=problem):
        at_cursor(cursor)
