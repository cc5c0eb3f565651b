import pytest

from app.answering.extractive.evidence import split
from app.answering.extractive.subject import about
from app.domain import Hit
from tests.fakes.answering import hit

LIST = "Invoice 4711 went to Hansen. It was paid late. Invoice 4712 went to Ibis. It was paid at once."


def kept(question: str, *texts: str, title: str = "") -> list[str]:
    """The sentences that may be about the question."""
    hits: list[Hit] = [hit(text, number, title=title) for number, text in enumerate(texts)]
    sentences = split(hits)
    named = about(question, sentences, [" ".join((hit.title, *hit.heading)) for hit in hits])
    return [sentence.text for sentence, is_about in zip(sentences, named, strict=True) if is_about]


def test_a_passage_about_another_number_does_not_count() -> None:
    """However alike it is."""
    texts = ("Invoice 4711 went to Hansen.", "Invoice 4712 went to Ibis.")
    assert kept("To whom did invoice 4712 go?", *texts) == ["Invoice 4712 went to Ibis."]
    assert kept("To whom did invoice 9999 go?", *texts) == []


def test_each_code_has_its_sentence_and_those_after_it() -> None:
    """Up to the next code of the same kind."""
    assert kept("To whom did invoice 4712 go?", LIST) == ["Invoice 4712 went to Ibis.", "It was paid at once."]
    assert kept("To whom did invoice 4711 go?", LIST) == ["Invoice 4711 went to Hansen.", "It was paid late."]


def test_the_title_is_about_the_whole_passage() -> None:
    """The sentences need not repeat it."""
    assert kept("Who signed contract K-7731?", "Hansen signed. It rained.", title="Contract K-7731") == [
        "Hansen signed.",
        "It rained.",
    ]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("Who led the Panthers in 2015?", "Kuechly led the Panthers in tackles."),
        ("Who sang at Super Bowl 50?", "Lady Gaga sang the national anthem."),
        ("Who ruled in the 16th century?", "Charles ruled."),
        ("What are the 3 colours?", "The colours are red, green and blue."),
        ("Who left?", "Nobody left in 1999."),
    ],
)
def test_years_ordinals_and_small_numbers_may_be_left_to_the_context(question: str, text: str) -> None:
    """As most passages do."""
    assert kept(question, text) == [text]


def test_a_year_binds_where_another_one_stands_in_its_place() -> None:
    """Invoice 2024 is an invoice, not a year."""
    assert kept("To whom did invoice 2024 go?", "Invoice 2371 went to Hansen.") == []


def test_prices_and_dates_are_compared_by_value() -> None:
    """However they are written."""
    assert kept("Whose offer comes to 1,234.50 euros?", "Das Angebot von Ibis: 1.234,50 Euro.")
    assert kept("Was geschah am 3. Mai 2024?", "2024-05-03: the lease was renewed.")
    assert not kept("Was geschah am 3. Mai 2024?", "2024-05-04: the lease was renewed.")
