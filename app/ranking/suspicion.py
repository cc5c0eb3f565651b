"""Whether a passage talks to the model that reads it. Pure.

A flag, not a filter: who is flagged cannot rise above its prior. So it errs towards ordinary texts, and knows the plain
tricks in the languages of `telltales`; the fence, the labels and the isolation of passages hold without it.
"""

import base64
import binascii
import html
import re
from collections.abc import Iterator

from app.answering.terms import fold
from app.ranking.neutral import looking_like, visible
from app.ranking.telltales import NEEDLES, TELLTALES

SUSPECTED_INJECTION = "suspected_injection"

_TAGS = re.compile("(?<!\U0001f3f4)(?:[\U000e0020-\U000e007e]{4,})")
_SELECTED = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")
_TAG_BASE = 0xE0000

_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")
_MIXED_SCRIPTS = re.compile(r"[a-z][\u0370-\u052f]|[\u0370-\u052f][a-z]")
_LEET_WORD = re.compile(r"\b(?=\w*[a-z@$])(?=\w*[0134578])[\w@$]{4,}")
_LEET = str.maketrans("0134578@$", "oieastbas")
_SPELT = re.compile(r"(?:\b[a-z][ .\-_*]{1,2}){6,}[a-z]\b")
_SPELT_GAP = re.compile(r"(?<=\b[a-z])[ .\-_*](?=[a-z]\b)")


def is_suspicious(text: str) -> bool:
    """Whether the text gives orders to whoever ranks it, fakes turns or replies, praises its own rank, or hides text."""
    return _hides(text) or any(map(_tells, _readings(text)))


def _hides(text: str) -> bool:
    if text.isascii():
        return False
    return bool(_TAGS.search(text) or _SELECTED.search(text))


def _tells(text: str) -> bool:
    found = {needle for needle in NEEDLES if needle in text}
    return bool(found) and any(
        telltale.pattern.search(text) for telltale in TELLTALES if not found.isdisjoint(telltale.needles)
    )


def _readings(text: str) -> Iterator[str]:
    """The text as it is read, and with common disguises taken off where it wears them."""
    plain = fold(visible(text))
    yield plain
    if "&lt;" in plain or "&quot;" in plain:
        yield html.unescape(plain)
    if not plain.isascii() and _MIXED_SCRIPTS.search(plain):
        yield looking_like(plain).lower()
    if _SPELT.search(plain):
        yield re.sub(r" {2,}", " ", _SPELT_GAP.sub("", plain))
    if (unleet := _LEET_WORD.sub(lambda word: word[0].translate(_LEET), plain)) != plain:
        yield unleet
    for run in _BASE64.findall(text):
        if decoded := _decoded(run):
            yield fold(decoded)


def _decoded(run: str) -> str:
    """What base64 holds, if that is a text."""
    try:
        return base64.b64decode(run + "=" * (-len(run) % 4), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return ""
