"""The benchmark of the reranker's cut."""

from benchmarks.rerank_cut import Case, expected, fitted, head, kept

FILLER = [f"Our company number {n} was founded in {n} and has many friends in all parts. " for n in range(20)]


def case(before: int, answer: str) -> Case:
    text = "".join([*FILLER[:before], answer, *FILLER[before:]])
    return Case("How long do parcels to Norway take?", text, answer.strip())


ALIKE = [case(before, "Parcels to Norway take nine days. ") for before in range(20)]
UNLIKE = [case(before, "Nine days. ") for before in range(20)]


def test_what_speaks_like_the_query_is_kept() -> None:
    """Wherever it stands, while a head loses it with the place."""
    assert kept(ALIKE, 160) == 1.0
    assert 0.2 < head(ALIKE, 160) < 0.8


def test_the_fit_finds_whether_evidence_follows_the_query() -> None:
    """Strongly where each answer has the question's words, else not at all."""
    assert fitted(ALIKE)[0] > 8
    assert fitted(UNLIKE)[0] == 0


def test_expectation_rises_with_what_is_shown() -> None:
    """Up to one for the whole passage."""
    assert expected(UNLIKE, 40) < expected(UNLIKE, 160) < expected(UNLIKE, 999) == 1.0
