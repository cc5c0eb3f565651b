"""ALCE's citation recall and precision, against examples by hand."""

from collections.abc import Sequence

import pytest

from app.evaluation.metrics import Supports, citation_precision, citation_recall


def alone(*supporting: frozenset[int]) -> Supports:
    """Each sentence has citations that support it, each by itself."""
    return lambda number, citations: bool(supporting[number] & citations)


def together(*needed: frozenset[int]) -> Supports:
    """Each sentence is supported by all of these together alone."""
    return lambda number, citations: bool(needed[number]) and needed[number] <= citations


def sets(*cited: Sequence[int]) -> list[frozenset[int]]:
    return [frozenset(one) for one in cited]


@pytest.mark.parametrize(
    ("cited", "supports", "recall", "precision"),
    [
        (sets([0], [1]), alone(*sets([0], [1])), 1, 1),
        (sets([0], []), alone(*sets([0], [])), 1 / 2, 1),
        (sets([0, 1]), alone(*sets([0])), 1, 1 / 2),  # 1 adds nothing
        (sets([0, 1]), alone(*sets([0, 1])), 1, 1),  # each would do alone
        (sets([0, 1]), together(*sets([0, 1])), 1, 1),  # neither would
        (sets([0, 1, 2]), together(*sets([0, 1])), 1, 2 / 3),  # 2 adds nothing
        (sets([0, 1], [2]), alone(*sets([], [2])), 1 / 2, 1 / 3),  # an unsupported sentence has no precise citation
        (sets([0]), alone(*sets([])), 0, 0),
        (sets([]), alone(*sets([0])), 0, 0),
        ([], alone(), 0, 0),
    ],
)
def test_by_hand(cited: list[frozenset[int]], supports: Supports, recall: float, precision: float) -> None:
    """A sentence is recalled by what it cites together; a citation counts when its sentence is, and needs it."""
    assert citation_recall(cited, supports) == pytest.approx(recall)
    assert citation_precision(cited, supports) == pytest.approx(precision)
