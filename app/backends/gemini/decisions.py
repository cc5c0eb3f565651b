"""Typed questions to a decision model of Gemini's, and its answers.

The SDK has them under an API version and with errors of their own: see `app.backends.gemini.errors`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.genai.decisions import ChoiceQuestion, CreateDecisionResponse, NoulQuestion

from app.backends.base import Decision, DecisionQuestion, chance_of, shares_of
from app.backends.status import Peer, unreadable
from app.domain import TokenCount
from app.errors import Refused

API_VERSION = "v1beta"


def decides(model: str) -> bool:
    """Whether a model of that name answers typed questions, and nothing else: Google's list of models does not say."""
    return "decision" in model.lower()


def questions_of(questions: Sequence[DecisionQuestion]) -> dict[str, Any]:
    """As the SDK takes them, by their number. A question without options is a `noul`, Google's word for yes or no."""
    return {str(number): _question(question) for number, question in enumerate(questions)}


def decision_of(reply: CreateDecisionResponse, questions: Sequence[DecisionQuestion], peer: Peer) -> Decision:
    """Raises Refused for an input that was blocked, UpstreamBadReply for one without any answer."""
    tokens = _tokens(reply)
    if reply.prompt_feedback is not None and reply.prompt_feedback.block_reason:
        raise Refused(peer.name, f"{peer.name} declined for its content policy", tokens=tokens)
    if not reply.answers:
        raise unreadable(peer)
    answers = tuple(_answer(reply.answers, str(number), question) for number, question in enumerate(questions))
    return Decision(answers=answers, tokens=tokens)


def _question(question: DecisionQuestion) -> ChoiceQuestion | NoulQuestion:
    """Of a plain object the SDK would first make a model class, which takes milliseconds."""
    if not question.options:
        return NoulQuestion(instructions=question.instructions)
    criteria = {option.name: option.description for option in question.options}
    return ChoiceQuestion(instructions=question.instructions, criteria=criteria)


def _answer(answers: Mapping[str, Any], number: str, question: DecisionQuestion) -> tuple[float, ...] | None:
    """None where it is missing, or of another shape."""
    answer = answers.get(number)
    if not question.options:
        chance = chance_of(getattr(answer, "noul", None))
        return None if chance is None else (chance,)
    chances = getattr(answer, "probabilities", None) or {}
    return shares_of([chances.get(option.name, 0.0) for option in question.options])


def _tokens(reply: CreateDecisionResponse) -> TokenCount:
    usage = reply.usage
    if usage is None:
        return TokenCount()
    return TokenCount(
        input=usage.total_input_tokens or 0,
        cached=usage.total_cached_tokens or 0,
        output=usage.total_output_tokens or 0,
        thinking=usage.total_thought_tokens or 0,
    )
