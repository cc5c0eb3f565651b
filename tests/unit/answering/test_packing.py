from hypothesis import given
from hypothesis import strategies as st

from app.answering.packing import clip, estimate_tokens, pack
from tests.fakes.answering import hit

TEXTS = st.text(st.characters(exclude_categories=[]), max_size=60)


def test_a_chinese_character_counts_a_token_and_three_letters_too() -> None:
    """The estimate is by bytes, three to a token, rounded up."""
    assert (estimate_tokens("牙科保险"), estimate_tokens("dental"), estimate_tokens("den t"), estimate_tokens("")) == (
        4,
        2,
        2,
        0,
    )


@given(st.lists(TEXTS, max_size=8), st.integers(1, 60))
def test_the_best_passages_are_packed_within_the_budget(texts: list[str], budget: int) -> None:
    """What is packed is a beginning of the hits, and within the budget unless it is the first one alone."""
    hits = [hit(text, number) for number, text in enumerate(texts)]
    packed = pack(hits, budget)
    assert packed == tuple(hits[: len(packed)])
    assert len(packed) <= 1 or sum(estimate_tokens(one.text or "") for one in packed) <= budget
    assert bool(packed) == bool(hits)


def test_packing_stops_at_the_first_passage_that_does_not_fit() -> None:
    """A worse passage never goes in where a better one was left out."""
    hits = [hit("a" * 30, 0), hit("b" * 300, 1), hit("c" * 3, 2)]
    assert [one.id for one in pack(hits, 20)] == ["p0"]


@given(TEXTS.filter(lambda text: bool(text.strip())), st.integers(1, 30))
def test_a_clipped_text_is_a_beginning_within_the_budget(text: str, budget: int) -> None:
    """Clipping keeps a beginning, within the budget unless even one character is too much."""
    clipped = clip(text.strip(), budget)
    assert clipped
    assert text.strip().startswith(clipped)
    assert len(clipped) == 1 or estimate_tokens(clipped) <= budget


def test_a_text_is_clipped_between_words() -> None:
    """A cut falls into a gap if there is one."""
    assert clip("dental cover starts", 5) == "dental cover"
