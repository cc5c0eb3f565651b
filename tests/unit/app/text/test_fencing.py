"""The mark that a stranger cannot know."""

from itertools import chain, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.text.fencing import FENCE_LENGTH, check_fence, draw_fence, fence_of, neutralise, random_fence


def test_a_fence_that_a_text_holds_is_drawn_again() -> None:
    """In either case of its letters, and also where it stands inside a word."""
    draws = iter(["abcdefgh", "ijklmnop", "qrstuvwx"])
    assert draw_fence(["an abcdefgh", "xIJKLMNOPx"], lambda: next(draws)) == "qrstuvwx"


@given(st.lists(st.text(alphabet="ab", max_size=20), max_size=5))
def test_a_drawn_fence_stands_in_no_text(texts: list[str]) -> None:
    """Even if the letters are few."""
    draws = chain(("a" * size for size in range(1, 12)), repeat("c"))
    check_fence(draw_fence(texts, lambda: next(draws)), texts)


def test_fences_are_letters_and_differ() -> None:
    """A hundred of them are a hundred different ones."""
    fences = {random_fence() for _ in range(100)}
    assert len(fences) == 100
    assert all(len(fence) == FENCE_LENGTH and fence.isalpha() and fence.islower() for fence in fences)


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
