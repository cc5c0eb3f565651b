"""Whether a sentence is about the very thing that a question names by a number or a code. Pure.

"To whom was invoice 4712 sent?" is not answered by a sentence about invoice 4711, however alike they are. A passage
without the code does not count, and where a passage lists several such things, each code has its sentence and those
after it, up to the next one.

A code is binding by itself, but not a year, an ordinal or a number of one or two digits, which a passage often leaves
to its context ("the 2015 season", "Super Bowl 50"). Those are missing only where the passage has another number after
the same word.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec

from app.answering.extractive.evidence import Sentence
from app.text.terms import fold
from indexing.retrieval.codes import codes, normalized

_BEFORE = re.compile(r"(?P<word>[^\W\d_]+)[^\w]{0,3}$")
_YEAR = re.compile(r"1\d{3}|20\d\d")
_COUNTED = re.compile(r"\d+[^\W\d_]{2,}")
_ANCHOR_LENGTH = 5
_UNSPACED_ANCHOR = 2


class NamedCode(msgspec.Struct, frozen=True):
    """A code in a text: what stands for all of it, what stands for it or a part of it, the word before it ("" if none).

    `shape` is the same for codes of the same form.
    """

    wholes: frozenset[str]
    terms: frozenset[str]
    anchor: str
    shape: str

    @property
    def binding(self) -> bool:
        """Whether a text without this code cannot be about the same thing."""
        return not any(
            _YEAR.fullmatch(whole) or _COUNTED.fullmatch(whole) or (whole.isdigit() and len(whole) < 3)
            for whole in self.wholes
        )

    def rivals(self, other: "NamedCode") -> bool:
        """Whether the other one names another thing of the same kind."""
        if self.wholes & other.terms:
            return False
        return self.anchor == other.anchor if self.anchor and other.anchor else self.shape == other.shape


def named_codes(text: str) -> list[NamedCode]:
    """The codes of a text, in order."""
    text = normalized(text)
    return [
        NamedCode(
            frozenset(code.wholes),
            frozenset((*code.wholes, *code.parts)),
            _anchor(text[: code.start]),
            re.sub(r"\d", "9", text[code.start : code.end]),
        )
        for code in codes(text)
    ]


def about(question: str, sentences: Sequence[Sentence], above: Sequence[str]) -> list[bool]:
    """For each sentence whether it may be about what the question names; all True for a question without a code.

    `above` has the title and headings of each passage. The sentences of a passage come in order.
    """
    named = named_codes(question)
    if not named:
        return [True] * len(sentences)
    by_sentence = [named_codes(sentence.text) for sentence in sentences]
    result = []
    for hit, group in _grouped(sentences):
        overhead = named_codes(above[hit])
        in_passage = [*overhead, *(code for index in group for code in by_sentence[index])]
        if any(_missing(code, in_passage) for code in named):
            result += [False] * len(group)
        else:
            result += _in_scope(named, [by_sentence[index] for index in group], overhead)
    return result


def _grouped(sentences: Sequence[Sentence]) -> Iterator[tuple[int, list[int]]]:
    """(passage, indices of its sentences), in order."""
    groups: dict[int, list[int]] = {}
    for index, sentence in enumerate(sentences):
        groups.setdefault(sentence.hit, []).append(index)
    yield from groups.items()


def _missing(code: NamedCode, present: Sequence[NamedCode]) -> bool:
    if any(code.wholes & other.terms for other in present):
        return False
    return code.binding or any(code.anchor and code.anchor == other.anchor for other in present)


def _in_scope(
    named: Sequence[NamedCode], by_sentence: Sequence[Sequence[NamedCode]], overhead: Sequence[NamedCode]
) -> Iterator[bool]:
    """What is above the passage is about all of it, unless a sentence names another."""
    inside = {index: True for index, _ in enumerate(named)}
    for present in by_sentence:
        for index, code in enumerate(named):
            if any(code.wholes & other.terms for other in present):
                inside[index] = True
            elif any(code.rivals(other) for other in present):
                inside[index] = False
        yield all(inside.values())


def _anchor(before: str) -> str:
    """The word before a code, folded and cut, so that its forms are one."""
    match = _BEFORE.search(before[-40:])
    if match is None:
        return ""
    word = fold(match["word"])
    return word[-_UNSPACED_ANCHOR:] if word > "\u2e80" else word[:_ANCHOR_LENGTH]
