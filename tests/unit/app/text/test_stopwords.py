import pytest

from app.text.stopwords import attributes_asked, attributes_told, function_strings, function_words, greetings
from app.text.terms import fold


def test_words_are_folded() -> None:
    """They are compared with folded text, so that a word with its accents would never match."""
    tables = (*function_words().values(), *function_strings().values(), *greetings().values())
    assert [word for words in tables for word in words if fold(word) != word] == []


def test_a_greeting_belongs_to_one_language() -> None:
    """It is evidence of a language only if no other one has it."""
    words = [word for words in greetings().values() for word in words]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("question", "attributes"),
    [
        ("how much did the tunnel cost?", {"cost"}),
        ("was kostet ein kilo mirabellen?", {"cost"}),
        ("wie hoch ist die miete fur den saal?", {"cost"}),
        ("白河水库的建造费用是多少？", {"cost"}),
        ("population of nagoya?", {"population"}),
        ("how many employees are there in gorlitz?", {"staff"}),
        ("wie hoch ist die staumauer?", {"height"}),
        ("大坝有多高？", {"height"}),
        ("which file is attached to the mail?", {"attachment"}),
        ("to which mail is it attached?", set()),
        ("why did it cost so much?", set()),
        ("who did the parliament rent buildings from?", set()),
    ],
)
def test_an_attribute_is_asked_for_by_its_own_questions(question: str, attributes: set[str]) -> None:
    """Not by every question with its word."""
    assert attributes_asked(question) == attributes


@pytest.mark.parametrize(
    ("sentence", "attributes"),
    [
        ("it came to 48 million dollars.", {"cost"}),
        ("青石水库的总库容为1.2亿立方米。", {"capacity"}),
        ("die staumauer ist 58 meter hoch.", {"height"}),
        ("it was opened by the mayor.", set()),
    ],
)
def test_an_attribute_is_told_by_its_name_or_its_units(sentence: str, attributes: set[str]) -> None:
    """In whatever language."""
    assert attributes_told(sentence) == attributes
