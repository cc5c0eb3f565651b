import pytest

from app.answering.questions import read
from app.domain import Turn

TURNS = (Turn("user", "Who built the Eiffel Tower?"), Turn("assistant", "Gustave Eiffel's company."))


@pytest.mark.parametrize(
    ("question", "answer_type"),
    [
        ("How many days of leave do I get?", "quantity"),
        ("Wie viele Tage Urlaub habe ich?", "quantity"),
        ("¿Cuántos días de vacaciones tengo?", "quantity"),
        ("这座桥有多少米？", "quantity"),
        ("How fast may a forklift go?", "quantity"),
        ("What voltage does it need?", "quantity"),
        ("What is the maximum speed?", "quantity"),
        ("Wie schnell darf man fahren?", "quantity"),
        ("保修期是多久？", "quantity"),
        ("When was it built?", "time"),
        ("In what year did the war end?", "time"),
        ("这座桥哪一年建成？", "time"),
        ("Who built the bridge?", "name"),
        ("Où se trouve le pont ?", "name"),
        ("Wer hat die Brücke gebaut?", "name"),
        ("Why was the bridge built?", None),
        ("Explain the policy.", None),
    ],
)
def test_the_question_word_tells_what_shape_the_answer_has(question: str, answer_type: str | None) -> None:
    """Numbers, dates and names are asked for by their own words, in each language by its own."""
    assert read(question).answer_type == answer_type


@pytest.mark.parametrize(
    ("question", "about"),
    [
        ("How fast may a forklift go?", {"forkl"}),
        ("In which year was the bridge built?", {"bridg", "built"}),
        ("What is the speed of the train?", {"speed", "train"}),
        ("How long?", {"long"}),
    ],
)
def test_the_words_that_ask_are_not_looked_for(question: str, about: set[str]) -> None:
    """An answer seldom repeats "how fast"; a question of nothing else keeps its words."""
    assert read(question).terms.keys() == about


@pytest.mark.parametrize("follow_up", ["When was it built?", "and when?", "Why?", "What about its height?"])
def test_a_question_that_cannot_stand_alone_is_read_with_the_previous_one(follow_up: str) -> None:
    """An elliptic question borrows the terms of the user's last turn, never of the assistant's."""
    reading = read(follow_up, TURNS)
    assert reading.leans_back
    assert reading.text == f"{follow_up} Who built the Eiffel Tower?"
    assert {"eiffe", "tower"} <= reading.terms.keys()
    assert "compa" not in reading.terms


@pytest.mark.parametrize("question", ["When does dental cover start?", "Who is Tesla?"])
def test_a_question_that_stands_alone_is_read_alone(question: str) -> None:
    """Earlier turns do not dilute a complete question."""
    assert read(question, TURNS) == read(question)


def test_the_answer_type_is_that_of_the_follow_up() -> None:
    """Who built it was answered; now a time is asked for."""
    assert read("and when?", TURNS).answer_type == "time"


def test_without_an_earlier_question_there_is_nothing_to_lean_on() -> None:
    """A client that repeats the question as the last turn, or sends no user turn, changes nothing."""
    assert not read("and when?", (Turn("user", "and when?"), Turn("assistant", "It was 1889."))).leans_back


@pytest.mark.parametrize(
    "question",
    [
        "and when?",
        "Why?",
        "What does the price of its repair in the year after the storm depend on?",
        "How long?",
        "Was kostet der Eintritt?",
        "什么时候开始？",
    ],
)
def test_a_question_that_may_need_its_conversation_is_no_question_by_itself(question: str) -> None:
    """Few words of its own, or one that points somewhere: whoever can reword it had better do so."""
    assert not read(question, TURNS).stands_alone
    assert read(question).stands_alone
    assert read(question, (Turn("user", f" {question} "),)).stands_alone


@pytest.mark.parametrize("question", ["Who is Marie Curie?", "How many days of parental leave do fathers get?"])
def test_a_question_with_a_subject_of_its_own_needs_nobody(question: str) -> None:
    """A name, or enough words."""
    assert read(question, TURNS).stands_alone
