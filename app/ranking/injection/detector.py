"""Whether a passage talks to the model that reads it. Pure.

A flag, not a filter: who is flagged cannot rise above its prior. So it errs towards ordinary texts, and knows the plain
tricks in the languages of `telltales`; the fence, the labels and the isolation of passages hold without it.
"""

import base64
import binascii
import html
import re
from collections.abc import Iterator
from itertools import chain, product

from ahocorasick_rs import AhoCorasick, Implementation

from app.ranking.injection.patterns import BY_FIRST_NEEDLE, NEEDLES
from app.text.control_tokens import looking_like, visible
from app.text.terms import fold

SUSPECTED_INJECTION = "suspected_injection"

_TAGS = re.compile("(?<![\U0001f3f4\U000e0020-\U000e007e])[\U000e0020-\U000e007e]{4,}")
_SELECTED = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")

_MIXED_SCRIPTS = re.compile(r"[\u0370-\u052f](?:(?=[a-z])|(?<=[a-z].))")
_LEET_WORD = re.compile(r"(?<!\w)(?=[\w@$]*[a-z])[\w@$]{3,}")
_LEET = str.maketrans("0134578@$", "oieastbas")
_LETTERS_AS = {"o": "o0", "i": "i1", "e": "e3", "a": "a4@", "s": "s5$", "t": "t7"}
_SPELT_GAP = re.compile(r"(?<=\b[a-z]) (?=[a-z]\b)")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}")

_WORDS = ("ignore", "instruct", "passage", "document", "relevan")
"""One of them stands in most attacks; each disguise is looked for as what it makes of these."""


def _in_base64(word: str) -> Iterator[str]:
    """What base64 makes of the word without its first letter (which may be a capital), in lower case."""
    for shift, start in enumerate((0, 2, 3)):
        encoded = base64.b64encode(b"?" * shift + word[1:].encode()).decode().rstrip("=")
        yield encoded[start:-1].lower()


def _in_leet(word: str) -> Iterator[str]:
    start = word[:5]
    variants = map("".join, product(*(_LETTERS_AS.get(letter, letter) for letter in start)))
    yield from (variant for variant in variants if variant != start)


_ENTITIES = frozenset({"&lt;", "&quot;", "&#"})
_ENCODED = frozenset(chain.from_iterable(map(_in_base64, _WORDS)))
_LEETED = frozenset(chain.from_iterable(map(_in_leet, _WORDS)))
_SPELT = frozenset(map(" ".join, (word[:5] for word in _WORDS)))
_LOOKED_FOR = sorted(NEEDLES | _ENTITIES | _ENCODED | _LEETED | _SPELT)
_FINDER = AhoCorasick(_LOOKED_FOR, implementation=Implementation.DFA)


def is_suspicious(text: str) -> bool:
    """Whether the text gives orders to whoever ranks it, fakes turns or replies, praises itself, or hides text."""
    seen = visible(text)
    return (seen != text and hides(text)) or tells(seen)


def hides(text: str) -> bool:
    """Whether letters stand in it as characters that nobody sees."""
    return bool(_TAGS.search(text) or _SELECTED.search(text))


def tells(text: str) -> bool:
    """Whether it shows a telltale, plainly or in a common disguise. Invisible characters should be gone (`visible`)."""
    plain = fold(text)
    found = _found(plain)
    if _matches(plain, found):
        return True
    return any(_matches(reading, _found(reading)) for reading in _undisguised(text, plain, found))


def _found(text: str) -> set[str]:
    return {_LOOKED_FOR[which] for which, _, _ in _FINDER.find_matches_as_indexes(text, overlapping=True)}


def _matches(text: str, found: set[str]) -> bool:
    candidates = {telltale for needle in found for telltale in BY_FIRST_NEEDLE.get(needle, ())}
    return any(telltale.may_stand_among(found) and telltale.pattern.search(text) for telltale in candidates)


def _undisguised(text: str, plain: str, found: set[str]) -> Iterator[str]:
    """Other readings of the text, where it shows signs of them."""
    if not plain.isascii() and _MIXED_SCRIPTS.search(plain):
        yield looking_like(plain).lower()
    if not found:
        return
    if not found.isdisjoint(_ENTITIES):
        yield html.unescape(plain)
    if not found.isdisjoint(_SPELT):
        yield _SPELT_GAP.sub("", plain).replace("  ", " ")
    if not found.isdisjoint(_LEETED):
        yield _LEET_WORD.sub(lambda word: word[0].translate(_LEET), plain)
    if not found.isdisjoint(_ENCODED):
        yield from _decoded(text)


def _decoded(text: str) -> Iterator[str]:
    """The texts that stand in it as base64."""
    for run in _BASE64.findall(text):
        try:
            yield fold(base64.b64decode(run + "=" * (-len(run) % 4)).decode("utf-8"))
        except (binascii.Error, UnicodeDecodeError):
            continue
