"""Finds passages that try to give the model orders. The rules are in `patterns.toml`, read at the first use."""

import base64
import binascii
import html
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, product
from pathlib import Path
from typing import Any

from ahocorasick_rs import AhoCorasick, Implementation

from app.text.fencing import looking_like
from app.text.terms import fold

SUSPECTED_INJECTION = "suspected_injection"

PATTERNS = Path(__file__).with_name("patterns.toml")

Rule = tuple[tuple[frozenset[str], ...], str]
"""Groups of needles, and a pattern that is tried where one needle of each group stands in the text."""

_FRAGMENT = re.compile("«([^»]+)»")


@cache
def rules() -> tuple[Rule, ...]:
    """All rules of `patterns.toml`, its fragments filled in."""
    data: dict[str, Any] = tomllib.loads(PATTERNS.read_text(encoding="utf-8"))
    fragments: dict[str, list[str]] = data["fragments"]

    def needles(entry: Mapping[str, Any]) -> tuple[frozenset[str], ...]:
        return tuple(
            frozenset(chain.from_iterable(_spelled_out(needle, fragments) for needle in group))
            for group in entry["needles"]
        )

    def pattern(entry: Mapping[str, Any], key: str = "pattern") -> str:
        pieces = entry.get(key, "")
        text = pieces if isinstance(pieces, str) else "".join(pieces)
        return _FRAGMENT.sub(lambda match: f"(?:{'|'.join(fragments[match[1]])})", text)

    plain = [(needles(entry), pattern(entry)) for key in ("english", "reply", "demand") for entry in data[key]]
    ignoring = [
        (
            needles(entry),
            rf"{pattern(entry, 'verb')}.{{0,30}}?{pattern(entry, 'whose')}.{{0,25}}?(?:{pattern(entry, 'what')})",
        )
        for entry in data["ignore"]
    ]
    return (*plain, *ignoring)


def _spelled_out(needle: str, fragments: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The needle once for each alternative of the fragment in it, if there is one."""
    match = _FRAGMENT.search(needle)
    if match is None:
        yield needle
        return
    for alternative in fragments[match[1]]:
        yield f"{needle[: match.start()]}{alternative}{needle[match.end() :]}"


# Most patterns are never tried, so that compiling each at its first use makes the first ranking faster.
_compiled = cache(re.compile)

_TAGS = re.compile("(?<![\U0001f3f4\U000e0020-\U000e007e])[\U000e0020-\U000e007e]{4,}")
_SELECTED = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")

_MIXED_SCRIPTS = re.compile(r"[\u0370-\u052f](?:(?=[a-z])|(?<=[a-z].))")
_LEET_WORD = re.compile(r"(?<!\w)(?=[\w@$]*[a-z])[\w@$]{3,}")
_LEET = str.maketrans("0134578@$", "oieastbas")
_LETTERS_AS = {"o": "o0", "i": "i1", "e": "e3", "a": "a4@", "s": "s5$", "t": "t7"}
_SPELT_GAP = re.compile(r"(?<=\b[a-z]) (?=[a-z]\b)")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}")

_WORDS = ("ignore", "instruct", "passage", "document", "relevan")
"""Most attacks hold one of them; a disguise is noticed by what it makes of these words."""


def _in_base64(word: str) -> Iterator[str]:
    """What base64 makes of the word without its first letter (which may be a capital), in lower case."""
    # Base64 reads three bytes at a time, so that a word looks different after 0, 1 or 2 bytes of others.
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


@cache
def _finder() -> tuple[list[str], AhoCorasick]:
    """All needles, of rules and of disguises, and what finds them by their index."""
    of_rules = {needle for groups, _ in rules() for group in groups for needle in group}
    needles = sorted(of_rules | _ENTITIES | _ENCODED | _LEETED | _SPELT)
    return needles, AhoCorasick(needles, implementation=Implementation.DFA)


@cache
def _by_first_needle() -> Mapping[str, Sequence[Rule]]:
    """The rules whose first group has the needle."""
    by_needle: dict[str, list[Rule]] = {}
    for rule in rules():
        for needle in rule[0][0]:
            by_needle.setdefault(needle, []).append(rule)
    return by_needle


def has_hidden_text(text: str) -> bool:
    """Whether words stand in it as invisible characters: tags, or runs of variation selectors."""
    return bool(_TAGS.search(text) or _SELECTED.search(text))


def shows_injection(text: str) -> bool:
    """Whether a rule matches the text, as it is or without a common disguise. It should be `visible` text."""
    plain = fold(text)
    needles = _needles_in(plain)
    if _matches(plain, needles):
        return True
    return any(_matches(reading, _needles_in(reading)) for reading in _undisguised(text, plain, needles))


def _needles_in(text: str) -> set[str]:
    needles, finder = _finder()
    return {needles[index] for index, _, _ in finder.find_matches_as_indexes(text, overlapping=True)}


def _matches(text: str, needles: set[str]) -> bool:
    by_first = _by_first_needle()
    candidates = {pattern: groups for needle in needles for groups, pattern in by_first.get(needle, ())}
    return any(
        not any(needles.isdisjoint(group) for group in groups) and _compiled(pattern).search(text)
        for pattern, groups in candidates.items()
    )


def _undisguised(text: str, plain: str, needles: set[str]) -> Iterator[str]:
    """Other readings of the text, where it shows signs of them."""
    if not plain.isascii() and _MIXED_SCRIPTS.search(plain):
        yield looking_like(plain).lower()
    if not needles:
        return
    if not needles.isdisjoint(_ENTITIES):
        yield html.unescape(plain)
    if not needles.isdisjoint(_SPELT):
        yield _SPELT_GAP.sub("", plain).replace("  ", " ")
    if not needles.isdisjoint(_LEETED):
        yield _LEET_WORD.sub(lambda word: word[0].translate(_LEET), plain)
    if not needles.isdisjoint(_ENCODED):
        yield from _decoded(text)


def _decoded(text: str) -> Iterator[str]:
    """The texts that stand in it as base64."""
    for run in _BASE64.findall(text):
        try:
            yield fold(base64.b64decode(run + "=" * (-len(run) % 4)).decode("utf-8"))
        except (binascii.Error, UnicodeDecodeError):
            continue
