"""The numbers and codes that a text names, as things of which there may be others of the same kind. Pure."""

import re

import msgspec

from app.text.terms import fold
from indexing.retrieval.codes import codes, normalized

_BEFORE = re.compile(r"(?P<word>[^\W\d_]+)[^\w]{0,3}$")
_UNCERTAIN = re.compile(r"(?:pre|post|mid|early|late|since|circa|ca)?(?:1\d{3}|20\d\d)s?|\d{1,2}|\d+[^\W\d_]{2,}")
"""Years, small numbers and ordinals, which a passage often leaves to its context."""
_ANCHOR_LENGTH = 5
_UNSPACED_ANCHOR = 2


class NamedCode(msgspec.Struct, frozen=True):
    """A code in a text: what stands for all of it, what stands for it or a part of it, the word before it ("" if none).

    `shape` is the same for codes of the same form; [start, end) is where it is in the normalized text.
    """

    start: int
    end: int
    wholes: frozenset[str]
    terms: frozenset[str]
    anchor: str
    shape: str

    @property
    def binding(self) -> bool:
        """Whether a text without this code cannot be about the same thing."""
        # Not "1234" but "ab1234" makes AB-1234 what it is.
        return not all(_UNCERTAIN.fullmatch(whole) for whole in self.wholes)

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
            code.start,
            code.end,
            frozenset(code.wholes),
            frozenset((*code.wholes, *code.parts)),
            _anchor(text[: code.start]),
            re.sub(r"\d", "9", text[code.start : code.end]),
        )
        for code in codes(text)
    ]


def without_replaced(earlier: str, question: str) -> str:
    """An earlier question without the codes that a follow-up has others for: "And invoice 4713?"."""
    asked = named_codes(question)
    if not asked:
        return earlier
    kept = normalized(earlier)
    for code in reversed(named_codes(earlier)):
        if any(_replaces(new, code) for new in asked):
            kept = kept[: code.start] + kept[code.end :]
    return kept


def _replaces(new: NamedCode, old: NamedCode) -> bool:
    """In "And the 4713?" the word before says nothing: then codes of one form are of one kind."""
    if new.wholes & old.terms:
        return False
    return new.rivals(old) or (new.shape == old.shape and new.binding == old.binding)


def _anchor(before: str) -> str:
    """The word before a code, folded and cut, so that its forms are one."""
    match = _BEFORE.search(before[-40:])
    if match is None:
        return ""
    word = fold(match["word"])
    return word[-_UNSPACED_ANCHOR:] if word > "\u2e80" else word[:_ANCHOR_LENGTH]
