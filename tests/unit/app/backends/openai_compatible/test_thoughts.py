"""Thoughts left in a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.openai_compatible.messages import ThoughtFilter, without_thoughts

PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<th", "ink>", "</thi", "nk>", " ", "\n", "Yes", "<", ">", "ö"])
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Yes.", "Yes."),
        ("  Yes.", "  Yes."),
        ("<think>hm</think>Yes.", "Yes."),
        ("\n<think>\n\n</think>\n\nYes.", "Yes."),
        ("<think>hm <think> again</think>Yes.", "Yes."),
        ("<think>never done", ""),
        ("<thi", "<thi"),
        ("<thinking>is hard</thinking>", "<thinking>is hard</thinking>"),
        ("The tag <think> opens a thought</think>.", "The tag <think> opens a thought</think>."),
        ("", ""),
        ("Let me see\n</think>\n\nForty-two.", "Forty-two."),
        ("</think>Yes.", "Yes."),
        ("Write\n</think>\nafter <think>.", "after <think>."),
        ("A block ends with `</think>`.", "A block ends with `</think>`."),
        ("A block is <think>\n</think>.", "A block is <think>\n</think>."),
    ],
)
def test_only_a_leading_thought_is_left_out(text: str, shown: str) -> None:
    """A thought at the beginning goes, with the space around it; tags further on are words."""
    assert without_thoughts(text) == shown


@given(PIECES, st.booleans())
def test_pieces_show_what_the_whole_shows(pieces: list[str], opened: bool) -> None:
    """However a text is cut, the shown pieces make up what is shown of the whole."""
    cut, whole = ThoughtFilter(opened=opened), ThoughtFilter(opened=opened)
    shown = "".join([cut.feed(piece) for piece in pieces] + [cut.end()])
    assert shown == whole.feed("".join(pieces)) + whole.end()


@pytest.mark.parametrize(
    ("pieces", "cut", "shown"),
    [
        (("Let me", " see</th", "ink>\n", "\nYes."), False, "Yes."),
        (("<think>again</think>", "Yes."), False, "Yes."),
        (("Yes", "."), False, "Yes."),
        (("Let me", " see"), True, ""),
    ],
)
def test_a_thought_that_the_prompt_began_waits_for_its_end(pieces: tuple[str, ...], cut: bool, shown: str) -> None:
    """A model that answers at once is shown in the end; one that was cut in its thought has said nothing."""
    thoughts = ThoughtFilter(opened=True)
    assert "".join([thoughts.feed(piece) for piece in pieces] + [thoughts.end(cut=cut)]) == shown


def test_nothing_waits_where_the_server_tells_thoughts_apart() -> None:
    """Once a thought came in a field of its own, text is text."""
    thoughts = ThoughtFilter(opened=True)
    thoughts.separated()
    assert thoughts.feed("Yes.") == "Yes."


@given(st.text().filter(lambda text: not text.lstrip().startswith("<")))
def test_a_text_without_thoughts_is_untouched(text: str) -> None:
    """What does not begin with a tag comes out as it went in."""
    assert without_thoughts(text) == text
