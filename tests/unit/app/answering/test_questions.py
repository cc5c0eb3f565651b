"""Questions, alone and within a conversation."""

import pytest

from app.answering.questions import parse_question, resolve_question
from app.backends.base import ChatRequest, FinishReason, Reply
from app.domain import Query, Question, TokenCount, Turn
from app.errors import BudgetExceeded, UpstreamTimeout, WinnowError

pytestmark = pytest.mark.anyio

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
    assert parse_question(question).answer_type == answer_type


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
    assert parse_question(question).terms.keys() == about


@pytest.mark.parametrize("follow_up", ["When was it built?", "and when?", "Why?", "What about its height?"])
def test_a_question_that_cannot_stand_alone_is_read_with_the_previous_one(follow_up: str) -> None:
    """An elliptic question borrows the terms of the user's last turn, never of the assistant's."""
    parsed = parse_question(follow_up, TURNS)
    assert parsed.uses_previous
    assert parsed.text == f"{follow_up} Who built the Eiffel Tower?"
    assert {"eiffe", "tower"} <= parsed.terms.keys()
    assert "compa" not in parsed.terms


@pytest.mark.parametrize("question", ["When does dental cover start?", "Who is Tesla?"])
def test_a_question_that_stands_alone_is_read_alone(question: str) -> None:
    """Earlier turns do not dilute a complete question."""
    assert parse_question(question, TURNS) == parse_question(question)


def test_the_answer_type_is_that_of_the_follow_up() -> None:
    """Who built it was answered; now a time is asked for."""
    assert parse_question("and when?", TURNS).answer_type == "time"


def test_without_an_earlier_question_there_is_nothing_to_lean_on() -> None:
    """A client that repeats the question as the last turn, or sends no user turn, changes nothing."""
    assert not parse_question("and when?", (Turn("user", "and when?"), Turn("assistant", "It was 1889."))).uses_previous


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
    assert not parse_question(question, TURNS).stands_alone
    assert parse_question(question).stands_alone
    assert parse_question(question, (Turn("user", f" {question} "),)).stands_alone


@pytest.mark.parametrize("question", ["Who is Marie Curie?", "How many days of parental leave do fathers get?"])
def test_a_question_with_a_subject_of_its_own_needs_nobody(question: str) -> None:
    """A name, or enough words."""
    assert parse_question(question, TURNS).stands_alone


class Rewording:
    """Replies this to every request; raises it if it is an error."""

    def __init__(self, reply: str | WinnowError, finish_reason: FinishReason = "stop") -> None:
        self._reply, self._finish_reason = reply, finish_reason
        self.requests: list[ChatRequest] = []

    async def __call__(self, request: ChatRequest) -> Reply:
        self.requests.append(request)
        if isinstance(self._reply, WinnowError):
            raise self._reply
        return Reply(text=self._reply, finish_reason=self._finish_reason, tokens=TokenCount(), model="m")


def question(text: str, turns: tuple[Turn, ...] = TURNS) -> Question:
    return Question(search=Query(text=text), messages=turns)


@pytest.mark.parametrize(
    "said", ["When was the Eiffel Tower built?", ' "When was the  Eiffel Tower built?"\nI put in the name.']
)
async def test_a_follow_up_is_reworded(said: str) -> None:
    """The first line of the reply, without the marks around it, is what is looked for; a warning tells."""
    parsed, warnings = await resolve_question(question("and when?"), Rewording(said))
    assert parsed.standalone == parsed.text == "When was the Eiffel Tower built?"
    assert warnings == ("The question was read as: When was the Eiffel Tower built?",)
    assert "eiffe" in parsed.terms


@pytest.mark.parametrize(
    ("text", "turns"),
    [("and when?", ()), ("Who painted the Mona Lisa?", TURNS), ("and when?", (Turn("user", "and when?"),))],
)
async def test_nobody_is_asked_where_it_is_not_needed(text: str, turns: tuple[Turn, ...]) -> None:
    """No turns, or a question that stands by itself, costs nothing."""
    rewording = Rewording("?")
    parsed, warnings = await resolve_question(question(text, turns), rewording)
    assert (rewording.requests, parsed.standalone, parsed.text, warnings) == ([], "", text, ())


async def test_a_question_that_comes_back_as_it_was_is_left_alone() -> None:
    """The model thought that nothing was missing."""
    parsed, warnings = await resolve_question(question("and when?"), Rewording("and when?"))
    assert (parsed.standalone, parsed.text, warnings) == ("", "and when?", ())


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
    parsed, warnings = await resolve_question(question("and when?"), rewording)
    assert parsed.text == "and when? Who built the Eiffel Tower?"
    assert parsed.standalone == ""
    assert [code in warnings[0], "previous" in warnings[1]] == [True, True]


async def test_without_a_model_the_rules_decide() -> None:
    """As the extractive answerer has it."""
    parsed, warnings = await resolve_question(question("and when?"), None)
    assert parsed.uses_previous
    assert warnings == ("The question was read together with the previous one.",)


PLAN = (Turn("user", "What does the plan pay for crowns?"), Turn("assistant", "60 percent."))


@pytest.mark.parametrize(
    "follow_up", ["And for braces?", "What about braces?", "Und für Zahnspangen?", "Et les couronnes ?", "那补牙呢？"]
)
def test_a_follow_up_may_name_another_thing(follow_up: str) -> None:
    """The same is asked of it."""
    parsed = parse_question(follow_up, PLAN)
    assert parsed.follow_up is not None
    assert parsed.follow_up.another
    assert parsed.follow_up.said == "60 percent."


@pytest.mark.parametrize(
    "follow_up", ["And when?", "What about its height?", "And how are they paid?", "And the price?"]
)
def test_a_follow_up_may_ask_something_else_of_the_same_thing(follow_up: str) -> None:
    """It has a question word, refers back, or names an attribute."""
    parsed = parse_question(follow_up, PLAN)
    assert parsed.follow_up is not None
    assert not parsed.follow_up.another


def test_follow_ups_in_a_row_go_back_to_the_question_that_stands_alone() -> None:
    """What was named between does not count where another thing is named, and counts where it is asked about."""
    turns = (*PLAN, Turn("user", "And for braces?"), Turn("assistant", "400 dollars."))
    assert parse_question("And for fillings?", turns).text == "And for fillings? What does the plan pay for crowns?"
    assert parse_question("How often is it?", turns).text == (
        "How often is it? And for braces? What does the plan pay for crowns?"
    )


def test_a_follow_up_has_no_words_of_its_own_that_are_function_words_where_it_follows() -> None:
    """A name may make its language look like another one."""
    parsed = parse_question("And in Löbau?", (Turn("user", "Who is the head of the site in Zittau?"),))
    assert parsed.follow_up is not None
    assert parsed.follow_up.terms == {"lobau"}
