"""What the fakes decide: Gemini's, OpenAI's and vLLM's shapes of the same probabilities."""

from collections.abc import Callable, Mapping
from typing import Any

Likely = Mapping[str, Mapping[str, float]] | Callable[[str, str], Mapping[str, float]]
"""By a word of the input, or "$" and its end, the probability of each option, by its name; or what says so of an input
and the instructions of a question.
"""


def _chances(text: str, likely: Likely, instructions: str) -> Mapping[str, float]:
    if not isinstance(likely, Mapping):
        return likely(text, instructions)
    found = (said for word, said in likely.items() if (text.endswith(word[1:]) if word[:1] == "$" else word in text))
    return next(found, {})


def _alone(instructions: str, chances: Mapping[str, float]) -> float:
    return next((chance for name, chance in chances.items() if name in instructions), 0.01)


def decided(body: Mapping[str, Any], likely: Likely) -> dict[str, Any]:
    """Gemini's answers, which vLLM's are like: `input` or `state`."""
    text = body.get("input") or body.get("state") or ""
    answers: dict[str, Any] = {}
    for key, question in body["questions"].items():
        chances = _chances(text, likely, question["instructions"])
        if question["type"] == "noul":
            noul = _alone(question["instructions"], chances)
            answers[key] = {"type": "noul", "noul": noul, "confidence": max(noul, 1 - noul)}
        else:
            shares = {name: chances.get(name, 0.01) for name in question["criteria"]}
            best = max(shares, key=lambda name: shares[name])
            answers[key] = {"type": "choice", "choice": best, "confidence": shares[best], "probabilities": shares}
    return answers


def decided_as_openai(body: Mapping[str, Any], likely: Likely) -> list[dict[str, Any]]:
    """OpenAI's answers, in the order of the questions."""
    answers: list[dict[str, Any]] = []
    for question in body["questions"]:
        chances = _chances(body["input"], likely, question["instructions"])
        if question["type"] == "predicate":
            answers.append({"type": "predicate", "probability": _alone(question["instructions"], chances)})
        else:
            given = [
                {"value": one["value"], "probability": chances.get(one["value"], 0.01)} for one in question["choices"]
            ]
            best = max(given, key=lambda one: one["probability"])
            answers.append({"type": "choice", "choice": best["value"], "confidence": 0.9, "probabilities": given})
    return answers
