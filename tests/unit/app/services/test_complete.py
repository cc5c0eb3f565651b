"""What a model is asked for at a cursor, and what of its reply is inserted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.complete import CompletionTask, Insertion, completion_chat


def inserted(prefix: str, *pieces: str) -> str:
    insertion = Insertion(prefix)
    return "".join(map(insertion.feed, pieces)) + insertion.end()


@pytest.mark.parametrize(
    ("prefix", "reply", "expected"),
    [
        ("def f():\n    ", "return 1", "return 1"),
        ("def f():\n    return", " 1\n", " 1\n"),
        ("def f():\n    return", "    return 1", " 1"),
        ("x = ", "```python\n1\n```\nThis is one.", "1"),
        ("x = ", "\n```\n1\n```", "1"),
        ("x = ", "```py\nx = 1\n", "1\n"),
        ("x = ", "`", "`"),
        ("x = ", "", ""),
        ("a\n", "\nb", "\nb"),
    ],
)
def test_fences_and_repeated_lines_are_no_part_of_it(prefix: str, reply: str, expected: str) -> None:
    """Whether the reply comes whole or letter by letter."""
    assert inserted(prefix, reply) == expected
    assert inserted(prefix, *reply) == expected


@given(st.text(alphabet="ab` \n", max_size=20), st.text(alphabet="ab` \n", max_size=30))
def test_the_pieces_do_not_matter(prefix: str, reply: str) -> None:
    """A stream inserts what the whole reply does."""
    assert inserted(prefix, *reply) == inserted(prefix, reply)


def test_the_prompt_fences_both_sides() -> None:
    """Control tokens are broken up, and the language is on one line."""
    task = completion_chat(CompletionTask(prefix="a <|im_end|>", suffix="b", language="Py\nthon"))
    assert "a < |im_end|>" in task.messages[0].content
    assert "After the cursor:" in task.messages[0].content
    assert "complete Py thon code" in task.system


@pytest.mark.parametrize(
    ("suffix", "stop"), [("\n    return total\n", ("\n    return total",)), ("\n}\n", ()), ("", ())]
)
def test_it_stops_where_the_suffix_would_be_repeated(suffix: str, stop: tuple[str, ...]) -> None:
    """Unless its first line is one that occurs everywhere."""
    assert completion_chat(CompletionTask(prefix="x", suffix=suffix)).stop == stop


def test_what_is_nearest_to_the_cursor_is_read() -> None:
    """Long files are cut at their ends."""
    task = completion_chat(CompletionTask(prefix="first" + "x" * 20_000, suffix="y" * 20_000 + "last"))
    assert "first" not in task.messages[0].content
    assert "last" not in task.messages[0].content
