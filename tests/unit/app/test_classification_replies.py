"""What a model's replies say of labels."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.base import LabelScores
from app.classification import Judgement, judged_as_stated, judged_by_digits, judged_by_letter, labelling_of
from app.domain import Label

ONE = labelling_of((Label(name="A"), Label(name="B")))
SEVERAL = labelling_of(ONE.labels, exclusive=False)


def _scores(*chances: float) -> LabelScores:
    return LabelScores(logprobs=tuple(map(math.log, chances)), floor=-20.0)


def test_letters_share_the_probability() -> None:
    """The scores are those of the letters among themselves, and sum to 1."""
    judgement = judged_by_letter(_scores(0.6, 0.2))
    assert judgement is not None
    assert judgement.scores == pytest.approx((0.75, 0.25))
    assert judgement.evidence == "logprobs"


def test_another_beginning_is_no_evidence() -> None:
    """A model that meant to write something else has said nothing of the labels."""
    assert judged_by_letter(_scores(0.02, 0.01)) is None
    assert judged_by_letter(None) is None
    assert judged_by_digits([_scores(0.5, 0.5), _scores(0.01, 0.02)]) is None


def test_digits_say_it_of_each_label() -> None:
    """The score is the probability of "1" beside "0", for each label by itself."""
    judgement = judged_by_digits([_scores(0.1, 0.9), _scores(0.8, 0.2)])
    assert judgement is not None
    assert judgement.scores == pytest.approx((0.9, 0.2))


def _stated(results: Any) -> str:
    return json.dumps({"results": results})


@pytest.mark.parametrize(
    "labels",
    [
        [{"label": "A", "percent": 75}, {"label": "B", "percent": 25}],
        {"A": 75, "B": 25},
        [{"name": "A", "confidence": 75}, {"label": "B", "percent": 25}],
        [{"label": "A", "percent": 60}, {"label": "B", "percent": 20}, {"label": "other", "percent": 20}],
    ],
)
def test_percentages_become_scores(labels: Any) -> None:
    """However they are written; those of exclusive labels sum to 1, and an unknown label counts for nothing."""
    assert judged_as_stated(_stated([{"text": 1, "labels": labels}]), ONE, 1) == [Judgement((0.75, 0.25), "stated")]


def test_a_label_without_a_percentage_is_certain() -> None:
    """A name alone is what the model chose."""
    for labels in ("B", ["B"], [{"label": "B"}]):
        assert judged_as_stated(_stated([{"text": 1, "labels": labels}]), ONE, 1) == [Judgement((0.0, 1.0), "stated")]


def test_several_labels_keep_their_own_percentage() -> None:
    """What is not named does not apply; percentages beyond the range are cut."""
    reply = _stated([{"text": 1, "labels": [{"label": "A", "percent": 130}]}, {"text": 2, "labels": []}])
    assert judged_as_stated(reply, SEVERAL, 2) == [Judgement((1.0, 0.0), "stated"), Judgement((0.0, 0.0), "stated")]


def test_a_label_in_other_letters_is_meant() -> None:
    """Unless two labels differ in nothing else: then only the exact name counts."""
    labelling = labelling_of((Label(name="POSITIVE"), Label(name="NEGATIVE"), Label(name="Us"), Label(name="US")))
    for said, scores in (("Negative ", (0, 1, 0, 0)), ("US", (0, 0, 0, 1))):
        reply = _stated([{"text": 1, "labels": [{"label": said, "percent": 80}]}])
        assert judged_as_stated(reply, labelling, 1) == [Judgement(scores, "stated")]
    assert judged_as_stated(_stated([{"text": 1, "labels": ["us"]}]), labelling, 1) == [None]


def test_a_text_that_is_named_twice_or_never_is_open() -> None:
    """Nobody knows which of two statements was meant."""
    entry = {"text": 1, "labels": [{"label": "A", "percent": 90}]}
    assert judged_as_stated(_stated([entry, entry, {"text": 9, "labels": []}]), ONE, 2) == [None, None]


def test_no_label_of_exclusive_ones_is_open() -> None:
    """One of them must fit."""
    assert judged_as_stated(_stated([{"text": 1, "labels": []}]), ONE, 1) == [None]


def test_what_was_cut_off_is_open() -> None:
    """Of a reply that breaks off, the last text may have meant more."""
    reply = _stated([{"text": n, "labels": [{"label": "A", "percent": 90}]} for n in (1, 2, 3)])
    first, second, third = judged_as_stated(reply[: reply.rindex("percent")], ONE, 3)
    assert first == second == Judgement((1.0, 0.0), "stated")
    assert third is None


def test_prose_around_it_is_passed_over() -> None:
    """A fenced reply is read like a plain one."""
    reply = "Here it is:\n```json\n" + _stated([{"text": 1, "labels": [{"label": "A", "percent": 90}]}]) + "\n```"
    assert judged_as_stated(reply, ONE, 1) == [Judgement((1.0, 0.0), "stated")]


@given(st.text(max_size=300) | st.from_regex(r'\{"results": \[(\{"text": [0-3], "labels": .{0,9}\},?){0,4}\]\}'))
def test_whatever_a_model_writes_is_read(reply: str) -> None:
    """An answer for each text, whose scores are probabilities."""
    for labelling in (ONE, SEVERAL):
        judged = judged_as_stated(reply, labelling, 2)
        assert len(judged) == 2
        assert all(0 <= score <= 1 for one in judged if one for score in one.scores)
