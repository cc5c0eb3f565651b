import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.text.terms import LONGEST_REMEMBERED, content_terms, fold, occurrences, remembered_terms, terms


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Élan", "elan"),
        ("STRASSE", "straße"),
        ("ﬁre", "fire"),
        ("２０１６", "2016"),
        ("한국", "한국"),
        ("Wert\u00ad\u200bpapier", "wertpapier"),
    ],
)
def test_spellings_of_a_word_fold_to_one(one: str, other: str) -> None:
    """Case, accents, ligatures, full-width forms and soft hyphens make no difference."""
    assert fold(one) == fold(other)


def test_inflected_words_share_their_term() -> None:
    """Words are compared by their beginning."""
    assert content_terms("invented", "en").keys() == content_terms("inventing", "en").keys() <= terms("inventions")


@pytest.mark.parametrize(("one", "other"), [("last", "lasts"), ("day", "days"), ("week", "weeks"), ("año", "años")])
def test_short_words_share_their_term_with_their_plural(one: str, other: str) -> None:
    """The ending that truncation leaves on short words is taken off."""
    assert terms(one) == terms(other)


def test_numbers_are_compared_whole() -> None:
    """Numbers that begin alike are not alike."""
    assert terms("1234567") != terms("1234599")


def test_function_and_question_words_are_not_content() -> None:
    """What is left of a question is what it is about."""
    assert content_terms("When was the bridge built?", "en").keys() == {"bridg", "built"}
    assert content_terms("Wann wurde die Brücke gebaut?", "de").keys() == {"bruck", "gebau"}


def test_chinese_is_compared_by_pairs_without_its_question_words() -> None:
    """Unspaced scripts yield pairs of neighbouring characters, none of them across a question word."""
    assert content_terms("玩家用什么泡封敌人？", "zh").keys() == {"玩家", "家用", "泡封", "封敌", "敌人"}


def test_function_words_are_known_with_their_accents() -> None:
    """Accents and breves in a question do not hide its function words."""
    assert content_terms("Какой мост был построен?", "ru").keys() == {"мост", "постр"}
    assert content_terms("à quel âge est-il né ?", "fr").keys() == {"age"}


def test_a_compound_offers_what_it_is_made_of() -> None:
    """A word inside a longer one is found by its own stem, marked as a part."""
    [kin] = content_terms("Gebühren", "de").values()
    assert any(near <= terms("Versandgebühren") for near in kin)
    assert not any(near <= terms("Versandkosten") for near in kin)


def test_a_compound_in_the_question_is_found_in_its_parts() -> None:
    """And the parts of a compound in the question are near it."""
    [kin] = content_terms("Versandgebühren", "de").values()
    assert any(near <= terms("Gebühren") for near in kin)


def test_a_pair_of_characters_is_near_where_both_stand_apart() -> None:
    """Pairs across the border of two words are seldom found again, their characters are."""
    kin = content_terms("死于瘟疫", "zh")["于瘟"]
    assert any(near <= terms("死于巴黎的瘟疫") for near in kin)
    assert not any(near <= terms("死于巴黎") for near in kin)


def test_voiced_kana_stay_voiced() -> None:
    """What looks like an accent to Unicode is another letter in Japanese."""
    assert fold("ガ") != fold("カ")


def test_words_with_vowel_signs_are_found_again() -> None:
    """Scripts whose vowels are combining signs share terms between inflections, and not with other words."""
    assert terms("हिन्दी") & terms("हिन्दीभाषा")
    assert not terms("हिन्दी") & terms("கடல்")


def test_a_question_of_question_words_is_about_nothing() -> None:
    """There may be no content at all."""
    assert content_terms("why is that so?", "en").keys() == set()


@given(st.text())
def test_what_a_question_is_about_is_among_its_terms(text: str) -> None:
    """In a language without tables the content terms of a text are some of its terms."""
    assert content_terms(text, "xx").keys() <= terms(text)


@given(st.text())
def test_folding_twice_changes_nothing_for_terms(text: str) -> None:
    """Terms do not depend on whether a text was folded before."""
    assert terms(fold(text)) == terms(text)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("dental cover", ["Dental", "dental"]),
        ("牙科保险", ["牙科", "保险"]),
        ("牙科和", ["牙科和"]),
        ("plan", ["plans"]),
        ("boats", []),
        ("Wertpapierdepot", ["Wert\u00adpapier\u00addepot"]),
    ],
)
def test_occurrences_are_whole_words_and_runs_of_characters(query: str, expected: list[str]) -> None:
    """A word counts whole; in a script without spaces each pair counts, and overlapping pairs are one stretch."""
    text = "Dental plans, dentistry; 牙科和保险 dental Wert\u00adpapier\u00addepot"
    assert [text[start:end] for start, end in occurrences(text, terms(query))] == expected


def test_what_is_remembered_is_bounded() -> None:
    """A long word has as many parts as letters: it is taken apart each time, and alike."""
    remembered_terms.cache_clear()
    short, long = "donaudampfschifffahrtskapitaen", "schifffahrts" * 300
    assert len(short) < LONGEST_REMEMBERED < len(long)
    assert {"donau", "~kapit"} <= terms(short)
    assert {"schif", "~fahrt"} <= terms(long)
    assert remembered_terms.cache_info().currsize == 1
