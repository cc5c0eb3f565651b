"""Codes that questions name."""

import pytest

from app.answering.named_codes import named_codes, without_replaced


@pytest.mark.parametrize(
    ("earlier", "question", "left"),
    [
        ("To whom was invoice 4712 sent?", "And invoice 4713?", "To whom was invoice  sent?"),
        ("An wen ging die Rechnung 4712?", "Und die 4713?", "An wen ging die Rechnung ?"),
        ("What did AB-7234 cost in 2024?", "And AB-5678?", "What did  cost in 2024?"),
        ("What was invoice 4712 in 2014?", "And in 2015?", "What was invoice 4712 in ?"),
    ],
)
def test_a_follow_up_has_its_own_code_instead(earlier: str, question: str, left: str) -> None:
    """Of the same kind: by the word before it, or else by its form."""
    assert without_replaced(earlier, question) == left


@pytest.mark.parametrize(
    "question", ["And when was it sent?", "And invoice 4712?", "And the second one?", "And in 2015?"]
)
def test_what_is_not_replaced_stays(question: str) -> None:
    """With its spelling, if the follow-up names no code at all."""
    assert without_replaced("To whom was invoice 4712 sent?", question) == "To whom was invoice 4712 sent?"


def test_places_are_those_of_the_normalized_text() -> None:
    """[start, end)."""
    (code,) = named_codes("Invoice \uff14\uff17\uff11\uff12.")
    assert (code.start, code.end, code.anchor) == (8, 12, "invoi")


@pytest.mark.parametrize("text", ["AB-1234", "ab-2024", "INV2024", "4712", "192.168.1.1", "1,234", "E-1999"])
def test_a_code_binds_though_its_digits_look_like_a_year(text: str) -> None:
    """What it has beside them tells it apart."""
    assert [code.binding for code in named_codes(f"What is {text} about?")] == [True]


@pytest.mark.parametrize("text", ["1999", "2024", "1990s", "mid-1990s", "pre-1950", "50", "16th", "the 3 colours"])
def test_years_ordinals_and_small_numbers_do_not_bind(text: str) -> None:
    """Alone."""
    assert [code.binding for code in named_codes(f"What was {text} about?")] == [False]
