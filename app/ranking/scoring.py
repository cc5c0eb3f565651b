"""From a model's replies to scores: grades, priors, early stopping, duels, and the scoreboard. Pure."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from operator import itemgetter, mul
from typing import TypeVar

import msgspec

from app.backends.base import LEAST_MASS, LabelScores, log_evidence, mass_and_evidence, meant_evidence, softmax
from app.errors import WinnowError
from app.ranking.injection.detector import SUSPECTED_INJECTION
from app.ranking.models import LABELS, TOP_GRADE, Calibration, Grade, Prepared, Ranked, Spread

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


Key = TypeVar("Key", bound=Hashable)

BETA = 0.5
"""How much of the bias is taken off: it is measured on blank passages, which are rightly graded low."""

UNRELIABLE = "unreliable"

SLIP = 0.2
"""How often a judge is assumed to miss the grade by one."""

JUDGE_VARIANCE = (1 / 12 + SLIP) / TOP_GRADE**2

_STEPS = tuple(grade / TOP_GRADE for grade in range(TOP_GRADE + 1))
UNBIASED = (-math.log(len(LABELS)),) * len(LABELS)


def bias_of(blanks: Iterable[LabelScores | None]) -> tuple[float, ...]:
    """The log of the labels' mean probabilities (among themselves) for passages without content.

    One blank without any bias is added to those given: few blanks do not show that a label is impossible, and no blanks
    mean no bias. After Zhao et al., "Calibrate Before Use", 2021.
    """
    seen = [evidence for evidence in (log_evidence(blank) for blank in blanks if blank) if evidence is not None]
    shares = [softmax(evidence) for evidence in (*seen, UNBIASED)]
    return tuple(math.log(math.fsum(column) / len(shares)) for column in zip(*shares, strict=True))


def grade_of(scores: LabelScores, bias: Sequence[float] = UNBIASED, beta: float = BETA) -> Grade | None:
    """The grade of one passage. None when no label was told: then nothing is known about it.

    It is flagged UNRELIABLE when the labels' mass is below LEAST_MASS.
    """
    mass, evidence = mass_and_evidence(scores)
    if evidence is None:
        return None
    shares = softmax([logprob - beta * b for logprob, b in zip(evidence, bias, strict=True)])
    expected = min(1.0, sum(map(mul, shares, _STEPS)))
    variance = sum(share * (step - expected) ** 2 for share, step in zip(shares, _STEPS, strict=True))
    flags = (UNRELIABLE,) if mass < LEAST_MASS else ()
    return Grade(expected=expected, variance=min(0.25, variance), flags=flags)


def grades_of(listed: Mapping[int, Sequence[Key]], passages: Iterable[Key]) -> dict[Key, Grade]:
    """The grades of all passages that a judge was shown; it listed some, each once, best first within its grade."""
    expected = {
        passage: (grade - rank / (len(row) + 1)) / TOP_GRADE
        for grade, row in listed.items()
        if grade
        for rank, passage in enumerate(row, start=1)
    }
    return {passage: Grade(expected=expected.get(passage, 0.0), variance=JUDGE_VARIANCE) for passage in passages}


PRIOR_WEIGHT = 0.5

LEAST = 0.01
"""No grade is surer than this: logit(0.01) = -4.6."""

_FARTHEST = 3.0
_FLAT = 1e-9


def prior_scores(priors: Sequence[float], spread: Spread | None = None) -> tuple[float, ...]:
    """How far each prior is above the mean, in standard deviations, within [-3, 3].

    `spread` None: that of these priors; all are 0 when all are equal. With a given one, none depends on the others.
    """
    priors = [clip(prior) for prior in priors]
    mean, deviation = _own_spread(priors) if spread is None else (spread.mean, spread.deviation)
    if deviation < _FLAT:
        return (0.0,) * len(priors)
    return tuple(max(-_FARTHEST, min(_FARTHEST, (prior - mean) / deviation)) for prior in priors)


def _own_spread(priors: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(priors) / max(len(priors), 1)
    return mean, math.sqrt(math.fsum((prior - mean) ** 2 for prior in priors) / max(len(priors), 1))


def fuse(expected: float, prior_z: float = 0.0, weight: float = PRIOR_WEIGHT) -> float:
    """z, of a grade's E in [0,1] and of the prior's z-score. Rises strictly with E."""
    squeezed = LEAST + (1 - 2 * LEAST) * clip(expected)
    return math.log(squeezed / (1 - squeezed)) + weight * prior_z


def score_of(z: float, calibration: Calibration) -> float:
    """The absolute score, in [0,1]."""
    return sigmoid(calibration.slope * z + calibration.offset)


def unread_scores(
    priors: Sequence[float], prior_zs: Sequence[float], model: PriorModel, calibration: Calibration, last: float
) -> tuple[float, ...]:
    """The scores of passages that no model read: what their prior lets expect, but not above `last`.

    `last` is the lowest score of those that were read (1 when none was). A higher prior never has the lower score.
    """
    return tuple(
        min(last, score_of(fuse(model.expected(prior), prior_z), calibration))
        for prior, prior_z in zip(priors, prior_zs, strict=True)
    )


def in_order(zs: Mapping[str, float], priors: Mapping[str, float]) -> list[str]:
    """The ids by falling z; ties by falling prior, then by id."""
    return sorted(zs, key=lambda key: (-zs[key], -clip(priors[key]), key))


def by_prior(priors: Mapping[str, float], among: Iterable[str]) -> list[str]:
    """Some ids by falling prior; ties by id."""
    return sorted(among, key=lambda key: (-clip(priors[key]), key))


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    return math.exp(x) / (1 + math.exp(x))


LEAST_SIGMA = 0.02

RISK = 0.02
"""What is less likely than this does not happen; what is likelier than 1 - RISK is settled."""

_FAR = 9.0  # sigmas: beyond, Phi is 0 or 1 in floating point
_CLOSE = 1e-6  # of t: far below LEAST_SIGMA
_ROOT2 = math.sqrt(2)


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """The cut t, in units of E, and each read passage's probability to belong to the top k.

    With no more than k passages read, all belong to it, and `cut` is the lowest E; None as long as the top k has room.
    """

    cut: float | None
    chances: Mapping[str, float]

    def uncertain(self, risk: float = RISK) -> list[str]:
        """The ids that are neither surely in nor surely out, the most open first, ties by id."""
        still_open = [key for key, chance in self.chances.items() if risk < chance < 1 - risk]
        return sorted(still_open, key=lambda key: (abs(self.chances[key] - 0.5), key))


def settle(grades: Mapping[str, Grade], k: int) -> Settlement:
    """Where the cut between the top k (at least 1) and the rest is. The same for any order of the grades."""
    if len(grades) < k:
        return Settlement(cut=None, chances=dict.fromkeys(grades, 1.0))
    if len(grades) == k:
        return Settlement(cut=min(grade.expected for grade in grades.values()), chances=dict.fromkeys(grades, 1.0))
    bells = {key: (grade.expected, sigma_of(grade)) for key, grade in grades.items()}
    cut = _cut(list(bells.values()), k)
    return Settlement(cut=cut, chances={key: phi((expected - cut) / sigma) for key, (expected, sigma) in bells.items()})


def worth_reading(
    unread: Mapping[str, float], model: PriorModel, settlement: Settlement, risk: float = RISK
) -> list[str]:
    """Those of the unread (id -> prior) that could still enter the top k, by falling prior, ties by id.

    All of them as long as the top k has room.
    """
    cut = settlement.cut
    hopeful = [
        key
        for key, prior in unread.items()
        if cut is None or phi((model.expected(prior) - cut) / max(model.spread, LEAST_SIGMA)) > risk
    ]
    return sorted(hopeful, key=lambda key: (-unread[key], key))


def phi(x: float) -> float:
    """The standard normal distribution function."""
    return math.erfc(-x / _ROOT2) / 2


def sigma_of(grade: Grade) -> float:
    """A grade's standard deviation, never quite 0."""
    return max(math.sqrt(max(0.0, grade.variance)), LEAST_SIGMA)


def _cut(bells: list[tuple[float, float]], k: int) -> float:
    """By bisection: the sum falls from the number of bells to 0 as t rises."""
    low = min(expected - _FAR * sigma for expected, sigma in bells)
    high = max(expected + _FAR * sigma for expected, sigma in bells)
    scaled = [(expected, 1 / (sigma * _ROOT2)) for expected, sigma in bells]
    while high - low > _CLOSE:
        t = (low + high) / 2
        if math.fsum([math.erfc((t - expected) * scale) for expected, scale in scaled]) > 2 * k:
            low = t
        else:
            high = t
    return (low + high) / 2


WINDOW = 10
DUEL_WEIGHT = 0.5
FARTHEST = 3.0

RANK_CONSTANT = 60
"""Cormack et al., "Reciprocal Rank Fusion", 2009."""

_APART = 1e-9


def window_of(
    order: Sequence[str], grades: Mapping[str, Grade], settlement: Settlement, size: int = WINDOW
) -> list[str]:
    """At most `size` ids of `order` (those with a grade, best first) that are worth a second look, in that order.

    Half of them are contenders for the first place, the rest are open around the cut; where one side has too few, the
    other has more. Empty when fewer than two are left: then everything is settled.
    """
    top = contenders(order, grades)
    around = settlement.uncertain()
    half = (size + 1) // 2
    chosen = list(dict.fromkeys([*top[:half], *around, *top[half:]]))[:size]
    return [key for key in order if key in set(chosen)] if len(chosen) > 1 else []


def contenders(order: Sequence[str], grades: Mapping[str, Grade], risk: float = RISK) -> list[str]:
    """The leader and all that are better than it with a probability above `risk`, the likeliest first.

    P(i better than the leader) = Phi((E_i - E_1) / sqrt(sigma_i^2 + sigma_1^2)). Empty when there is no rival.
    """
    if not order:
        return []
    leader = grades[order[0]]
    chances = {key: _beats(grades[key], leader) for key in order[1:]}
    rivals = sorted((key for key, chance in chances.items() if chance > risk), key=lambda key: -chances[key])
    return [order[0], *rivals] if rivals else []


def preferences(forward: LabelScores | None, backward: LabelScores | None) -> tuple[float, ...] | None:
    """u of each passage of the window, in its forward order. `backward` has the letters of the reversed window.

    None when an order is missing or its letters have a mass below LEAST_MASS: one order alone cannot tell the passage
    from its place.
    """
    one, other = _centred(forward), _centred(backward)
    if one is None or other is None:
        return None
    return tuple(max(-FARTHEST, min(FARTHEST, (f + r) / 2)) for f, r in zip(one, reversed(other), strict=True))


def duelled(zs: Mapping[str, float], window: Sequence[str], preferences: Sequence[float]) -> dict[str, float]:
    """All z, those of the window moved by its preferences."""
    return {**zs, **{key: zs[key] + DUEL_WEIGHT * u for key, u in zip(window, preferences, strict=True)}}


def merged(order: Sequence[str], judged: Sequence[str]) -> list[str]:
    """Two orders of the same ids as one, by reciprocal rank; ties as the judge has them."""
    rank = {key: at for at, key in enumerate(order, start=1)}
    points = {key: 1 / (RANK_CONSTANT + at) + 1 / (RANK_CONSTANT + rank[key]) for at, key in enumerate(judged, start=1)}
    return sorted(judged, key=lambda key: -points[key])


def redealt(zs: Mapping[str, float], window: Sequence[str]) -> dict[str, float]:
    """All z, those of the window dealt out so that they fall in its order, each by at least 1e-9."""
    dealt: dict[str, float] = {}
    above = math.inf
    for key, z in zip(window, sorted((zs[key] for key in window), reverse=True), strict=True):
        dealt[key] = above = min(z, above - _APART)
    return {**zs, **dealt}


def _beats(grade: Grade, leader: Grade) -> float:
    return phi((grade.expected - leader.expected) / math.hypot(sigma_of(grade), sigma_of(leader)))


def _centred(scores: LabelScores | None) -> list[float] | None:
    evidence = meant_evidence(scores)
    if evidence is None:
        return None
    mean = math.fsum(evidence) / len(evidence)
    return [log - mean for log in evidence]


UNGRADED = "ungraded"
"""A model was asked, and did not tell: the passage stands where its prior says."""


class Tally(msgspec.Struct):
    """What reading took. `failures` are those of single calls, as they came."""

    rounds: int = 0
    open: bool = False
    requests: int = 0
    hits: int = 0
    misses: int = 0
    repairs: Counter[str] = msgspec.field(default_factory=Counter)
    failures: list[WinnowError] = []

    @contextmanager
    def round(self) -> Iterator[None]:
        """What is asked inside, in rounds inside too, is asked at the same time. If all was known, it was none."""
        asked, outer, self.open = self.requests, self.open, True
        try:
            yield
        finally:
            self.open = outer
            if not outer:
                self.rounds += self.requests > asked


class Sheet:
    """`passages` by falling prior, and what a model made of them.

    `weight` is that of the prior in the score, `spread` as in `prior_scores`. `opened` are those that a model was asked
    about.
    """

    def __init__(
        self,
        passages: Sequence[Prepared],
        calibration: Calibration,
        weight: float = PRIOR_WEIGHT,
        spread: Spread | None = None,
    ) -> None:
        self.passages = sorted(passages, key=lambda passage: (-passage.prior, passage.id))
        self.tally = Tally()
        self.opened: set[str] = set()
        self._calibration, self._weight, self._spread = calibration, weight, spread
        self._blanks: list[LabelScores] = []
        self._scores: dict[str, LabelScores] = {}
        self._judged: dict[str, Grade] = {}
        self._moved: dict[str, float] = {}
        self._grades: dict[str, Grade] | None = None
        self._model: PriorModel | None = None

    @cached_property
    def priors(self) -> Mapping[str, float]:
        """By id, best first."""
        return {passage.id: passage.prior for passage in self.passages}

    @property
    def begun(self) -> bool:
        """Whether a model has said anything about any of them."""
        return bool(self._scores or self._judged)

    def unopened(self) -> list[Prepared]:
        """Those that no model was asked about."""
        return [passage for passage in self.passages if passage.id not in self.opened]

    @property
    def unbiased(self) -> bool:
        """Whether the label scorer's bias is known."""
        return bool(self._blanks)

    def score(self, scores: Mapping[str, LabelScores], blanks: Iterable[LabelScores] = ()) -> None:
        """Note what a label scorer said of passages, and of blanks."""
        self._scores.update(scores)
        self._blanks += blanks
        self._changed()

    def judge(self, grades: Mapping[str, Grade]) -> None:
        """Note what a judge said."""
        self._judged.update(grades)
        self._changed()

    def move(self, zs: Mapping[str, float]) -> None:
        """Note a second look: these z replace those of the grades."""
        self._moved.update(zs)

    def grades(self) -> Mapping[str, Grade]:
        """Of those that were read."""
        if self._grades is None:
            bias = bias_of(self._blanks)
            scored = {key: grade_of(scores, bias) for key, scores in self._scores.items()}
            self._grades = {key: grade for key, grade in scored.items() if grade is not None} | self._judged
        return self._grades

    def prior_model(self) -> PriorModel:
        """What priors say of grades, as far as honest passages tell."""
        if self._model is None:
            honest = self.trusted(self.grades())
            self._model = fit_prior((self.priors[key], grade.expected) for key, grade in honest.items())
        return self._model

    def zs(self) -> dict[str, float]:
        """Of those that were opened; the ones that stayed ungraded have what their prior lets expect.

        A suspicious one is not believed to be better than that, nor does it rise above where retrieval has it.
        """
        graded = {key: fuse(grade.expected, self._prior_zs[key]) for key, grade in self.grades().items()} | self._moved
        hoped = {key: self._hoped(key) for key in self.opened if key not in graded or key in self._suspects}
        zs = {key: min(graded.get(key, math.inf), hoped.get(key, math.inf)) for key in self.opened}
        return self._held_back(zs) if self._suspects else zs

    def _held_back(self, zs: Mapping[str, float]) -> dict[str, float]:
        """As many honest ones stay above each suspicious one as have better priors."""
        held = dict(zs)
        honest = sorted((z for key, z in zs.items() if key not in self._suspects), reverse=True)
        above = 0
        for key in filter(zs.__contains__, self.priors):
            if key not in self._suspects:
                above += 1
            elif above:
                held[key] = min(zs[key], math.nextafter(honest[above - 1], -math.inf))
        return held

    def _hoped(self, key: str) -> float:
        return fuse(self.prior_model().expected(self.priors[key]), self._prior_zs[key])

    def trusted(self, grades: Mapping[str, Grade]) -> dict[str, Grade]:
        """Those that may be looked at side by side: a suspicious one could speak against its neighbours."""
        return {key: grade for key, grade in grades.items() if key not in self._suspects}

    def ranked(self) -> tuple[Ranked, ...]:
        """Everyone once, best first: those that were opened by z, then the others by prior."""
        zs = self.zs()
        scores = {key: score_of(zs[key], self._calibration) for key in in_order(zs, self.priors)}
        if rest := self.unopened():
            priors, prior_zs = [p.prior for p in rest], [self._prior_zs[p.id] for p in rest]
            last = min(scores.values(), default=1.0)
            left = unread_scores(priors, prior_zs, self.prior_model(), self._calibration, last)
            scores |= dict(zip((passage.id for passage in rest), left, strict=True))
        return tuple(self._everyone(scores, self.grades()))

    def _everyone(self, scores: Mapping[str, float], grades: Mapping[str, Grade]) -> Iterator[Ranked]:
        by_id = {passage.id: passage for passage in self.passages}
        for key, score in scores.items():
            grade = grades.get(key)
            flags = (UNGRADED,) if key in self.opened and grade is None else ()
            yield from places(by_id[key], score, grade, read=grade is not None, flags=flags)

    def _changed(self) -> None:
        self._grades = self._model = None

    @cached_property
    def _prior_zs(self) -> Mapping[str, float]:
        zs = prior_scores(list(self.priors.values()), self._spread)
        return {key: self._weight / PRIOR_WEIGHT * z for key, z in zip(self.priors, zs, strict=True)}

    @cached_property
    def _suspects(self) -> frozenset[str]:
        return frozenset(passage.id for passage in self.passages if SUSPECTED_INJECTION in passage.flags)


def places(
    passage: Prepared, score: float, grade: Grade | None = None, *, read: bool, flags: tuple[str, ...] = ()
) -> Iterable[Ranked]:
    """A passage's place, and those of its twins right behind it."""
    flags = (*passage.flags, *(grade.flags if grade else ()), *flags)
    for key in (passage.id, *passage.twins):
        yield Ranked(
            id=key,
            score=score,
            read=read,
            grade=grade.expected if grade else None,
            uncertainty=math.sqrt(grade.variance) if grade else None,
            flags=flags,
        )
