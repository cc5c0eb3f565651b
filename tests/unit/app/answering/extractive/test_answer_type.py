import pytest

from app.answering.extractive.evidence import shape_feature
from app.answering.questions import parse_question

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("How many days of leave do I get?", "You get 25 days."),
        ("How many children had she?", "She had three children."),
        ("Wie viele Kinder hatte sie?", "Sie hatte fünf Kinder."),
        ("When did the war end?", "The war ended in 1945."),
        ("When does the office open?", "It opens in March."),
        ("Who built the bridge?", "The bridge was built by Isambard Brunel."),
        ("这座桥哪一年建成？", "1889年建成。"),
        ("这座桥有多少人？", "三十人。"),
    ],
)
def test_a_sentence_with_the_thing_asked_for_is_a_clue_for_it(question: str, sentence: str) -> None:
    """Numbers, dates and names count when the question asks for them."""
    assert shape_feature(parse_question(question), sentence) == 1


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("How many days of leave do I get?", "Ask your manager."),
        ("When did the war end?", "It ended badly."),
        ("Who built the bridge?", "It was built in haste."),
        ("How many died in 1945?", "Nobody counted them in 1945."),
    ],
)
def test_a_sentence_without_it_is_a_clue_against_it(question: str, sentence: str) -> None:
    """What the question itself already names is not an answer to it."""
    assert shape_feature(parse_question(question), sentence) == -1


def test_a_question_for_anything_gives_no_clue() -> None:
    """Why-questions may be answered by any shape of sentence."""
    assert shape_feature(parse_question("Why did it end?"), "It ended in 1945.") == 0
