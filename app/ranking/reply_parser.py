"""Reads a judge's reply, whatever it wrote. Pure; never raises; takes time linear in the reply.

Passages are named by the numbers that the prompt gave them. Every repair is counted, by kind:

    empty, illegible      nothing in the reply could be used
    not_json              prose or fences around it, or not valid JSON
    cut_off, too_long     the rest is lost
    several               values of the right shape; the last one counts, since drafts come first
    other_shape           grades by passage, records, a wrapper around it, lists within lists
    repeated_key, unknown_grade
    odd_id                a passage by "[3]", "passage 3" or 3.0
    unknown_id, repeated_id, missing_id (of an order)
    junk                  something that names no passage
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from app.backends.json_repair import MAX_REPLY_LENGTH, Found, Pairs, Value, salvage, strict_json
from app.ranking.models import LABELS, TOP_GRADE

_MAX_WRAPPERS = 4
_LONG = 18
_ID_KEYS = ("id", "passage", "number", "document")
_GRADE_KEYS = ("grade", "score", "relevance", "label")
_WORD = r"(?:passage|document|doc|id|item|number|no|grade|label|score|relevance)"
_NUMBERED = re.compile(
    rf"[\s\[({{<#\"'*]{{0,4}}{_WORD}?[\s\[(<#:_.]{{0,3}}(\d{{1,18}})(?:\.0{{1,9}})?[\s\])}}>\"'*.,;:]{{0,4}}",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"[\d\s,;>=|#\[\](){}]+")
_CHAIN = re.compile(r"\s*\[\d{1,9}\](?:\s*>\s*\[\d{1,9}\])*\s*")
_DIGITS = re.compile(r"\d+")

Row = tuple[int, Value]
"""A grade, and what was listed under it."""


class ParsedGrades(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers under each grade, best first, each once: under its lowest grade if it was listed twice.

    `complete`: numbers that are not listed have grade 0. Otherwise nothing is known about them: the reply was cut off
    or illegible, or lists something under an unknown grade.
    """

    listed: Mapping[int, tuple[int, ...]]
    complete: bool
    repairs: Mapping[str, int]


def read_grades(text: str, numbers: Collection[int]) -> ParsedGrades:
    """From {"3": [numbers], "2": [...], "1": [...]}, or something close to it. Grades are those of LABELS."""
    repairs: Counter[str] = Counter()
    known = frozenset(numbers)
    tables = [table for value in _values(text, repairs) if (table := _Table(value, known)).rows]
    if not tables:
        repairs["illegible" if text.strip() else "empty"] += 1
        return ParsedGrades(listed={}, complete=False, repairs=+repairs)
    table = tables[-1]
    repairs["several"] += len(tables) - 1
    repairs += table.repairs
    listed = _listed(table.rows, known, repairs)
    nothing_left = not listed and (repairs["unknown_id"] or repairs["junk"])
    complete = table.whole and not repairs["too_long"] and not nothing_left
    return ParsedGrades(listed=listed, complete=complete, repairs=+repairs)


def read_order(text: str, numbers: Collection[int]) -> tuple[tuple[int, ...], Mapping[str, int]]:
    """An order, and the repairs. From [numbers], {"order": [numbers]}, "[3] > [1] > [2]", or something close to it.

    The order has each number once: those of the reply at their first mention, then the missing ones as they were given.
    It is empty if the reply names none of them.
    """
    repairs: Counter[str] = Counter()
    known = frozenset(numbers)
    named = list(_numbers(_named(text, known, repairs), known, repairs))
    order = dict.fromkeys(named)
    missing = [number for number in dict.fromkeys(numbers) if number not in order]
    repairs["repeated_id"] += len(named) - len(order)
    repairs["missing_id"] += len(missing)
    if not order:
        repairs["illegible" if text.strip() else "empty"] += 1
        return (), +repairs
    return (*order, *missing), +repairs


def _values(text: str, repairs: Counter[str]) -> list[Found]:
    if len(text) > MAX_REPLY_LENGTH:
        repairs["too_long"] += 1
        text = text[:MAX_REPLY_LENGTH]
    if strict := strict_json(text):
        return [strict]
    repairs["not_json"] += bool(text.strip())
    return salvage(text)


class _Table:
    """A value read as grades and the passages under each; without rows if it cannot be read as such.

    `whole`: what it leaves out was left out on purpose.
    """

    def __init__(self, candidate: Found, known: frozenset[int]) -> None:
        self.repairs: Counter[str] = Counter(cut_off=int(not candidate.whole))
        self.whole = candidate.whole
        self.rows = self._read(self._unwrapped(candidate.value), known)

    def _unwrapped(self, value: Value) -> Value:
        """Without {"grades": ...} around it."""
        for _ in range(_MAX_WRAPPERS):
            if not (isinstance(value, Pairs) and len(value) == 1):
                break
            key, inner = value[0]
            if not isinstance(inner, Pairs | list) or _number(key) is not None:
                break
            value = inner
            self.repairs["other_shape"] += 1
        return value

    def _read(self, value: Value, known: frozenset[int]) -> list[Row]:
        if isinstance(value, list):
            return self._records(value)
        if not isinstance(value, Pairs):
            return []
        return self._by_passage(value) if _is_by_passage(value, known) else self._by_grade(value)

    def _by_grade(self, pairs: Pairs) -> list[Row]:
        rows = []
        for key, listed in pairs:
            grade = _grade(key)
            if grade is None:
                self.repairs["unknown_grade"] += 1
                self.whole = self.whole and not isinstance(listed, list)
            else:
                self.repairs["other_shape"] += key not in LABELS
                rows.append((grade, listed))
        self.repairs["repeated_key"] += len(pairs) - len({key for key, _ in pairs})
        return rows

    def _by_passage(self, pairs: Pairs) -> list[Row]:
        """{"7": 3, "2": 0}"""
        self.repairs["other_shape"] += 1
        return [(grade, _exact(key)) for key, value in pairs if (grade := _grade(value)) is not None]

    def _records(self, items: Sequence[Value]) -> list[Row]:
        """[{"id": 7, "grade": 3}, ...]"""
        pairs = [(_grade(_field(item, _GRADE_KEYS)), _field(item, _ID_KEYS)) for item in items]
        rows = [(grade, passage) for grade, passage in pairs if grade is not None]
        self.repairs["other_shape"] += bool(rows)
        self.repairs["junk"] += len(pairs) - len(rows)
        return rows


def _is_by_passage(pairs: Pairs, known: frozenset[int]) -> bool:
    """Whether {"7": 3, "2": 0} gives a grade for each passage, and not the passages of each grade, as it should."""
    grades = [value for _, value in pairs]
    if not all(type(grade) is int and 0 <= grade <= TOP_GRADE for grade in grades):
        return False
    by_grade = all(_grade(key) is not None for key, _ in pairs) and known.issuperset(grades)
    return not by_grade and any(_number(key) in known for key, _ in pairs)


def _listed(rows: Iterable[Row], known: frozenset[int], repairs: Counter[str]) -> dict[int, tuple[int, ...]]:
    """By falling grade."""
    named = [(grade, number) for grade, value in rows for number in _numbers([value], known, repairs)]
    lowest: dict[int, int] = {}
    for grade, number in named:
        lowest[number] = min(grade, lowest.get(number, grade))
    repairs["repeated_id"] += len(named) - len(lowest)
    listed = [(grade, number) for grade, number in dict.fromkeys(named) if lowest[number] == grade]
    grades = sorted({grade for grade, _ in listed}, reverse=True)
    return {grade: tuple(number for its, number in listed if its == grade) for grade in grades}


def _named(text: str, known: frozenset[int], repairs: Counter[str]) -> list[Value]:
    """The values that a reply puts in order: those of its fullest list, or of "[3] > [1]"."""
    if len(text) <= MAX_REPLY_LENGTH and _CHAIN.fullmatch(text):
        return [int(digits) for digits in _DIGITS.findall(text)]
    values = _values(text, repairs)
    if not values:
        return [text] if len(text) <= MAX_REPLY_LENGTH and _SEVERAL.fullmatch(text) and _DIGITS.search(text) else []
    fullness = [len(set(_numbers([_ordered(each.value)], known, Counter()))) for each in values]
    most = max(fullness)
    if most < 2:
        repairs["cut_off"] += not values[-1].whole
        return [_ordered(each.value) for each in values]
    fullest = max(at for at, count in enumerate(fullness) if count == most)
    repairs["several"] += sum(count > 1 for count in fullness) - 1
    repairs["cut_off"] += not values[fullest].whole
    return [_ordered(values[fullest].value)]


def _ordered(value: Value) -> Value:
    """Without {"order": ...} around it."""
    if not isinstance(value, Pairs):
        return value
    inner = [item for _, item in value]
    return next((item for item in inner if isinstance(item, list)), inner)


def _numbers(values: Iterable[Value], known: frozenset[int], repairs: Counter[str]) -> Iterator[int]:
    """The known numbers among the leaves, in order; counts what is repaired or dropped."""
    for leaf in _leaves(values, repairs):
        number = _number(leaf)
        if number is None:
            repairs["junk"] += 1
        elif number not in known:
            repairs["unknown_id"] += 1
        else:
            repairs["odd_id"] += type(leaf) is not int
            yield number


def _leaves(values: Iterable[Value], repairs: Counter[str]) -> Iterator[Value]:
    """All items of lists, of lists within them, and of texts that hold several numbers."""
    stack = [(value, 0) for value in reversed(list(values))]
    while stack:
        value, depth = stack.pop()
        if isinstance(value, str) and _SEVERAL.fullmatch(value) and len(digits := _DIGITS.findall(value)) > 1:
            stack.extend((each, depth) for each in reversed(digits))
        elif isinstance(value, list):
            repairs["other_shape"] += depth > 0
            stack.extend((item, depth + 1) for item in reversed(value))
        else:
            yield value


def _number(value: Value) -> int | None:
    """The number that a value names: 3, 3.0, "3", "[3]", "passage 3", {"id": 3}."""
    if isinstance(value, Pairs):
        value = _field(value, _ID_KEYS)
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        match = _NUMBERED.fullmatch(value)
        return int(match[1]) if match else None
    return value if isinstance(value, int) else None


def _exact(key: str) -> Value:
    """The number that a key spells: JSON keys can only be texts."""
    return int(key) if key.isdecimal() and len(key) < _LONG else key


def _grade(value: Value) -> int | None:
    number = _number(value)
    return number if number is not None and 0 <= number <= TOP_GRADE else None


def _field(value: Value, names: Iterable[str]) -> Value:
    fields = dict(value) if isinstance(value, Pairs) else {}
    return next((fields[name] for name in names if name in fields), None)
