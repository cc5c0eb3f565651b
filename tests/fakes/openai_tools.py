"""What the fake of OpenAI-style servers does about tools, in each dialect."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Turns = Sequence[Mapping[str, Any]]

Call = tuple[str, str]
"""A function's name, and its arguments as JSON."""

REFUSALS: Mapping[str, str] = {
    "vllm": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
    "ollama": "registry.ollama.ai/library/tiny does not support tools",
    "openai": "tools param requires --jinja flag",
}
"""Their words where they take none, as far as one can go by them; llama.cpp's for the plain one."""


def made(body: Any, turns: Turns, wanted: Sequence[Call], dialect: str) -> list[Call]:
    """The calls of a model that wants these. Who was told what came of them speaks; Ollama reads no tool_choice."""
    names = [tool["function"]["name"] for tool in body.get("tools") or ()]
    choice = None if dialect == "ollama" else body.get("tool_choice")
    if isinstance(choice, dict):
        names = [choice["function"]["name"]]
    told = turns[-1]["role"] == "tool" and choice in (None, "auto")
    return [] if choice == "none" or told else [call for call in wanted if call[0] in names]


def message(calls: Sequence[Call]) -> dict[str, Any]:
    """As a whole reply has them."""
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [_call(place, *call) for place, call in enumerate(calls)],
    }


def deltas(calls: Sequence[Call], dialect: str) -> list[dict[str, Any]]:
    """As a stream has them: Ollama each at once, others in pieces."""
    if dialect == "ollama":
        return [
            {"content": "", "tool_calls": [_call(place, *call) | {"index": place}]} for place, call in enumerate(calls)
        ]
    pieces = []
    for place, (name, arguments) in enumerate(calls):
        half = len(arguments) // 2
        pieces.append(_call(place, name, "") | {"index": place})
        pieces += [{"index": place, "function": {"arguments": piece}} for piece in (arguments[:half], arguments[half:])]
    return [{"tool_calls": [piece]} for piece in pieces]


def is_about_tools(turn: Mapping[str, Any]) -> bool:
    """A turn that calls, or that tells what came of it."""
    if turn["role"] == "tool":
        return isinstance(turn["content"], str) and bool(turn["tool_call_id"])
    calls = turn.get("tool_calls") or ()
    return bool(calls) and all(isinstance(json.loads(call["function"]["arguments"]), dict) for call in calls)


def _call(place: int, name: str, arguments: str) -> dict[str, Any]:
    return {"id": f"call_{place}_{name}", "type": "function", "function": {"name": name, "arguments": arguments}}
