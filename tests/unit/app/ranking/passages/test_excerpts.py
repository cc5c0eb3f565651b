"""The sentences of a text that speak most about a query."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.backends.base import BYTES_PER_TOKEN, tokens_of
from app.ranking.passages import QueryTerms, excerpt

FILLER = "Our company was founded long ago and has many friends in all parts of the country. "
ANSWER = "Parcels to Norway take nine days. "
QUERY = "How long do parcels take to Norway?"


def shown(query: str, text: str, tokens: int) -> str:
    return excerpt(QueryTerms(query), text, tokens)


def sentences(text: str) -> list[str]:
    return [f"{sentence}." for part in text.split(" … ") for sentence in part.removesuffix(".").split(". ")]


@pytest.mark.parametrize("before", [0, 1, 10, 30, 60])
def test_the_answer_is_shown(before: int) -> None:
    """Wherever it stands, in whole sentences."""
    text = FILLER * before + ANSWER + FILLER * (60 - before)
    found = shown(QUERY, text, 60)
    assert ANSWER.strip() in found
    assert set(sentences(found)) == {ANSWER.strip(), FILLER.strip()}
    assert 30 <= tokens_of(found) <= 60


def test_a_short_text_stays_as_it_is() -> None:
    """To the last space."""
    assert shown(QUERY, f" {ANSWER}\n", 60) == f" {ANSWER}\n"


def test_long_words_weigh_more() -> None:
    """They are the rare ones; so do numbers, whatever their length."""
    text = "How do they do it, and how? " + FILLER * 20 + "Fjords freeze. " + FILLER * 20 + "It took 7. " + FILLER * 20
    assert "Fjords" in shown("how do they do fjords", text, 40)
    assert "took 7" in shown("how do they do 7", text, 40)


def test_several_words_weigh_more_than_one_often() -> None:
    """A sentence with the whole question in it wins over one that repeats a word."""
    text = "Norway, Norway, Norway. " * 3 + FILLER * 20 + ANSWER + FILLER * 20
    assert ANSWER.strip() in shown(QUERY, text, 40)


def test_scripts_without_spaces_are_cut_between_sentences() -> None:
    """Counting characters, not words."""
    text = "公司成立于很久以前，有很多朋友。" * 30 + "寄往挪威的包裹需要九天。" + "今天天气很好，我们去公园。" * 30
    found = shown("寄往挪威的包裹需要多久？", text, 60)
    assert "寄往挪威的包裹需要九天。" in found
    assert found.endswith("。")
    assert all(part in text for part in found.split(" … "))
    assert tokens_of(found) <= 60


def test_accents_and_case_make_no_difference() -> None:
    """The query without accents finds the text with them."""
    text = FILLER * 20 + "LA RÉPUBLIQUE est proclamée à Genève. " + FILLER * 20
    assert "RÉPUBLIQUE" in shown("republique geneve", text, 40)


def test_letters_that_fold_to_two_shift_nothing_much() -> None:
    """Places are scaled to the text, so that the mention's sentence is still shown."""
    text = "Maßstäbe, Größe, Straße, Fuß, weiß. " * 60 + "Ein Paket nach Norwegen. " + "Maßstäbe, Größe, Straße. " * 60
    assert "Norwegen" in shown("Paket Norwegen", text, 60)


def test_without_a_mention_the_head_stays() -> None:
    """As with a question in another language."""
    text = "First sentence of it. " + FILLER * 20
    assert shown("Доставка", text, 40).startswith("First sentence of it.")
    assert shown("", text, 40).startswith("First sentence of it.")


def test_a_text_without_borders_is_cut_anyway() -> None:
    """Between characters."""
    text = "x" * 2_000 + "norway" + "x" * 2_000
    assert 0 < tokens_of(shown("norway", text, 20)) <= 20


def test_what_is_shown_already_counts_less() -> None:
    """One half of the question does not crowd out the other."""
    text = "Parcels come by ship, parcels. " * 5 + FILLER * 5 + "Norway has fjords. " + FILLER * 5
    found = shown("parcels Norway", text, 40)
    assert "Parcels come" in found
    assert "Norway has fjords." in found


def test_gaps_are_marked() -> None:
    """Where sentences are left out between others, and only there."""
    text = f"{ANSWER}{FILLER * 10}Norway is far. {FILLER * 10}"
    assert shown("parcels Norway", text, 14) == f"{ANSWER.strip()} … Norway is far."


def test_a_neighbour_of_what_the_query_says_comes_before_a_stranger() -> None:
    """The answer often stands beside the words of the question."""
    text = f"{FILLER * 5}How long do parcels to Norway take? Nine days. {FILLER * 5}"
    assert shown(QUERY, text, 13).endswith("take? Nine days.")


@given(st.text(max_size=400), st.text(max_size=60), st.integers(1, 40))
def test_all_that_is_shown_is_in_the_text_and_small_enough(text: str, query: str, tokens: int) -> None:
    """Whatever text and query are; and something is shown of everything that can be seen."""
    assume("…" not in text)
    text = text.strip()
    found = shown(query, text, tokens)
    assert tokens_of(found) <= tokens
    assert all(part in text for part in found.split(" … "))
    assert bool(found) == bool(text)


@given(st.text(alphabet="abc é中文。. \n", max_size=300), st.text(alphabet="abc 中文", max_size=20))
def test_mentions_are_where_they_are_said_to_be(text: str, query: str) -> None:
    """In order, inside the text, each a term of the query."""
    query_terms = QueryTerms(query)
    mentions = query_terms.mentions(text)
    assert [place for place, _ in mentions] == sorted(place for place, _ in mentions)
    assert all(0 <= place < len(text) and term < len(query_terms.terms) for place, term in mentions)
    assert query_terms.terms_in(text) == {term for _, term in mentions}


def test_a_word_is_not_found_inside_another() -> None:
    """Only where it begins; characters of unspaced scripts anywhere."""
    query_terms = QueryTerms("rate 挪威")
    assert [query_terms.terms[term] for _, term in query_terms.mentions("separate rates")] == ["rate"]
    assert query_terms.terms_in("在挪威") != frozenset()


def test_a_text_of_exactly_so_many_tokens_stays_as_it_is() -> None:
    """One token less, and it is cut."""
    text = f" {ANSWER}\n{FILLER}\n"
    assert shown(QUERY, text, tokens_of(text)) == text
    assert shown(QUERY, text, tokens_of(text) - 1) == ANSWER.strip()


def test_a_sentence_that_just_fits_is_shown() -> None:
    """Though it takes every byte that so many tokens have."""
    fits = f"Norway lies {'x' * (10 * BYTES_PER_TOKEN - len('Norway lies . '))}. "
    assert shown("Norway", fits + FILLER * BYTES_PER_TOKEN, 10) == fits.strip()


ASKED = "How long do parcels to Norway take? "


def test_a_neighbour_on_either_side_needs_no_gap() -> None:
    """So that it fits where the mark of a gap would not; and it comes before what is further away."""
    text = f"Ten men. Nine days. {ASKED}{FILLER * 5}"
    assert shown(QUERY, text, 12) == f"Nine days. {ASKED.strip()}"


def test_what_stands_further_off_is_no_neighbour() -> None:
    """Where the neighbours are too long, the first of all others is shown, wherever it stands."""
    beside = "Our company has many friends in all other lands. "
    text = f"Six cats. {beside * 5}Ten men. {beside}{ASKED}{beside}Ten men. {beside * 5}"
    assert shown(QUERY, text, 13) == f"Six cats. … {ASKED.strip()}"


def test_a_word_at_the_beginning_of_a_text_counts() -> None:
    """Nothing stands before it."""
    assert QueryTerms("rate").terms_in("rates rise") == {0}
