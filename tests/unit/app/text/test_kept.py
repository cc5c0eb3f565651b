"""What a translation has to keep, and what is named when it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.text.kept import Loss, additions, has_prose, losses, terms_in


@pytest.mark.parametrize(
    ("kind", "mark"),
    [
        ("placeholder", "{name}"),
        ("placeholder", "{0}"),
        ("placeholder", "{}"),
        ("placeholder", "%s"),
        ("placeholder", "%1$s"),
        ("placeholder", "%.2f"),
        ("placeholder", "%(count)d"),
        ("placeholder", "%USER%"),
        ("placeholder", "{{x}}"),
        ("placeholder", "${x}"),
        ("placeholder", "{% if a %}"),
        ("placeholder", "{count, plural"),
        ("markup", "</b>"),
        ("markup", "&nbsp;"),
        ("markup", "~~"),
        ("link", "https://example.com/a?b=1"),
        ("link", "help@example.com"),
        ("code", "`rm -r`"),
        ("number", "1,234.56"),
    ],
)
def test_what_is_lost_is_named(kind: str, mark: str) -> None:
    """By its kind and as it stood in the text; where it is kept nothing is."""
    text = f"Open {mark} now."
    assert losses(text, "Jetzt öffnen.") == (Loss(kind, mark),)  # type: ignore[arg-type]
    assert losses(text, f"Jetzt {mark} öffnen.") == ()


def test_each_occurrence_counts() -> None:
    """A placeholder that is there once of twice was lost once; emphasis has two ends."""
    assert losses("{a} and {a}", "{a} und a") == (Loss("placeholder", "{a}"),)
    assert losses("**Now** or never", "Jetzt oder nie") == (Loss("markup", "**"), Loss("markup", "**"))


@pytest.mark.parametrize(
    ("text", "translation"),
    [
        ("It costs 1,234.56 euros", "Es kostet 1.234,56 Euro"),
        ("on 12/31/2024", "am 31.12.2024"),
        ("1,234,567 people", "1234567 Menschen"),
        ("room 05", "Zimmer 5"),
        ("2 of 3", "٢ من ٣"),
        ("100% sure", "100 % sicher"),
        ("50% off", "50 % Rabatt"),
    ],
)
def test_numbers_may_be_written_as_the_language_does(text: str, translation: str) -> None:
    """Separators, their order, leading zeros and the script's digits are no loss."""
    assert losses(text, translation) == ()


@pytest.mark.parametrize("translation", ["Es kostet 1.234 Euro", "Es kostet 1.234,65 Euro", "Es kostet 6 Euro"])
def test_another_number_is_a_loss(translation: str) -> None:
    """A cut or a changed one is not the number."""
    assert losses("It costs 1,234.56 euros", translation) == (Loss("number", "1,234.56"),)


def test_a_tag_may_have_a_title_in_another_language_but_leads_where_it_led() -> None:
    """Attributes that are text may change; where a link leads may not."""
    text = '<a href="/a" title="Home">Home</a>'
    assert losses(text, '<a href="/a" title="Start">Start</a>') == ()
    assert losses(text, '<a href="/b" title="Start">Start</a>') == (Loss("link", "/a"),)


def test_lines_that_are_joined_are_a_loss() -> None:
    """It says how many there were and are."""
    assert losses("one\ntwo\n\nthree", "eins zwei\n\ndrei") == (Loss("lines", "4 lines became 3"),)


def test_a_term_that_was_not_used_is_a_loss() -> None:
    """Only of words that the text has, at the beginning of a word, in whatever case."""
    glossary = {"policy": "Police", "cat": "Katze", "保险": "Versicherung"}
    text = "Policies and the policy; concatenate"
    assert terms_in(text, glossary) == {"policy": "Police"}
    assert terms_in("我的保险到期了", glossary) == {"保险": "Versicherung"}
    assert losses(text, "Verträge", glossary) == (Loss("term", "Police"),)
    assert losses(text, "die POLICEN", glossary) == ()


def test_a_link_that_the_text_does_not_have_is_an_addition() -> None:
    """Links and placeholders; other words may come and go."""
    assert additions("Call us", "Ruf uns an: http://evil.example") == (Loss("link", "http://evil.example"),)
    assert additions("Call {us}", "Ruf {us} an") == ()


@pytest.mark.parametrize(("text", "expected"), [("{a} 12 <b></b> `x`", False), ("", False), ("ja", True), ("你", True)])
def test_a_text_without_words_needs_no_translation(text: str, expected: bool) -> None:
    """Marks and numbers are no words."""
    assert has_prose(text) is expected


@given(st.text(alphabet="ab1.,%{}<>/&;`*[]()# \n-$:ß٣", max_size=60))
def test_a_text_keeps_all_of_itself(text: str) -> None:
    """Whatever it is."""
    assert losses(text, text) == ()
    assert additions(text, text) == ()
