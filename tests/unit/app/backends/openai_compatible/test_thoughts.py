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
    ],
)
def test_only_a_leading_thought_is_left_out(text: str, shown: str) -> None:
    """A thought at the beginning goes, with the space around it; tags further on are words."""
    assert without_thoughts(text) == shown


@given(PIECES)
def test_pieces_show_what_the_whole_shows(pieces: list[str]) -> None:
    """However a text is cut, the shown pieces make up what is shown of the whole."""
    thoughts = ThoughtFilter()
    shown = "".join([thoughts.feed(piece) for piece in pieces] + [thoughts.end()])
    assert shown == without_thoughts("".join(pieces))


@given(st.text().filter(lambda text: not text.lstrip().startswith("<")))
def test_a_text_without_thoughts_is_untouched(text: str) -> None:
    """What does not begin with a tag comes out as it went in."""
    assert without_thoughts(text) == text
