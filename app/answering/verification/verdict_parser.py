"""What a judge meant by its verdicts, whatever it wrote. Pure; never raises; takes time linear in the reply."""

import re
from collections.abc import Collection, Iterable, Iterator

from app.answering.verification.model_prompts import VERDICTS
from app.backends.json_repair import Pairs, Value, salvage, strict_json

LONGEST = 16_384
"""Characters of a reply that are read."""

_DEEPEST = 8
_NUMBER = re.compile(r"\s*(?:\[|statement|number|no\.?|#|\s)*(\d{1,9})(?:\.0+)?\s*\]?\s*", re.IGNORECASE)
_STATEMENT_KEYS = ("statement", "number", "id", "claim", "index")
_VERDICT_KEYS = ("verdict", "grade", "score", "support", "label")


def read_verdicts(text: str, numbers: Collection[int]) -> dict[int, int]:
    """The verdict on each statement that got one: of several the lowest. From {"2": [numbers], "1": [...], "0": [...]}.

    Also from {"1": 2, "2": 0} and [{"statement": 1, "verdict": 2}, ...], with prose, fences or wrappers around them.
    The last value that can be read counts: drafts come before it.
    """
    text = text[:LONGEST]
    strict = strict_json(text)
    values = [strict.value] if strict else [found.value for found in salvage(text)]
    for value in reversed(values):
        verdicts: dict[int, int] = {}
        for number, verdict in _pairs(_unwrapped(value)):
            if number in numbers:
                verdicts[number] = min(verdict, verdicts.get(number, verdict))
        if verdicts:
            return verdicts
    return {}


def _unwrapped(value: Value) -> Value:
    """Without {"verdicts": ...} around it."""
    for _ in range(_DEEPEST):
        if not (isinstance(value, Pairs) and len(value) == 1 and _number(value[0][0]) is None):
            break
        value = value[0][1]
    return value


def _pairs(value: Value) -> Iterator[tuple[int, int]]:
    """Statements with their verdicts."""
    if isinstance(value, list):
        for record in value:
            fields = dict(record) if isinstance(record, Pairs) else {}
            yield from _pair(_field(fields, _STATEMENT_KEYS), _field(fields, _VERDICT_KEYS))
    elif isinstance(value, Pairs):
        for key, said in value:
            if isinstance(said, list):
                for number in said:
                    yield from _pair(number, key)
            else:
                yield from _pair(key, _field(dict(said), _VERDICT_KEYS) if isinstance(said, Pairs) else said)


def _pair(statement: Value, verdict: Value) -> Iterator[tuple[int, int]]:
    number, grade = _number(statement), _number(verdict)
    if number is not None and grade is not None and grade < len(VERDICTS):
        yield number, grade


def _field(fields: dict[str, Value], names: Iterable[str]) -> Value:
    return next((fields[name] for name in names if name in fields), None)


def _number(value: Value) -> int | None:
    """Of 3, 3.0, "3", "[3]", "statement 3"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    found = _NUMBER.fullmatch(str(value))
    return int(found[1]) if found else None
