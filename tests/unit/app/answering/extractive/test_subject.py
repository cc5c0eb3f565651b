import pytest

from app.answering.extractive.evidence import split
from app.answering.extractive.subject import about, following, of_attribute, of_its_bearer
from app.answering.questions import parse_question
from app.domain import Hit, Turn
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


PLAN = "For crowns the plan pays 60 percent. For braces it pays 400 dollars a year."
CROWNS = (
    Turn("user", "What does the plan pay for crowns?"),
    Turn("assistant", "For crowns the plan pays 60 percent [1]."),
)


def followed(question: str, text: str, turns: tuple[Turn, ...] = CROWNS) -> list[str]:
    """The sentences that may answer the follow-up."""
    return [sentence.text for sentence in following(parse_question(question, turns), split([hit(text)]))]


def test_a_follow_up_is_about_the_thing_that_it_names() -> None:
    """Which the sentence names, or the heading above it; another one is no answer."""
    assert followed("And for braces?", PLAN) == ["For braces it pays 400 dollars a year."]
    assert followed("And for implants?", PLAN) == []
    assert followed("What about braces?", "## Braces\n\nThe plan pays half.\n\n## Crowns\n\nIt pays all.") == [
        "The plan pays half."
    ]


def test_what_was_said_is_no_answer_to_what_is_asked_then() -> None:
    """Whatever the follow-up is."""
    assert followed("Why?", PLAN) == ["For braces it pays 400 dollars a year."]
    assert followed("And who does it?", PLAN) == ["For braces it pays 400 dollars a year."]


def test_what_was_said_is_said_again_if_it_answers() -> None:
    """It has the words of the follow-up, or a time when that is asked for."""
    turns = (
        Turn("user", "To whom was the invoice sent?"),
        Turn("assistant", "It was sent to Ibis on 3 May and paid [1]."),
    )
    text = "It was sent to Ibis on 3 May and paid."
    assert followed("And when?", text, turns) == [text]
    assert followed("And was it paid?", text, turns) == [text]
    assert followed("And why?", text, turns) == []


def test_a_question_that_stands_alone_may_be_answered_as_before() -> None:
    """Even if it is the same question."""
    assert len(followed("What does the plan pay for crowns and for braces?", PLAN)) == 2
    assert len(followed("What does the plan pay for crowns?", PLAN)) == 2


RESERVOIRS = "青石水库的总库容为1.2亿立方米。大坝高85米。白河水库的建造费用为32亿元。"


@pytest.mark.parametrize(
    ("question", "text", "left"),
    [
        ("水库的建造费用是多少？", RESERVOIRS, ["白河水库的建造费用为32亿元。"]),
        ("How much did the bridge cost?", "It is 312 metres long. It opened in 1974.", []),
        ("How much did the bridge cost?", "It was paid for with 3 million dollars.", 1),
        ("How much did the bridge cost?", "The cost was high. It came to 3 million.", 2),
        (
            "Wie hoch ist die Miete?",
            "Der Saal ist 5 Meter hoch. Die Miete beträgt 40 Euro.",
            ["Die Miete beträgt 40 Euro."],
        ),
        ("Why did the bridge cost so much?", "It is 312 metres long.", 1),
        ("The connection to whom is lost when E5 is reported?", "E5: connection to Pine Street lost.", 1),
        ("population of Nagoya?", "The address is 1-8 Sakae, Nagoya.", []),
    ],
)
def test_what_is_told_is_the_attribute_that_is_asked_for(question: str, text: str, left: list[str] | int) -> None:
    """By its name or in its units; or else no other one, right after its name."""
    found = [sentence.text for sentence in of_attribute(parse_question(question), split([hit(text)]), [""])]
    assert found == left or len(found) == left


def of_the_thing(question: str, *texts: str) -> list[str]:
    sentences = split([hit(text, number) for number, text in enumerate(texts)])
    return [sentence.text for sentence in of_its_bearer(parse_question(question), sentences, texts)]


def test_what_a_thing_costs_is_in_a_passage_that_has_the_thing() -> None:
    """The costs of other things are no answer, whatever else is asked of them."""
    texts = ("Development cost 410,000 euros.", "The kettle is green. It costs 49 euros.")
    assert of_the_thing("What does a kettle cost?", *texts) == ["The kettle is green.", "It costs 49 euros."]
    assert of_the_thing("What does a toaster cost?", *texts) == []
    assert len(of_the_thing("What is a toaster?", *texts)) == 3


def test_a_passage_in_another_language_may_have_the_thing_by_another_name() -> None:
    """Nothing is known of it."""
    text = "Der Wasserkocher kostet 49 Euro, und die Lieferung ist frei."
    assert of_the_thing("What does a kettle cost?", text) == [text]
