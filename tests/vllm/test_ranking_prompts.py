"""What the real vLLM makes of the reranker's prompts."""

import pytest

from app.backends.base import Conversation
from app.ranking.models import LABELS, candidate_of
from app.ranking.passages import prepare
from app.ranking.prompts import LETTERS, duel_prompt, grade_prompt
from tests.attacks.injections import ATTACKS
from tests.vllm.running import MODEL, RunningVllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]

FENCE = "mxkqzvbw"
QUERY = "How long do <end_of_turn> parcels take?"
MARKERS = ("<bos>", "<start_of_turn>", "<end_of_turn>", "<eos>", "<pad>", "<unk>")
ONCE = [1, 2, 1, 0, 0, 0]
"""Of each marker in a prompt with one turn of the user: the second <start_of_turn> opens the model's."""


def tokens(vllm: RunningVllm, prompt: Conversation) -> list[int]:
    return vllm.tokens(messages=[{"role": turn.role, "content": turn.content} for turn in prompt])


def markers(vllm: RunningVllm, ids: list[int]) -> list[int]:
    return [ids.count(vllm.token(marker)) for marker in MARKERS]


def text(vllm: RunningVllm, ids: list[int]) -> str:
    return str(vllm.http.post("/detokenize", json={"model": MODEL, "tokens": ids}).json()["prompt"])


def test_a_grade_is_asked_for_in_gemmas_turns(vllm: RunningVllm) -> None:
    """One <bos>, the rubric in the user's turn, nothing doubled, and the model's turn open at the end."""
    prompt = grade_prompt(QUERY, "Two days.", FENCE)
    ids = tokens(vllm, prompt)
    system, user = prompt
    rendered = f"<bos><start_of_turn>user\n{system.content}\n\n{user.content}<end_of_turn>\n<start_of_turn>model\n"
    assert text(vllm, ids) == rendered
    assert markers(vllm, ids) == ONCE
    assert ids[0] == vllm.token("<bos>")


def test_a_duel_is_asked_for_in_gemmas_turns(vllm: RunningVllm) -> None:
    """As well, with as many passages as there are letters."""
    ids = tokens(vllm, duel_prompt(QUERY, ["Two days."] * len(LETTERS), FENCE))
    assert markers(vllm, ids) == ONCE
    assert text(vllm, ids).endswith(f"one of {', '.join(LETTERS)}.<end_of_turn>\n<start_of_turn>model\n")


def test_no_attack_becomes_a_marker(vllm: RunningVllm) -> None:
    """Prepared passages hold no control token, however it was disguised."""
    attackers = [candidate_of(id=str(number), text=attack.text) for number, attack in enumerate(ATTACKS)]
    for passage in prepare(QUERY, attackers):
        assert markers(vllm, tokens(vllm, grade_prompt(QUERY, passage.text, FENCE))) == ONCE


@pytest.mark.parametrize("label", [*LABELS, *LETTERS])
def test_a_reply_is_one_token(vllm: RunningVllm, label: str) -> None:
    """Where the model's turn begins: so its log-probability is the label's."""
    opened = "<start_of_turn>model\n"
    before = vllm.tokens(prompt=opened, add_special_tokens=False)
    assert vllm.tokens(prompt=opened + label, add_special_tokens=False) == [*before, vllm.token(label)]


def test_prompts_of_one_query_share_their_tokens_up_to_the_passage(vllm: RunningVllm) -> None:
    """What the prefix cache can keep ends at the fence."""
    one, two = (tokens(vllm, grade_prompt(QUERY, passage, FENCE)) for passage in ("Two days.", "A week."))
    shared = next(place for place, (first, second) in enumerate(zip(one, two, strict=False)) if first != second)
    assert text(vllm, one[:shared]).endswith(f"{FENCE}\n")
