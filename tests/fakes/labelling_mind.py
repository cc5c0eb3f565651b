"""A model that labels texts by a word in them: what `app.classification` asks, and what it would answer."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.mind import Mind

_QUOTED = re.compile(r"follows a line of (\w+) and")

Sees = Callable[[str], Mapping[str, int]]
"""The percentages that a text gets, by label."""


def by_word(text: str) -> Mapping[str, int]:
    """POSITIVE for "good", NEGATIVE for "bad", else unsure between the two."""
    if "good" in text:
        return {"POSITIVE": 90, "NEGATIVE": 10}
    return {"NEGATIVE": 80, "POSITIVE": 20} if "bad" in text else {"POSITIVE": 50, "NEGATIVE": 50}


def labels_of(sees: Sees = by_word, leaves_out: str = "nothing at all") -> Mind:
    """One that says nothing of texts with `leaves_out` in them, unless each is asked for alone."""

    def mind(turns: list[tuple[str, str]], schema: Mapping[str, Any] | None) -> str | None:
        texts = texts_in(turns[-1][1])
        if schema is None or not texts:
            return None
        results = [
            {"text": number, "labels": [{"label": name, "percent": share} for name, share in sees(text).items()]}
            for number, text in texts.items()
            if len(texts) == 1 or leaves_out not in text
        ]
        return json.dumps({"results": results})

    return mind


def texts_in(asked: str) -> dict[int, str]:
    """The texts of a prompt, by number; {} if it is none of ours."""
    if not (quoted := _QUOTED.search(asked)):
        return {}
    pieces = re.split(rf"^{quoted[1]} (\d+|end)$", asked, flags=re.MULTILINE)
    return {int(number): text.strip("\n") for number, text in zip(pieces[1:-2:2], pieces[2::2], strict=False)}
