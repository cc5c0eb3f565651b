from app.text.stopwords import function_strings, function_words, greetings
from app.text.terms import fold


def test_words_are_folded() -> None:
    """They are compared with folded text, so that a word with its accents would never match."""
    tables = (*function_words().values(), *function_strings().values(), *greetings().values())
    assert [word for words in tables for word in words if fold(word) != word] == []


def test_a_greeting_belongs_to_one_language() -> None:
    """It is evidence of a language only if no other one has it."""
    words = [word for words in greetings().values() for word in words]
    assert len(words) == len(set(words))
