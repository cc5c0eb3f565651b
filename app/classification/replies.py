"""What a model's replies say of the labels: from log-probabilities, or from what it stated. Pure; never raises."""

from collections import Counter
from collections.abc import Iterator, Sequence

from app.backends.base import LabelScores, meant_evidence, softmax
from app.backends.json_repair import MAX_REPLY_LENGTH, Found, Pairs, Value, salvage, strict_json
from app.classification.models import Judgement, Labelling

_TEXT_KEYS = ("text", "id", "number", "index")
_LABEL_KEYS = ("labels", "label")
_NAME_KEYS = ("label", "name")
_PERCENT_KEYS = ("percent", "confidence", "probability", "score")


def judged_by_letter(scores: LabelScores | None) -> Judgement | None:
    """From the first token after `choice_prompt`. None if the model meant to write something other than a letter."""
    evidence = meant_evidence(scores)
    return None if evidence is None else Judgement(tuple(softmax(evidence)), "logprobs")


def judged_by_digits(scores: Sequence[LabelScores | None]) -> Judgement | None:
    """From the first tokens after `label_prompt` for each label. None unless the model answered for all of them."""
    evidence = [meant_evidence(one) for one in scores]
    known = [one for one in evidence if one is not None]
    return Judgement(tuple(softmax(one)[1] for one in known), "logprobs") if len(known) == len(evidence) else None


def judged_by_decision(answers: Sequence[tuple[float, ...] | None], labelling: Labelling) -> Judgement | None:
    """From the answers to `decision_questions`. None unless the model answered all of them."""
    known = [answer for answer in answers if answer is not None]
    if len(known) < len(answers):
        return None
    return Judgement(known[0] if labelling.exclusive else tuple(answer[0] for answer in known), "calibrated")


def judged_as_stated(reply: str, labelling: Labelling, count: int) -> list[Judgement | None]:
    """From the reply to `stated_request` about `count` texts; None where it says nothing of one, or two things."""
    by_number: dict[int, list[Judgement | None]] = {}
    for number, stated in _records(reply[:MAX_REPLY_LENGTH], count):
        by_number.setdefault(number, []).append(_judgement(stated, labelling))
    return [said[0] if len(said := by_number.get(number, [])) == 1 else None for number in range(1, count + 1)]


def _judgement(stated: Value, labelling: Labelling) -> Judgement | None:
    percents = dict.fromkeys(labelling.names, 0.0)
    folded = _folded(labelling.names)
    for said, percent in _percents(stated):
        name = said if said in percents else folded.get(_fold(said), "")
        if name:
            percents[name] = max(percents[name], percent)
    whole = sum(percents.values())
    if labelling.exclusive and not whole:
        return None
    unit = whole if labelling.exclusive else 100.0
    return Judgement(tuple(percent / unit for percent in percents.values()), "stated")


def _folded(names: Sequence[str]) -> dict[str, str]:
    """The label that a name in other letters must mean: models write "Positive" for POSITIVE."""
    counted = Counter(map(_fold, names))
    return {fold: name for name in names if counted[fold := _fold(name)] == 1}


def _fold(name: str) -> str:
    return name.strip().casefold()


def _percents(stated: Value) -> Iterator[tuple[str, float]]:
    """Of [{"label": ..., "percent": ...}], {name: percent}, [name] or a name alone, which is taken for certain."""
    if isinstance(stated, str):
        yield stated, 100.0
    elif isinstance(stated, Pairs):
        name, percent = _field(stated, _NAME_KEYS), _percent(_field(stated, _PERCENT_KEYS))
        if isinstance(name, str):
            yield name, 100.0 if percent is None else percent
        else:
            yield from ((key, given) for key, value in stated if (given := _percent(value)) is not None)
    elif isinstance(stated, list):
        for one in stated:
            if not isinstance(one, list):
                yield from _percents(one)


def _percent(value: Value) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return min(100.0, max(0.0, float(value)))


def _records(text: str, count: int) -> Iterator[tuple[int, Value]]:
    """The number of a text, and what was stated of it. Of a reply that breaks off not the last one."""
    found = strict_json(text)
    for value in [found] if found else salvage(text):
        records = list(_listed(value))
        for record in records if value.whole else records[:-1]:
            number = _field(record, _TEXT_KEYS)
            if isinstance(number, str) and number.isdecimal():
                number = int(number[:9])
            if count == 1 and number is None:
                number = 1
            if isinstance(number, int) and not isinstance(number, bool) and 0 < number <= count:
                yield number, _field(record, _LABEL_KEYS)


def _listed(found: Found) -> Iterator[Pairs]:
    """The records in `{"results": [...]}`, in a list, or a record by itself."""
    value = found.value
    if isinstance(value, Pairs) and isinstance(results := _field(value, ("results",)), list):
        value = results
    elif isinstance(value, Pairs):
        value = [value]
    if isinstance(value, list):
        yield from (record for record in value if isinstance(record, Pairs))


def _field(pairs: Pairs, names: Sequence[str]) -> Value:
    return next((value for name in names for key, value in pairs if key == name), None)
