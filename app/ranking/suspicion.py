"""Whether a passage talks to the model that reads it. Pure.

A flag, not a filter: who is flagged cannot rise above its prior. So it errs towards ordinary texts, and knows the plain
tricks in the languages of `telltales`; the fence, the labels and the isolation of passages hold without it.
"""

import base64
import binascii
import html
import re
from collections.abc import Iterator

from ahocorasick_rs import AhoCorasick, Implementation

from app.answering.terms import fold
from app.ranking.neutral import looking_like, visible
from app.ranking.telltales import NEEDLES, TELLTALES

SUSPECTED_INJECTION = "suspected_injection"

_TAGS = re.compile("(?<!\U0001f3f4)[\U000e0020-\U000e007e]{4,}")
_SELECTED = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")

_MIXED_SCRIPTS = re.compile(r"[\u0370-\u052f](?:(?=[a-z])|(?<=[a-z].))")
_LEET_SIGN = re.compile(r"[0134578@$](?=[a-z])(?<=[a-z].)")
_LEET_WORD = re.compile(r"(?<!\w)(?=[\w@$]*[a-z])[\w@$]{3,}")
_LEET = str.maketrans("0134578@$", "oieastbas")
_SPELT_SIGN = re.compile(r" [b-z] [b-z] ")
_SPELT_GAP = re.compile(r"(?<=\b[a-z]) (?=[a-z]\b)")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}")


def _in_base64(word: str) -> set[str]:
    """What base64 makes of the inside of a word, in lower case, wherever it begins."""
    encoded = (base64.b64encode(b"?" * shift + word.encode()).decode() for shift in range(3))
    return {text[start : len(text.rstrip("=")) - 1].lower() for text, start in zip(encoded, (0, 2, 3), strict=True)}


_ENCODED = frozenset().union(*map(_in_base64, ("gnore", "nstruct", "assage", "ocument", "relevan")))
_FINDER = AhoCorasick(list(_NEEDLES := sorted(NEEDLES | _ENCODED)), implementation=Implementation.DFA)


def is_suspicious(text: str) -> bool:
    """Whether the text gives orders to whoever ranks it, fakes turns or replies, praises its own rank, or hides text."""
    if not text.isascii() and (_TAGS.search(text) or _SELECTED.search(text)):
        return True
    plain = fold(visible(text))
    found = _found(plain)
    if _tells(plain, found) or any(_tells(reading, _found(reading)) for reading in _undisguised(plain)):
        return True
    return not found.isdisjoint(_ENCODED) and any(_tells(reading, _found(reading)) for reading in _decoded(text))


def _found(text: str) -> set[str]:
    return {_NEEDLES[which] for which, _, _ in _FINDER.find_matches_as_indexes(text, overlapping=True)}


def _tells(text: str, found: set[str]) -> bool:
    return any(
        not any(found.isdisjoint(group) for group in telltale.needles) and telltale.pattern.search(text)
        for telltale in TELLTALES
    )


def _undisguised(text: str) -> Iterator[str]:
    """Other readings of the text, where it shows signs of them."""
    if "&lt;" in text or "&quot;" in text:
        yield html.unescape(text)
    if not text.isascii() and _MIXED_SCRIPTS.search(text):
        yield looking_like(text).lower()
    if _SPELT_SIGN.search(text):
        yield _SPELT_GAP.sub("", text).replace("  ", " ")
    if len(_LEET_SIGN.findall(text)) > 1:
        yield _LEET_WORD.sub(lambda word: word[0].translate(_LEET), text)


def _decoded(text: str) -> Iterator[str]:
    """The texts that stand in it as base64."""
    for run in _BASE64.findall(text):
        try:
            yield fold(base64.b64decode(run + "=" * (-len(run) % 4)).decode("utf-8"))
        except (binascii.Error, UnicodeDecodeError):
            continue
