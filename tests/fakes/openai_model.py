"""A language model for the fake of OpenAI-style servers: a tokenizer, a chat template, answers that can be foretold."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.mind import Mind, no_mind

_TOKEN = re.compile(r" ?[^\W\d]+| ?\d|\s|[^\w\s]|_")

Turns = Sequence[Mapping[str, Any]]


def tokens_of(text: str) -> list[str]:
    """Words with the space before them, and single digits."""
    return _TOKEN.findall(text)


@dataclass
class FakeModel:
    """What it says, and how. Pictures cost 16 tokens each.

    `likely` maps words of the last turn to the tokens that may come first, with their log-probabilities; every other
    token has `unlikely`. `mind` goes before `answer` where it has something to say. `thinks`: it thinks before it
    speaks, unless it is told not to; "inline": between tags, as a part of the answer. `opens`: its template begins the
    thought, of which the answer holds the end. `calls` are the functions that it
    wants to call, with their arguments, where it may. `fills` says what belongs after a prompt and before a suffix ("",
    where the server takes none), and `markers` are tokens of their own.
    """

    name: str = "tiny"
    context: int = 4096
    answer: str = "Dental cover starts on the first day."
    thoughts: str = "The user asks about dental cover."
    thinks: bool | str = False
    opens: bool = False
    sees: bool = True
    likely: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    unlikely: float = -18.0
    mind: Mind = no_mind
    calls: Sequence[tuple[str, str]] = ()
    fills: Callable[[str, str], str] | None = None
    markers: Sequence[str] = ()
    _ids: dict[str, int] = field(default_factory=dict)

    def tokens(self, text: str) -> list[str]:
        """As `tokens_of`, with its markers whole."""
        if not self.markers:
            return tokens_of(text)
        pieces = re.split(f"({'|'.join(map(re.escape, self.markers))})", text)
        return [token for piece in pieces for token in ([piece] if piece in self.markers else tokens_of(piece))]

    def token_id(self, token: str) -> int:
        return self._ids.setdefault(token, len(self._ids) + 10)

    def token(self, token_id: int) -> str:
        return next((token for token, known in self._ids.items() if known == token_id), f"<{token_id}>")

    def render(self, turns: Turns, thinking: bool = True) -> str:
        """The chat template; a model that thinks is told not to by an empty thought."""
        body = "".join(f"<{turn['role']}>\n{text_of(turn)}\n" for turn in turns)
        if self.opens:
            return f"<bos>{body}<assistant>\n<think>\n"
        return f"<bos>{body}<assistant>\n" + ("" if thinking or not self.thinks else "<think>\n\n</think>\n\n")

    def prompt_tokens(self, turns: Turns, thinking: bool) -> int:
        return len(tokens_of(self.render(turns, thinking))) + 16 * sum(len(pictures_of(turn)) for turn in turns)

    def text(self, schema: Mapping[str, Any] | None, turns: Turns) -> str:
        said = self.mind([(turn["role"], text_of(turn)) for turn in turns], schema)
        if said is not None:
            return said
        return self.answer if schema is None else json.dumps(_example(schema))

    def first_tokens(self, turns: Turns) -> dict[str, float]:
        """What may come first and its log-probability; likelier ones first."""
        said = text_of(turns[-1])
        chosen = next((tokens for word, tokens in self.likely.items() if word in said), {"1": -0.5, "0": -1.0})
        rest = math.log(0.01)
        everything = {**{token: rest for token in ("2", "3", "yes", "no", "The")}, **chosen}
        return dict(sorted(everything.items(), key=lambda item: -item[1]))


def text_of(turn: Mapping[str, Any]) -> str:
    content = turn["content"] or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def pictures_of(turn: Mapping[str, Any]) -> list[str]:
    content = turn["content"]
    parts = content if isinstance(content, list) else []
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


def _example(schema: Mapping[str, Any]) -> Any:
    """The smallest thing that fits."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: _example(inner) for name, inner in schema.get("properties", {}).items()}
    return {"array": [], "integer": 0, "number": 0.0, "boolean": True, "string": "x"}[schema.get("type", "string")]
