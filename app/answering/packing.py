"""Which passages fit into the answerer's reading budget. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from app.domain import Hit

_BYTES_PER_TOKEN = 3
"""Three UTF-8 bytes are one CJK character or three Latin letters. Tokenizers of language models need fewer tokens than
this for both, so that the estimate errs on the safe side."""


def estimate_tokens(text: str) -> int:
    """An upper estimate of what a language model's tokenizer makes of `text`; 0 for an empty one."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)


def pack(hits: Sequence[Hit], budget: int) -> tuple[Hit, ...]:
    """The best hits, in order, whose texts fit into `budget` tokens together. The first is always in."""
    packed: list[Hit] = []
    left = budget
    for hit in hits:
        left -= estimate_tokens(hit.text or "")
        if packed and left < 0:
            break
        packed.append(hit)
    return tuple(packed)


def clip(text: str, budget: int) -> str:
    """The longest beginning of `text` within `budget` tokens, at least one character; cut between words if it can."""
    if estimate_tokens(text) <= budget:
        return text
    sizes = accumulate(len(character.encode("utf-8", "surrogatepass")) for character in text)
    kept = text[: bisect_right(list(sizes), budget * _BYTES_PER_TOKEN)] or text[:1]
    whole_words = kept.rpartition(" ")[0]
    return (whole_words or kept).rstrip()
