"""The questions of `benchmarks.asked`."""

import pytest

from benchmarks.asked import AskedQuestion, load

SET = load()
ANSWERED = [question for question in SET.questions if question.answer]


@pytest.mark.parametrize("question", ANSWERED, ids=lambda question: question.ask)
def test_a_document_has_the_answer(question: AskedQuestion) -> None:
    """As it is spelled, with what would be wrong somewhere else."""
    assert any(question.answer in text for text in SET.documents.values())
    assert not any(wrong in question.answer for wrong in question.wrong)
    assert all(any(wrong in text for text in SET.documents.values()) for wrong in question.wrong)


def test_there_are_as_many_questions_without_an_answer() -> None:
    """Nearly, in all three languages and in both parts."""
    for language in ("en", "de", "zh"):
        for held_out in (False, True):
            part = [q for q in SET.questions if (q.language, q.held_out) == (language, held_out)]
            answered = sum(bool(question.answer) for question in part)
            assert abs(answered - len(part) / 2) <= 1
    assert len(SET.questions) == 80
