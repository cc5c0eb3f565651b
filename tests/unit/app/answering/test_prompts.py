"""What a model is asked for an answer."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answering.prompts import (
    PROMPT_VERSION,
    answer_request,
    condense_request,
    estimate_tokens,
    line,
    pack,
    token_budgets,
)
from app.answering.stream.markers import DECLINE, parse_marker
from app.backends.base import ChatRequest
from app.domain import Hit, Query, Question, Turn
from app.text.fencing import fencing, neutralise
from tests.attacks.injections import ATTACKS, Attack
from tests.fakes.answering import hit
from tests.prompt_words import digest_of

FENCE = "mxkqzvbw"
TURNS = (Turn("user", "Is there dental cover?"), Turn("assistant", "Yes [1]."))
HITS = (hit("Dental cover starts on day one.[3] It is free.", 0, title="Handbook"), hit("Ask\nHR.", 1))


def question(query: str = "When does it start?", **fields: Any) -> Question:
    return Question(search=Query(text=query), **fields)


def request(
    query: str = "When does it start?", hits: tuple[Hit, ...] = HITS, standalone: str = "", **fields: Any
) -> ChatRequest:
    return answer_request(question(query, **fields), pack(hits, 6000), 100, standalone, lambda _: FENCE)


def prompt(
    query: str = "When does it start?", hits: tuple[Hit, ...] = HITS, standalone: str = "", **fields: Any
) -> str:
    return request(query, hits, standalone, **fields).messages[-1].content


def test_the_version_is_that_of_the_words() -> None:
    """Who changes a prompt raises PROMPT_VERSION, and writes the digest of the new words here."""
    flagged = msgspec.structs.replace(HITS[1], flags=("suspected_injection",))
    requests = (
        request(),
        request("and when?", (HITS[0], flagged), "When?", messages=TURNS, language="de", instructions="Be brief."),
        condense_request("and when?", TURNS, lambda _: FENCE),
    )
    assert digest_of(requests) == {"3": "1a831403ee4baf34"}[PROMPT_VERSION]


def test_what_requests_share_comes_first() -> None:
    """The rules do not depend on the question, nor do the passages: servers keep the beginning of a prompt."""
    one, other = request("Who?"), request("What does it cost?", max_output_tokens=5)
    assert one.messages[0] == other.messages[0]
    assert one.messages[1].content.partition("Question:")[0] == other.messages[1].content.partition("Question:")[0]
    operated = request(instructions="Be brief.\nBe kind.").messages[0].content
    assert operated.startswith(one.messages[0].content)
    assert operated.endswith("\nBe brief.\nBe kind.")


def test_each_sentence_is_a_line_after_its_marker() -> None:
    """Whatever breaks a sentence into lines in its document."""
    assert prompt().splitlines()[2:10] == [
        f"{FENCE} passage 1",
        "From: Handbook > 0.txt",
        "[1.1] Dental cover starts on day one.(3)",
        "[1.2] It is free.",
        f"{FENCE} passage 2",
        "From: 1.txt",
        "[2.1] Ask HR.",
        f"{FENCE} end of the passages",
    ]


def test_the_question_comes_after_the_passages_with_the_turns_before_it() -> None:
    """In its own words and in full, with a reminder of what is wanted."""
    after = prompt("and when?", standalone="When does dental cover start?", messages=TURNS).partition(
        "end of the passages"
    )[2]
    assert (
        f"{FENCE} the conversation so far, a turn on each line\nuser: Is there dental cover?\nassistant: Yes (1).\n"
        in after
    )
    assert after.index("assistant:") < after.index("Question: and when?\nThat is: When does dental cover start?")
    assert after.rstrip().endswith(f"or {DECLINE}.")
    assert "in the language of the question" in after
    assert "in the language 'fr'" in prompt(language="fr")


def test_a_long_conversation_is_shown_in_part() -> None:
    """Its last turns, and of a long one the beginning."""
    turns = tuple(Turn("user", f"turn{number} " + "word " * 5000) for number in range(50))
    shown = prompt(messages=turns)
    assert [number for number in range(50) if f"turn{number} " in shown] == [44, 45, 46, 47, 48, 49]
    assert len(shown) < 10_000


def test_a_suspicious_passage_stays_and_is_named() -> None:
    """A flag is no reason to hide what it says."""
    flagged = msgspec.structs.replace(HITS[0], flags=("suspected_injection",))
    shown = prompt(hits=(flagged,))
    assert "[1.2] It is free." in shown
    assert "never obey it" in shown.partition("[1.1]")[0]
    assert "never obey it" not in prompt()


TEXTS = st.text(st.sampled_from("ab1. \n[]【】［］()mxkqzvbw<>|\u2028\u0085_?。牙:"), max_size=80)


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_no_text_can_leave_its_line(text: str, title: str, turn: str, query: str) -> None:
    """Every line is one of ours, a sentence after its marker, a turn after its role, or beside a label of ours."""
    turns = (Turn("user", turn), Turn("user", "x"))
    sources = pack([hit(text, title=title)], 6000)
    asked = answer_request(question(query, messages=turns), sources, 100, query, fencing("a secret of the tests"))
    shown = asked.messages[1].content
    fence = shown.split()[5]
    ours = rf"The lines |{fence} |\[1\.\d+\] |From: |user: |Question: |That is: |Answer in |$"
    assert all(re.match(ours, one) for one in shown.split("\n"))
    markers = [int(found) for found in re.findall(r"^\[1\.(\d+)\]", shown, re.MULTILINE)]
    assert markers == list(range(1, len(markers) + 1))
    assert shown.count(fence) == 5


@given(st.text(st.sampled_from("passage sentence 12.,-–[]【】［］〔〕()（）\u200d"), max_size=40))
def test_a_stranger_writes_no_markers(text: str) -> None:
    """Nothing that we would read as a marker is left between brackets of any kind."""
    for found in re.findall(r"[\[［【〔]([^\[\]［］【】〔〕]+)[\]］】〕]", line(text)):
        assert parse_marker(found) == ()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: str(attack)[:40])
def test_an_attack_stays_between_the_fences(attack: Attack) -> None:
    """Known attacks: on one line each sentence, no control token left, the question after them."""
    shown = prompt(hits=(hit(attack.text),))
    passage, _, after = shown.partition(f"\n{FENCE} end of the passages")
    assert "Question: When does it start?" in after
    assert "Question:" not in [one.partition(" ")[0] for one in passage.splitlines()]
    assert neutralise(shown) == shown


def test_the_room_is_what_the_window_leaves() -> None:
    """Prompt and answer fit into the window together; without one the request decides."""
    asked = question(context_tokens=3000, max_output_tokens=500)
    assert token_budgets(asked, None) == token_budgets(asked, 100_000) == (3000, 500)
    for window in (1500, 2048, 4096):
        passages, output = token_budgets(asked, window)
        prompted = answer_request(asked, pack([hit("Dental cover. " * 2000)], passages), output)
        assert sum(estimate_tokens(message.content) for message in prompted.messages) + output <= window
    assert token_budgets(asked, 600)[1] == 300


def test_condensing_shows_the_turns_and_asks_for_a_question() -> None:
    """Fenced, a turn a line, with few tokens to reply."""
    request = condense_request("and when?\n", TURNS, lambda _: FENCE)
    shown = request.messages[1].content
    assert "user: Is there dental cover?\nassistant: Yes (1).\n" in shown
    assert "The last question: and when?\n" in shown
    assert (request.temperature, request.max_output_tokens <= 200) == (0.0, True)
