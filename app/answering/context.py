"""Which passages fit into the answerer's reading budget, and which sentences they have. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from app.answering.models import Source
from app.domain import Hit
from indexing.chunking.sentences import sentence_spans
from indexing.documents import Span

_BYTES_PER_TOKEN = 3
"""Three UTF-8 bytes are one CJK character or three Latin letters. Tokenizers of language models need fewer tokens than
this for both, so that the estimate errs on the safe side."""

_MARKER_TOKENS = 6  # "[12.34] ", and the line feed
_HEADER_TOKENS = 12  # fence and number

NAME_TOKENS = 80
"""The most that is shown of a passage's title, headings and source."""


def estimate_tokens(text: str) -> int:
    """An upper estimate of what a language model's tokenizer makes of `text`; 0 for an empty one."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)


def pack(hits: Sequence[Hit], budget: int) -> tuple[Source, ...]:
    """The best hits, in order, that fit into `budget` tokens together, as sentences under a header.

    The last one is cut after the last sentence that fits; of the first one at least some words are always in.
    """
    packed: list[Source] = []
    left = budget
    for hit in hits:
        left -= _header_tokens(hit)
        source = _fitting(
            Source(number=len(packed) + 1, hit=hit, sentences=tuple(sentence_spans(hit.text or ""))), left
        )
        if not source.sentences and packed:
            break
        packed.append(source)
        if len(source.hit.text or "") < len(hit.text or ""):
            break
        left -= sum(_costs(source))
    return tuple(packed)


def clip(text: str, budget: int) -> str:
    """The longest beginning of `text` within `budget` tokens, at least one character; cut between words if it can."""
    if estimate_tokens(text) <= budget:
        return text
    sizes = accumulate(len(character.encode("utf-8", "surrogatepass")) for character in text)
    kept = text[: bisect_right(list(sizes), budget * _BYTES_PER_TOKEN)] or text[:1]
    whole_words = kept.rpartition(" ")[0]
    return (whole_words or kept).rstrip()


def _fitting(source: Source, budget: int) -> Source:
    """As many of its sentences as fit. Of the first source the first sentence is cut rather than left out."""
    kept = sum(spent <= budget for spent in accumulate(_costs(source)))
    if kept == len(source.sentences):
        return source
    if kept or source.number > 1:
        return _cut(source, source.sentences[:kept])
    first = source.sentences[0]
    words = clip((source.hit.text or "")[first.start : first.end], max(1, budget - _MARKER_TOKENS))
    return _cut(source, (Span(first.start, first.start + len(words)),))


def _cut(source: Source, sentences: tuple[Span, ...]) -> Source:
    """With these sentences only, which are its first ones."""
    end = sentences[-1].end if sentences else 0
    text = (source.hit.text or "")[:end]
    hit = msgspec.structs.replace(source.hit, text=text, end=source.hit.start + end)
    return msgspec.structs.replace(source, hit=hit, sentences=sentences)


def _costs(source: Source) -> list[int]:
    text = source.hit.text or ""
    return [estimate_tokens(text[one.start : one.end]) + _MARKER_TOKENS for one in source.sentences]


def _header_tokens(hit: Hit) -> int:
    return min(NAME_TOKENS, estimate_tokens(" ".join((hit.title, *hit.heading, hit.source)))) + _HEADER_TOKENS
