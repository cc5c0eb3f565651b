"""The JSON values in a text that should be JSON and may be prose, fenced, misquoted or cut off. Pure.

Never raises, and takes time linear in the text: the tokens have no ambiguity, and the reader never goes back.
"""

import json
import re
from typing import NoReturn, TypeAlias

import msgspec

Scalar: TypeAlias = "str | int | float | bool | None"
Value: TypeAlias = "Scalar | list[Value] | Pairs"

MAX_REPLY_LENGTH = 16_384
"""Characters of a model's reply that are parsed."""

MAX_DEPTH = 64
"""How deep containers may nest in what is no strict JSON."""

_DIGITS = 18  # of an integer are read: more than any number of a passage has


class Pairs(tuple[tuple[str, "Value"], ...]):
    """A JSON object as it was written: repeated keys are there as often as written."""

    __slots__ = ()


class Found(msgspec.Struct, frozen=True):
    """A value. `whole` is False when it breaks off: what is in it was there, but more may have been meant."""

    value: Value
    whole: bool = True


_OPENING = re.compile(r"[{\[]")
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<bracket>[{}\[\]])
      | (?P<mark>[,:])
      | "(?P<double>(?:[^"\\]|\\.)*)"?
      | '(?P<single>[^'\\\n]{0,40})'(?=\s{0,9}[]},:])
      | (?P<bare>[^\s{}\[\],:"]+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?\d{1,20}\.\d{1,20}")
_WORDS: dict[str, Scalar] = {"null": None, "None": None, "true": True, "True": True, "false": False, "False": False}


def strict_json(text: str) -> Found | None:
    """The text as one JSON value (NaN and the like are none). None when it is not."""
    try:
        return Found(json.loads(text, object_pairs_hook=Pairs, parse_int=_integer, parse_constant=_refuse))
    except (ValueError, RecursionError):
        return None


def salvage(text: str) -> list[Found]:
    """The objects and lists in the text that are in no other, whole or not, in their order."""
    found = []
    at = 0
    while opening := _OPENING.search(text, at):
        reader = _Reader(text, opening.start())
        found.append(reader.read())
        at = reader.at
    return found


class _Container:
    def __init__(self, opening: str) -> None:
        self.closing = "}" if opening == "{" else "]"
        self._items: list[Value] = []
        self._pairs: list[tuple[str, Value]] = []
        self._key: str | None = None

    def add(self, value: Value) -> None:
        if self.closing == "]":
            self._items.append(value)
        elif self._key is None:
            self._key = "" if isinstance(value, list | Pairs) else str(value)
        else:
            self._pairs.append((self._key, value))
            self._key = None

    def next(self) -> None:
        """A comma: a key that has no value by now is dropped."""
        self._key = None

    @property
    def value(self) -> Value:
        return self._items if self.closing == "]" else Pairs(self._pairs)


class _Reader:
    """Reads one container from `at`, and leaves `at` where it ends or breaks off."""

    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self.at = at
        self._open: list[_Container] = []

    def read(self) -> Found:
        while token := _TOKEN.match(self._text, self.at):
            bracket = token["bracket"]
            if bracket in ("{", "["):
                if len(self._open) == MAX_DEPTH:
                    break
                self._open.append(_Container(bracket))
            elif bracket and bracket != self._open[-1].closing:
                break
            elif not bracket:
                self._take(token)
            self.at = token.end()
            if bracket in ("}", "]") and len(self._open) == 1:
                return Found(self._open[0].value)
            if bracket in ("}", "]"):
                self._close()
        return self._broken_off()

    def _take(self, token: re.Match[str]) -> None:
        innermost = self._open[-1]
        if token["mark"]:
            if token["mark"] == ",":
                innermost.next()
        elif token.end() < len(self._text):  # what touches the end may be cut: 1 of 12
            innermost.add(_scalar(token))

    def _close(self) -> None:
        closed = self._open.pop()
        self._open[-1].add(closed.value)

    def _broken_off(self) -> Found:
        while len(self._open) > 1:
            self._close()
        return Found(self._open[0].value, whole=False)


def _scalar(token: re.Match[str]) -> Scalar:
    for quoted in (token["double"], token["single"]):
        if quoted is not None:
            return quoted
    bare = token["bare"]
    if _INTEGER.fullmatch(bare):
        return _integer(bare)
    if _FLOAT.fullmatch(bare):
        return float(bare)
    return _WORDS.get(bare, bare)


def _integer(digits: str) -> int:
    """Of a longer one the first digits, since reading takes quadratic time."""
    return int(digits[:_DIGITS])


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
