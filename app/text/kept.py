"""What a translation has to keep: placeholders, markup, links, code, numbers and lines. Pure.

A text is compared with its translation by counting: what occurs less often was lost. Numbers are compared by their
digits, since their separators belong to a language: 1,234.56 is 1.234,56 in German.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

Kind = Literal["placeholder", "markup", "link", "code", "number", "lines", "term"]


class Loss(msgspec.Struct, frozen=True, order=True):
    """Something of the text that its translation lacks. For "lines", `text` says how many there were and are."""

    kind: Kind
    text: str


CODE_BLOCK = re.compile(
    r"^(?P<fence>```+|~~~+)[^\n]*\n(?:.*\n)*?(?P=fence)[^\S\n]*$|<pre\b[^>]*>[\s\S]*?</pre>", re.MULTILINE
)

_PLACEHOLDER = r"""
    \$\{[^{}\n]*\} | \{\{[^{}\n]*\}\} | \{%[^%\n]*%\}
  | \{\s*\w+\s*,\s*(?:plural|select|selectordinal|number|date|time)\b
  | \{[\w.:!\-]*\}
  | (?<![\w%])%\w+%
  | %\(\w+\)[-+\#0]*\d*(?:\.\d+)?[a-zA-Z]
  | (?<![\d%])%(?:\d+\$)?[-+\#0]*\d*(?:\.\d+)?(?:hh?|ll?)?[sdiufFeEgGxXoc@]
"""
_MARKUP = r"""
    </?[A-Za-z][^<>]*> | <!--[\s\S]*?--> | &(?:[a-z]+|\#\d+|\#x[0-9a-f]+);
  | \*\*(?=\S) | (?<=\S)\*\* | ~~ | \]\(
  | ^[^\S\n]*(?:\#{1,6}|[-*+>])(?=[^\S\n])
"""
_LINK = r"(?:https?://|mailto:|www\.)[^\s<>()\[\]\"']*[^\s<>()\[\]\"'.,;:!?…。，、]|[\w.+\-]+@[\w\-]+(?:\.[\w\-]+)+"

_MARKED = re.compile(
    rf"(?P<code>`[^`\n]+`)|(?P<link>{_LINK})|(?P<placeholder>{_PLACEHOLDER})|(?P<markup>{_MARKUP})",
    re.VERBOSE | re.MULTILINE,
)
_TARGET = re.compile(r"""\b(?:href|src)\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][\w:\-]*")
_NUMBER = re.compile(r"\d+(?:[.,:/'’\u00a0\u202f \-]?\d+)*")
_DIGITS = re.compile(r"\d+")
_LETTER = re.compile(r"[^\W\d_]")


def losses(text: str, translation: str, terms: Mapping[str, str] | None = None) -> tuple[Loss, ...]:
    """What the translation lacks, in the order of the kinds. `terms`: what words of the text must become."""
    had, has = _counted(text), _counted(translation)
    lost = list((had - has).elements())
    lost += [Loss("number", number) for number in _lost_numbers(text, translation)]
    if (lines := text.count("\n") + 1) != (left := translation.count("\n") + 1):
        lost.append(Loss("lines", f"{lines} lines became {left}"))
    folded = translation.casefold()
    lost += [
        Loss("term", term) for word, term in (terms or {}).items() if _has(text, word) and term.casefold() not in folded
    ]
    return tuple(lost)


def additions(text: str, translation: str) -> tuple[Loss, ...]:
    """Links and placeholders of the translation that the text does not have."""
    new = _counted(translation) - _counted(text)
    return tuple(one for one in new if one.kind in ("link", "placeholder"))


def terms_in(text: str, glossary: Mapping[str, str]) -> dict[str, str]:
    """The entries whose word occurs in the text."""
    return {word: term for word, term in glossary.items() if _has(text, word)}


def prose_of(text: str) -> str:
    """The text without all that is marked: what there is to translate."""
    return _MARKED.sub(" ", text)


def has_prose(text: str) -> bool:
    """Whether there is anything to translate."""
    return _LETTER.search(prose_of(text)) is not None


def tags_of(text: str) -> list[str]:
    """What is marked, as it stands there, each once."""
    return list(dict.fromkeys(match.group() for match in _MARKED.finditer(text)))


def _has(text: str, word: str) -> bool:
    """Where a word begins, unless its script has no spaces."""
    if not word[:1].isascii():
        return word.casefold() in text.casefold()
    return re.search(rf"(?<!\w){re.escape(word)}", text, re.IGNORECASE) is not None


def _counted(text: str) -> Counter[Loss]:
    return Counter(_marks(text))


def _marks(text: str) -> Iterator[Loss]:
    """A tag counts by its name, since a title in it may be translated, and where it leads by itself."""
    for match in _MARKED.finditer(text):
        kind, mark = match.lastgroup, match.group().strip()
        if kind == "markup" and (tag := _TAG.match(mark)):
            yield Loss("markup", f"{tag.group().lower()}>")
            yield from (Loss("link", target) for target in _TARGET.findall(mark))
        elif kind is not None:
            yield Loss(kind, mark)  # type: ignore[arg-type] # the names of the groups


def _lost_numbers(text: str, translation: str) -> list[str]:
    """Numbers of the prose that are there in no way: neither their digits in one, nor their groups in any order."""
    there = prose_of(translation)
    wholes = Counter(_digits(number) for number in _NUMBER.findall(there))
    groups = Counter(_plain(group) for group in _DIGITS.findall(there))
    lost = []
    for number in _NUMBER.findall(prose_of(text)):
        needed = Counter(_plain(group) for group in _DIGITS.findall(number))
        if needed <= groups:
            groups -= needed
            wholes[_digits(number)] -= 1
        elif wholes[_digits(number)] > 0:
            wholes[_digits(number)] -= 1
        else:
            lost.append(number)
    return lost


def _digits(number: str) -> str:
    return _plain("".join(_DIGITS.findall(number)))


def _plain(digits: str) -> str:
    """In Western digits, without leading zeros."""
    return "".join(str(unicodedata.digit(digit)) for digit in digits).lstrip("0")
