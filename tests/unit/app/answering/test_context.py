from hypothesis import given
from hypothesis import strategies as st

from app.answering.prompts import clip, estimate_tokens, pack
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


WORDS = st.lists(st.sampled_from(["Dental", "cover.", "牙科。", "It", "is free!", "\n\n", "x" * 40, " "]), max_size=20)


@given(st.lists(WORDS.map(" ".join), max_size=5), st.integers(1, 200))
def test_the_best_passages_are_packed_within_the_budget(texts: list[str], budget: int) -> None:
    """What is packed is a beginning of the hits, the last one perhaps cut; its sentences are all that it holds."""
    hits = [hit(text, number, start=100) for number, text in enumerate(texts)]
    sources = pack(hits, budget)
    assert [source.number for source in sources] == list(range(1, len(sources) + 1))
    assert bool(sources) == bool(hits)
    for source, whole in zip(sources, hits, strict=False):
        text = source.hit.text or ""
        assert (whole.text or "").startswith(text)
        assert source.hit.end == source.hit.start + len(text)
        assert "".join(text.split()) == "".join("".join(text[s.start : s.end].split()) for s in source.sentences)
        assert len(text) == len(whole.text or "") or source is sources[-1]
    shown = [source.hit.text or "" for source in sources]
    assert len(sources) <= 1 or sum(map(estimate_tokens, shown)) <= budget


def test_a_passage_that_does_not_fit_is_cut_after_a_sentence_and_nothing_follows() -> None:
    """A worse passage never goes in where a part of a better one was left out."""
    hits = [hit("Dental cover. It is free.", 0), hit("One sentence. And another one.", 1), hit("c", 2)]
    assert [one.hit.text for one in pack(hits, 70)] == ["Dental cover. It is free.", "One sentence."]


def test_of_the_first_passage_there_is_always_something() -> None:
    """Even a sentence longer than the budget, cut between words; nobody is asked about nothing."""
    [source] = pack([hit("Dental cover starts on the first day", 0), hit("It is free.", 1)], 25)
    assert source.hit.text == "Dental cover"
    [source] = pack([hit("牙" * 50, 0)], 1)
    assert source.hit.text == "牙"


def test_a_passage_without_words_has_no_sentences() -> None:
    """Blank texts are packed as they are, and cost nothing."""
    assert [source.sentences for source in pack([hit(" \n", 0)], 100)] == [()]


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
