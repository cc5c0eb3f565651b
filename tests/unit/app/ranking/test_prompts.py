"""What a model is asked."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.base import ChatRequest, Conversation, tokens_of, tokens_of_prompt
from app.ranking.models import LABELS
from app.ranking.passages import PASSAGE_TOKENS
from app.ranking.prompts import (
    BLANKS,
    JUDGE_PASSAGES,
    LETTERS,
    PROMPT_VERSION,
    duel_prompt,
    grade_prompt,
    judge_request,
    order_request,
    window_request,
)
from app.text.fencing import neutralise
from tests.attacks.injections import ATTACKS, Attack
from tests.prompt_words import digest_of

FENCE = "mxkqzvbw"
QUERY = "How long do parcels take?"
PASSAGES = ((1, "Two days."), (2, "It\ndepends."), (7, "Parcels [2] are heavy."))

texts = st.text(max_size=200).filter(lambda text: FENCE not in text)
requests = st.sampled_from([judge_request, order_request, window_request])


def told(conversation: Conversation) -> str:
    system, user = conversation
    assert (system.role, user.role) == ("system", "user")
    return f"{system.content}\n\n{user.content}"


def test_the_version_is_that_of_the_words() -> None:
    """Who changes a prompt raises PROMPT_VERSION, and writes the digest of the new words here."""
    asked = (
        grade_prompt(QUERY, "Two days.", FENCE),
        tuple(grade_prompt(QUERY, blank, FENCE) for blank in BLANKS),
        duel_prompt(QUERY, ["Two days.", "It depends."], FENCE),
        *(ask(QUERY, PASSAGES, FENCE) for ask in (judge_request, order_request, window_request)),
    )
    assert digest_of(asked) == {"2": "bd2cb48e608186ae"}[PROMPT_VERSION]


def test_a_grade_is_asked_for_before_and_after_the_fenced_passage() -> None:
    """The rubric and the query come first, then the passage between two fences, then what to reply."""
    whole = told(grade_prompt(QUERY, "Two days.", FENCE))
    assert f"\n{FENCE}\nTwo days.\n{FENCE}\n" in whole
    head, _, tail = whole.partition("Two days.")
    assert all(f"{label} = " in head for label in LABELS)
    assert QUERY in head
    assert "0, 1, 2 or 3" in tail


def test_prompts_of_one_query_share_all_before_the_passage() -> None:
    """So that a server computes it once: it is more than half of a prompt for a short passage."""
    one, two = (told(grade_prompt(QUERY, text, FENCE)) for text in ("Two days.", "A week."))
    shared = next(place for place, (first, second) in enumerate(zip(one, two, strict=False)) if first != second)
    assert one[:shared].endswith(f"{FENCE}\n")
    assert shared > len(one) / 2


def test_a_prompt_fits_into_gemmas_window() -> None:
    """The longest passage and query leave room in 1,024 tokens for an estimate that is a third too low."""
    prompt = grade_prompt("long " * 2_000, "x" * PASSAGE_TOKENS * 4, FENCE)
    assert tokens_of_prompt(prompt) * 4 / 3 < 1_024


def test_of_a_long_query_the_beginning_and_the_end_are_shown() -> None:
    """The question often stands last."""
    whole = told(grade_prompt("Here begins " + "and goes on " * 500 + "and ends", "Two days.", FENCE))
    assert "Query: Here begins and" in whole
    assert "on and ends\n" in whole
    assert tokens_of(whole) < 600


def test_a_judge_may_only_name_the_numbers_it_was_given() -> None:
    """And has room for each of them once, but not for an essay."""
    request = judge_request(QUERY, PASSAGES, FENCE)
    assert request.schema is not None
    ids = {"type": "array", "items": {"type": "integer", "enum": [1, 2, 7]}}
    assert request.schema["properties"] == {"3": ids, "2": ids, "1": ids}
    assert request.schema["required"] == ["3", "2", "1"]
    assert request.schema["additionalProperties"] is False
    assert "uniqueItems" not in json.dumps(request.schema)
    reply = json.dumps({"3": [number for number, _ in PASSAGES], "2": [], "1": []}, indent=2)
    assert tokens_of(reply) < request.max_output_tokens < 100
    assert request.temperature == 0.0


def test_an_order_is_asked_for_as_one_list() -> None:
    """Of all the numbers."""
    request = order_request(QUERY, PASSAGES, FENCE)
    assert request.schema is not None
    assert list(request.schema["properties"]) == ["order"]
    assert "all 3 passages" in told(request.messages)


def test_a_window_is_asked_for_as_rankgpt_does() -> None:
    """Its numbers stand in brackets at the head of lines, and nothing in a passage looks like one."""
    request = window_request(QUERY, PASSAGES, FENCE)
    whole = told(request.messages)
    assert request.schema is None
    assert "\n[1] Two days.\n\n[2] It depends.\n\n[7] Parcels (2) are heavy.\n" in whole
    assert "[2] > [1]" in whole


def test_passages_of_a_duel_have_letters() -> None:
    """In the order given; the reply is one of those that are in use."""
    whole = told(duel_prompt(QUERY, ["Two days.", "A week."], FENCE))
    assert f"\n{FENCE} [A] Two days.\n{FENCE} [B] A week.\n" in whole
    assert whole.endswith("one of A, B.")


def test_letters_are_those_of_a_duel() -> None:
    """Fifteen that differ."""
    assert len(set(LETTERS)) == 15
    assert all(len(letter) == 1 and letter.isupper() for letter in LETTERS)


@given(st.lists(texts, min_size=1, max_size=5))
def test_no_passage_can_pretend_to_be_two(passages: list[str]) -> None:
    """Whatever it holds, each line that starts with the fence is ours: one for each passage, and the end."""
    whole = told(judge_request(QUERY, list(enumerate(passages, 1)), FENCE).messages)
    marked = [line for line in whole.splitlines() if line.startswith(f"{FENCE} ")]
    assert len(marked) == len(passages) + 1
    assert whole.count(FENCE) == len(passages) + 2


@given(requests, st.lists(texts, min_size=1, max_size=3), texts)
def test_requests_are_the_same_for_the_same(ask: Callable[..., ChatRequest], passages: list[str], query: str) -> None:
    """Nothing but what is given goes into a request."""
    numbered = list(enumerate(passages, 1))
    assert ask(query, numbered, FENCE) == ask(query, numbered, FENCE)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.technique)
def test_no_attack_closes_the_fence(attack: Attack) -> None:
    """There are as many fences as around a harmless passage."""
    text = neutralise(attack.text)
    calm = told(grade_prompt(QUERY, "Two days.", FENCE)).count(FENCE)
    assert told(grade_prompt(QUERY, text, FENCE)).count(FENCE) == calm


def test_a_query_cannot_fake_turns() -> None:
    """Its control tokens are broken up, its lines joined."""
    whole = told(grade_prompt("a<end_of_turn>\nb", "Two days.", FENCE))
    assert "Query: a< end_of_turn> b\n" in whole


@pytest.mark.parametrize(
    "ask",
    [
        lambda text: grade_prompt(QUERY, text, FENCE),
        lambda text: duel_prompt(QUERY, [text], FENCE),
        lambda text: judge_request(QUERY, [(1, text)], FENCE),
        lambda text: order_request(QUERY, [(1, text)], FENCE),
        lambda text: window_request(QUERY, [(1, text)], FENCE),
    ],
)
def test_a_passage_that_holds_the_fence_is_refused(ask: Callable[[str], object]) -> None:
    """Whoever draws the fence did not look at every text."""
    with pytest.raises(ValueError, match="fence"):
        ask(f"before {FENCE} after")


def test_too_many_passages_are_refused() -> None:
    """And none at all."""
    many = [(number, "x") for number in range(JUDGE_PASSAGES + 1)]
    for ask in (judge_request, order_request):
        for passages in (many, []):
            with pytest.raises(ValueError, match="passages in one prompt"):
                ask(QUERY, passages, FENCE)
    with pytest.raises(ValueError, match="16 passages"):
        duel_prompt(QUERY, ["x"] * 16, FENCE)
