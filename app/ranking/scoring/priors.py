"""What retrieval's own score says about a passage that no model has read. Pure.

Of the passages that were read, both the prior and the expected grade E are known. The model is

    E given the prior ~ N(m(prior), spread^2)

where m is the isotonic (least-squares, never falling) regression of E on the prior, linear between the priors read,
level above them, and falling in a straight line to 0 at prior 0 below them: deeper candidates are worse ones.

    spread^2 = (sum of squared residuals + DOUBT * USUAL_SPREAD^2) / (n + DOUBT)

Nothing read: m(prior) = prior.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

import msgspec

USUAL_SPREAD = 0.25
"""The spread as long as nothing is read, in units of E."""

DOUBT = 4
"""How many readings that assumption weighs."""


class Knot(msgspec.Struct, frozen=True):
    """A point of the map."""

    prior: float
    expected: float


class PriorModel(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of E given the prior. `knots` by rising prior."""

    knots: tuple[Knot, ...] = ()
    spread: float = USUAL_SPREAD

    def expected(self, prior: float) -> float:
        """m(prior), in [0,1]; never falls when the prior rises."""
        prior = clip(prior)
        above = bisect_right(self.knots, prior, key=lambda knot: knot.prior)
        left = self.knots[above - 1] if above else Knot(0.0, 0.0)
        if above == len(self.knots):
            return left.expected if self.knots else prior
        right = self.knots[above]
        share = (prior - left.prior) / (right.prior - left.prior)
        return min(right.expected, left.expected + share * (right.expected - left.expected))


def clip(value: float) -> float:
    """Into [0,1]; what is no number is 0."""
    return 0.0 if math.isnan(value) else min(1.0, max(0.0, value))


def fit_prior(read: Iterable[tuple[float, float]]) -> PriorModel:
    """The model of pairs (prior, E), in any order."""
    pairs = sorted((clip(prior), clip(expected)) for prior, expected in read)
    model = PriorModel(knots=_isotonic(pairs))
    squares = math.fsum((expected - model.expected(prior)) ** 2 for prior, expected in pairs)
    spread = math.sqrt((squares + DOUBT * USUAL_SPREAD**2) / (len(pairs) + DOUBT))
    return PriorModel(knots=model.knots, spread=spread)


class _Pool:
    """Neighbouring priors that share one value: the mean of what was found there."""

    def __init__(self, prior: float, found: Sequence[float]) -> None:
        self.first = self.last = prior
        self._sum, self._n = math.fsum(found), len(found)

    @property
    def mean(self) -> float:
        return self._sum / self._n

    def swallow(self, later: "_Pool") -> None:
        self.last = later.last
        self._sum += later._sum
        self._n += later._n


def _isotonic(pairs: list[tuple[float, float]]) -> tuple[Knot, ...]:
    """Pool adjacent violators (Ayer et al., 1955), of sorted pairs."""
    pools: list[_Pool] = []
    for prior, equals in groupby(pairs, key=itemgetter(0)):
        pools.append(_Pool(prior, [expected for _, expected in equals]))
        while len(pools) > 1 and pools[-2].mean >= pools[-1].mean:
            pools[-2].swallow(pools.pop())
    return tuple(Knot(prior, min(1.0, pool.mean)) for pool in pools for prior in dict.fromkeys((pool.first, pool.last)))
