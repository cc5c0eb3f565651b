"""How near an answer is to a right one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.evaluation.metrics import exact_match, f1, gate, tokens


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The  Cat, sat!", ["cat", "sat"]),
        ("An answer [1]. A thing [12]", ["answer", "thing"]),
        ("theatre and another", ["theatre", "and", "another"]),
        ("$5.50 (10 %)", ["550", "10"]),
        ("踢爆了GPU 3次。", ["踢", "爆", "了", "gpu", "3", "次"]),
        ("カタ かな 한국", ["カ", "タ", "か", "な", "한", "국"]),
        ("«Größe»…", ["größe"]),
        ("$+<=>^`|~a~b", ["ab"]),
    ],
)
def test_what_is_compared(text: str, found: list[str]) -> None:
    """Lower case without punctuation, English articles and markers; CJK by character."""
    assert tokens(text) == found


@pytest.mark.parametrize(
    ("answer", "golds", "exact", "overlap"),
    [
        ("The Panthers", ["Denver", "panthers"], 1.0, 1.0),
        ("It was in the year 1066 [1].", ["1066"], 0.0, 2 / (5 + 1)),
        ("a b b c", ["b b d"], 0.0, 2 * 2 / (3 + 3)),
        ("四分钟", ["4分钟"], 0.0, 2 * 2 / (3 + 3)),
        ("", ["x"], 0.0, 0.0),
        ("the", ["an"], 1.0, 1.0),
        ("x", [], 0.0, 0.0),
    ],
)
def test_against_figures_by_hand(answer: str, golds: list[str], exact: float, overlap: float) -> None:
    """The best over the right answers; the article is no token, and shared tokens count as often as both have them."""
    assert exact_match(answer, golds) == exact
    assert f1(answer, golds) == pytest.approx(overlap)


@given(st.text("ab cd中文.", max_size=12), st.text("ab cd中文.", max_size=12))
def test_f1_is_the_harmonic_mean(one: str, other: str) -> None:
    """Of precision and recall, whichever is which; 1 for equal texts."""
    said, gold = tokens(one), tokens(other)
    shared = 0
    rest = list(gold)
    for token in said:
        if token in rest:
            rest.remove(token)
            shared += 1
    assert f1(one, [other]) == f1(other, [one])
    assert f1(one, [one]) == 1.0
    if shared:
        precision, recall = shared / len(said), shared / len(gold)
        assert f1(one, [other]) == pytest.approx(2 * precision * recall / (precision + recall))


def test_a_gate_is_measured_by_ranks() -> None:
    """AUROC counts pairs, ties half; the threshold lets nine of ten answerable questions pass."""
    answerable = [0.05, *(0.5 + n / 100 for n in range(9))]
    found = gate(answerable, [0.05, 0.4, 0.5, 0.9])
    assert found is not None
    pairs = [(a > u) + (a == u) / 2 for a in answerable for u in (0.05, 0.4, 0.5, 0.9)]
    assert found.auroc == pytest.approx(sum(pairs) / len(pairs))
    assert (found.threshold, found.false_acceptance) == (0.5, 0.5)
    assert (found.answerable, found.unanswerable) == (10, 4)
    assert sum(score >= found.threshold for score in answerable) == 9


def test_a_gate_needs_both_kinds_of_questions() -> None:
    """Without unanswerable ones, or without answerable ones, nothing can be said."""
    assert gate([0.5], []) is None
    assert gate([], [0.5]) is None
    perfect = gate([0.9, 0.8], [0.1])
    assert perfect is not None
    assert (perfect.auroc, perfect.false_acceptance) == (1.0, 0.0)
