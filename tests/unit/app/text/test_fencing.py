"""The mark that a stranger cannot know."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.text.fencing import FENCE_LENGTH, check_fence, draw_fence, fence_of, fencing, neutralise


def test_the_same_texts_have_the_same_fence() -> None:
    """Under the same secret, which may be this process's; texts cut elsewhere are other texts."""
    ours, theirs = fencing("a secret of the tests"), fencing("another one of the tests")
    assert (
        len({ours(["query", "text"]) for _ in range(10)} | {fencing("a secret of the tests")(["query", "text"])}) == 1
    )
    fences = {ours(["query", "text"]), ours(["quer", "ytext"]), theirs(["query", "text"]), fencing()(["query", "text"])}
    assert len(fences) == 4
    assert draw_fence(["a"]) == draw_fence(iter(["a"]))


def test_a_fence_that_a_text_holds_is_drawn_again() -> None:
    """In either case of its letters, and also where it stands inside a word."""
    assert fencing("a secret of the tests", length=1)(["abcdefghIJKLM", "noPqrstuvwxy"]) == "z"


@given(st.lists(st.text(max_size=20), max_size=5))
def test_fences_are_letters_and_stand_in_no_text(texts: list[str]) -> None:
    """Whatever the texts are, lone surrogates among them."""
    fence = draw_fence(texts)
    check_fence(fence, texts)
    assert len(fence) == FENCE_LENGTH
    assert fence.isalpha()
    assert fence.islower()


@pytest.mark.parametrize("fence", ["", "abc"])
def test_a_broken_fence_is_refused(fence: str) -> None:
    """One that is empty or stands in a text."""
    with pytest.raises(ValueError, match="fence"):
        check_fence(fence, ["x abc y"])


@given(st.text())
def test_the_fence_of_a_text_is_the_same_each_time_and_not_in_it(text: str) -> None:
    """Nor in what a model sees of the text: an invisible character must not hide one."""
    fence = fence_of(text)
    assert fence == fence_of(text)
    assert fence.isalpha()
    assert fence not in neutralise(text)
    hidden = f"{text}{fence[:4]}\u2060{fence[4:]}"
    assert fence_of(hidden) not in neutralise(hidden)
