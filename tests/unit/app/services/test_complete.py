"""What a model is asked for at a cursor, and what of its reply is inserted."""

import pytest

from app.services.complete import CompletionTask, completion_chat


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
