"""Questions within a conversation."""

import pytest

from app.answering.rewrite import understand
from app.backends.base import ChatRequest, FinishReason, Reply
from app.domain import Query, Question, TokenCount, Turn
from app.errors import BudgetExceeded, UpstreamTimeout, WinnowError

pytestmark = pytest.mark.anyio

TURNS = (Turn("user", "Who built the Eiffel Tower?"), Turn("assistant", "Gustave Eiffel's company."))


class Rewording:
    """Says this of every question; an error is raised."""

    def __init__(self, said: str | WinnowError, finish_reason: FinishReason = "stop") -> None:
        self._said, self._finish_reason = said, finish_reason
        self.asked: list[ChatRequest] = []

    async def __call__(self, request: ChatRequest) -> Reply:
        self.asked.append(request)
        if isinstance(self._said, WinnowError):
            raise self._said
        return Reply(text=self._said, finish_reason=self._finish_reason, tokens=TokenCount(), model="m")


def question(text: str, turns: tuple[Turn, ...] = TURNS) -> Question:
    return Question(search=Query(text=text), messages=turns)


@pytest.mark.parametrize(
    "said", ["When was the Eiffel Tower built?", ' "When was the  Eiffel Tower built?"\nI put in the name.']
)
async def test_a_follow_up_is_reworded(said: str) -> None:
    """The first line of the reply, without the marks around it, is what is looked for; a warning tells."""
    found = await understand(question("and when?"), Rewording(said))
    assert found.standalone == found.reading.text == "When was the Eiffel Tower built?"
    assert found.warnings == ("The question was read as: When was the Eiffel Tower built?",)
    assert "eiffe" in found.reading.terms


@pytest.mark.parametrize(
    ("text", "turns"),
    [("and when?", ()), ("Who painted the Mona Lisa?", TURNS), ("and when?", (Turn("user", "and when?"),))],
)
async def test_nobody_is_asked_where_it_is_not_needed(text: str, turns: tuple[Turn, ...]) -> None:
    """No turns, or a question that stands by itself, costs nothing."""
    rewording = Rewording("?")
    found = await understand(question(text, turns), rewording)
    assert (rewording.asked, found.standalone, found.reading.text, found.warnings) == ([], "", text, ())


async def test_a_question_that_comes_back_as_it_was_is_left_alone() -> None:
    """The model thought that nothing was missing."""
    found = await understand(question("and when?"), Rewording("and when?"))
    assert (found.standalone, found.reading.text, found.warnings) == ("", "and when?", ())


@pytest.mark.parametrize(
    ("rewording", "code"),
    [
        (Rewording(UpstreamTimeout("gemma", "slow")), "timeout"),
        (Rewording(BudgetExceeded("all is spent")), "over_budget"),
        (Rewording(" \n"), "bad_reply"),
        (Rewording("When " * 400), "bad_reply"),
        (Rewording("When was the", "length"), "bad_reply"),
    ],
)
async def test_what_fails_leaves_it_to_the_rules(rewording: Rewording, code: str) -> None:
    """The request goes on with the question before it, and says so."""
    found = await understand(question("and when?"), rewording)
    assert found.reading.text == "and when? Who built the Eiffel Tower?"
    assert found.standalone == ""
    assert [code in found.warnings[0], "previous" in found.warnings[1]] == [True, True]


async def test_without_a_model_the_rules_decide() -> None:
    """As the extractive answerer has it."""
    assert (await understand(question("and when?"), None)).reading.leans_back
