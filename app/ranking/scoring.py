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

from app.backends.base import MIN_MASS, LabelScores, log_evidence, mass_and_evidence, meant_evidence, softmax
from app.errors import WinnowError
from app.ranking.injection.detector import SUSPECTED_INJECTION
from app.ranking.models import LABELS, TOP_GRADE, Calibration, Grade, Ranked, Spread

# Grades

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
    """The grade of one passage. None when the model gave no label: then nothing is known about it.

    It is flagged UNRELIABLE when the labels' mass is below MIN_MASS.
    """
    mass, evidence = mass_and_evidence(scores)
    if evidence is None:
        return None
    shares = softmax([logprob - beta * b for logprob, b in zip(evidence, bias, strict=True)])
    expected = min(1.0, sum(map(mul, shares, _STEPS)))
    variance = sum(share * (step - expected) ** 2 for share, step in zip(shares, _STEPS, strict=True))
    flags = (UNRELIABLE,) if mass < MIN_MASS else ()
    return Grade(expected=expected, variance=min(0.25, variance), mass=mass, flags=flags)


def grades_of(listed: Mapping[int, Sequence[Key]], passages: Iterable[Key]) -> dict[Key, Grade]:
    """The grades of all passages that a judge was shown; it listed some, each once, best first within its grade."""
    expected = {
        passage: (grade - rank / (len(row) + 1)) / TOP_GRADE
        for grade, row in listed.items()
        if grade
        for rank, passage in enumerate(row, start=1)
    }
    return {passage: Grade(expected=expected.get(passage, 0.0), variance=JUDGE_VARIANCE) for passage in passages}


# Relevance: what a reranker says of the candidates

STEEPNESS = 1.5
"""Of a reranker's log-odds in standard deviations: they count three times as much as the prior's."""

RERANKER_VARIANCE = 0.15**2


def relevance_grades(log_odds: Mapping[str, float]) -> dict[str, Grade]:
    """The grades of passages that a reranker read, by how far each log-odds is above their mean.

    Rerankers differ in their scale: one calls an answer 0.9, another 0.001. In standard deviations of what it says of
    this query's candidates all are alike, and no grade is so sure that the prior cannot tell equals apart.
    """
    levels = standardised(list(log_odds.values()))
    return {
        key: Grade(expected=sigmoid(STEEPNESS * level), variance=RERANKER_VARIANCE)
        for key, level in zip(log_odds, levels, strict=True)
    }


# Priors: what retrieval's score says about the grade that a passage would get

USUAL_SPREAD = 0.25
"""The spread as long as nothing is read, in units of E."""

DOUBT = 4
"""How many readings that assumption weighs."""

Point = tuple[float, float]
"""A prior, and the E that goes with it."""


class PriorModel(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of E given the prior. `knots` by rising prior; between them the mean is linear."""

    knots: tuple[Point, ...] = ()
    spread: float = USUAL_SPREAD

    def expected(self, prior: float) -> float:
        """m(prior), in [0,1]; never falls when the prior rises."""
        prior = clip(prior)
        above = bisect_right(self.knots, prior, key=itemgetter(0))
        left, low = self.knots[above - 1] if above else (0.0, 0.0)
        if above == len(self.knots):
            return low if self.knots else prior
        right, high = self.knots[above]
        return min(high, low + (prior - left) / (right - left) * (high - low))


def clip(value: float) -> float:
    """Into [0,1]; NaN is 0."""
    return 0.0 if math.isnan(value) else min(1.0, max(0.0, value))


def fit_prior(read: Iterable[Point]) -> PriorModel:
    """The model of pairs (prior, E), in any order."""
    pairs = sorted((clip(prior), clip(expected)) for prior, expected in read)
    model = PriorModel(knots=_isotonic(pairs))
    squares = math.fsum((expected - model.expected(prior)) ** 2 for prior, expected in pairs)
    spread = math.sqrt((squares + DOUBT * USUAL_SPREAD**2) / (len(pairs) + DOUBT))
    return PriorModel(knots=model.knots, spread=spread)


def _isotonic(pairs: Sequence[Point]) -> tuple[Point, ...]:
    """Isotonic regression of sorted pairs by pooling adjacent violators (Ayer et al., 1955)."""
    pools: list[tuple[float, float, float, int]] = []  # first prior, last prior, sum of E, count
    for prior, equals in groupby(pairs, key=itemgetter(0)):
        values = [expected for _, expected in equals]
        first, total, count = prior, math.fsum(values), len(values)
        while pools and pools[-1][2] / pools[-1][3] >= total / count:
            first, _, before, more = pools.pop()
            total, count = before + total, more + count
        pools.append((first, prior, total, count))
    return tuple(
        (prior, min(1.0, total / count))
        for first, last, total, count in pools
        for prior in dict.fromkeys((first, last))
    )


# Scores: grade and prior fused into z, and z into an absolute score

PRIOR_WEIGHT = 0.5

MIN_GRADE = 0.01
"""No grade is surer than this: logit(0.01) = -4.6."""

FARTHEST = 3.0
"""The most that a prior's z-score or a duel's preference may be."""

_FLAT = 1e-9


def prior_scores(priors: Sequence[float], spread: Spread | None = None) -> tuple[float, ...]:
    """How far each prior is above the mean, in standard deviations, within [-3, 3].

    `spread` None: that of these priors; all are 0 when all are equal. With a given one, none depends on the others.
    """
    return standardised([clip(prior) for prior in priors], spread)


def standardised(values: Sequence[float], spread: Spread | None = None) -> tuple[float, ...]:
    """How far each is above the mean, as `prior_scores` has it."""
    if spread is None:
        count = max(len(values), 1)
        mean = math.fsum(values) / count
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / count)
    else:
        mean, deviation = spread
    if deviation < _FLAT:
        return (0.0,) * len(values)
    return tuple(max(-FARTHEST, min(FARTHEST, (value - mean) / deviation)) for value in values)


def combine(expected: float, prior_z: float = 0.0, weight: float = PRIOR_WEIGHT) -> float:
    """z, of a grade's E in [0,1] and of the prior's z-score. Rises strictly with E."""
    squeezed = MIN_GRADE + (1 - 2 * MIN_GRADE) * clip(expected)
    return math.log(squeezed / (1 - squeezed)) + weight * prior_z


def meant_log_odds(grade: Grade) -> float:
    """x of a grade: its log-odds, nearer to 0 where the model hardly meant a grade."""
    return combine(grade.expected) * min(1.0, grade.mass / MIN_MASS)


def pooled(z: float, prior: float, trust: float) -> float:
    """z of a model that is trusted so far, together with retrieval's score of the same passage.

    Their weighted mean on the scale of log-odds (Genest and Zidek, "Combining Probability Distributions", 1986): with
    no trust it is retrieval's own score, with full trust the model's.
    """
    return z if trust >= 1 else trust * z + (1 - trust) * combine(prior)


def score_of(z: float, calibration: Calibration) -> float:
    """The absolute score, in [0,1]."""
    return sigmoid(calibration.slope * z + calibration.offset)


def in_order(zs: Mapping[str, float], priors: Mapping[str, float]) -> list[str]:
    """The ids by falling z; ties by falling prior, then by id."""
    return sorted(zs, key=lambda key: (-zs[key], -clip(priors[key]), key))


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    return math.exp(x) / (1 + math.exp(x))


# Early stopping: the cut between the top k and the rest, and what is still open about it

MIN_SIGMA = 0.02

RISK = 0.02
"""Probabilities below this count as impossible, those above 1 - RISK as certain."""

_FAR = 9.0  # sigmas: beyond, Phi is 0 or 1 in floating point
_CLOSE = 1e-6  # of t: far below MIN_SIGMA
_ROOT2 = math.sqrt(2)


def top_k(grades: Mapping[str, Grade], k: int) -> tuple[float | None, dict[str, float]]:
    """The cut t, in units of E, and each read passage's probability to belong to the top k (at least 1).

    With no more than k passages read, all belong to it, and the cut is the lowest E; None as long as the top k has
    room. The same for any order of the grades.
    """
    if len(grades) <= k:
        cut = min((grade.expected for grade in grades.values()), default=None) if len(grades) == k else None
        return cut, dict.fromkeys(grades, 1.0)
    normals = {key: (grade.expected, sigma_of(grade)) for key, grade in grades.items()}
    cut = _cut(list(normals.values()), k)
    return cut, {key: phi((expected - cut) / sigma) for key, (expected, sigma) in normals.items()}


def undecided(chances: Mapping[str, float], risk: float = RISK) -> list[str]:
    """The ids that are neither surely in nor surely out of the top k, the most open first, ties by id."""
    still_open = [key for key, chance in chances.items() if risk < chance < 1 - risk]
    return sorted(still_open, key=lambda key: (abs(chances[key] - 0.5), key))


def worth_reading(unread: Mapping[str, float], model: PriorModel, cut: float | None, risk: float = RISK) -> list[str]:
    """Those of the unread (id -> prior) that could still pass the `cut`, by falling prior, ties by id.

    All of them as long as the top k has room.
    """
    hopeful = [
        key
        for key, prior in unread.items()
        if cut is None or phi((model.expected(prior) - cut) / max(model.spread, MIN_SIGMA)) > risk
    ]
    return sorted(hopeful, key=lambda key: (-unread[key], key))


def phi(x: float) -> float:
    """The standard normal distribution function."""
    return math.erfc(-x / _ROOT2) / 2


def sigma_of(grade: Grade) -> float:
    """A grade's standard deviation, never quite 0."""
    return max(math.sqrt(max(0.0, grade.variance)), MIN_SIGMA)


def _cut(normals: Sequence[tuple[float, float]], k: int) -> float:
    """The t above which k passages are expected, by bisection: their number falls to 0 as t rises."""
    low = min(expected - _FAR * sigma for expected, sigma in normals)
    high = max(expected + _FAR * sigma for expected, sigma in normals)
    scaled = [(expected, 1 / (sigma * _ROOT2)) for expected, sigma in normals]
    while high - low > _CLOSE:
        t = (low + high) / 2
        if math.fsum([math.erfc((t - expected) * scale) for expected, scale in scaled]) > 2 * k:
            low = t
        else:
            high = t
    return (low + high) / 2


# Duels: a window of passages compared side by side

WINDOW = 10
DUEL_WEIGHT = 0.5

RANK_CONSTANT = 60
"""Cormack et al., "Reciprocal Rank Fusion", 2009."""

_APART = 1e-9


def duel_window(
    order: Sequence[str], grades: Mapping[str, Grade], chances: Mapping[str, float], size: int = WINDOW
) -> list[str]:
    """At most `size` ids of `order` (those with a grade, best first) that are worth a second look, in that order.

    Half of them are contenders for the first place, the rest are undecided about the top k (`chances`, see `top_k`);
    where one side has too few, the other has more. Empty when fewer than two are left: then everything is settled.
    """
    top = contenders(order, grades)
    around = undecided(chances)
    half = (size + 1) // 2
    chosen = set(list(dict.fromkeys([*top[:half], *around, *top[half:]]))[:size])
    return [key for key in order if key in chosen] if len(chosen) > 1 else []


def contenders(order: Sequence[str], grades: Mapping[str, Grade], risk: float = RISK) -> list[str]:
    """The leader and all that are better than it with a probability above `risk`, the likeliest first.

    P(i better than the leader) = Phi((E_i - E_1) / sqrt(sigma_i^2 + sigma_1^2)). Empty when there is no rival.
    """
    if not order:
        return []
    leader = grades[order[0]]

    def beats(grade: Grade) -> float:
        return phi((grade.expected - leader.expected) / math.hypot(sigma_of(grade), sigma_of(leader)))

    chances = {key: beats(grades[key]) for key in order[1:]}
    rivals = sorted((key for key, chance in chances.items() if chance > risk), key=lambda key: -chances[key])
    return [order[0], *rivals] if rivals else []


def preferences(forward: LabelScores | None, backward: LabelScores | None) -> tuple[float, ...] | None:
    """u of each passage of the window, in its forward order. `backward` has the letters of the reversed window.

    None when an order is missing or its letters have a mass below MIN_MASS: one order alone cannot tell a passage's
    quality from the effect of its position.
    """
    one, other = _centred(forward), _centred(backward)
    if one is None or other is None:
        return None
    return tuple(max(-FARTHEST, min(FARTHEST, (f + r) / 2)) for f, r in zip(one, reversed(other), strict=True))


def _centred(scores: LabelScores | None) -> list[float] | None:
    evidence = meant_evidence(scores)
    if evidence is None:
        return None
    mean = math.fsum(evidence) / len(evidence)
    return [log - mean for log in evidence]


def apply_duel(zs: Mapping[str, float], window: Sequence[str], preferences: Sequence[float]) -> dict[str, float]:
    """All z, those of the window moved by its preferences."""
    return {**zs, **{key: zs[key] + DUEL_WEIGHT * u for key, u in zip(window, preferences, strict=True)}}


def fuse_orders(order: Sequence[str], judged: Sequence[str]) -> list[str]:
    """Two orders of the same ids as one, by reciprocal rank; ties as the judge has them."""
    rank = {key: at for at, key in enumerate(order, start=1)}
    points = {key: 1 / (RANK_CONSTANT + at) + 1 / (RANK_CONSTANT + rank[key]) for at, key in enumerate(judged, start=1)}
    return sorted(judged, key=lambda key: -points[key])


def reassign(zs: Mapping[str, float], window: Sequence[str]) -> dict[str, float]:
    """All z, those of the window handed out anew so that they fall in its order, each by at least 1e-9."""
    assigned: dict[str, float] = {}
    above = math.inf
    for key, z in zip(window, sorted((zs[key] for key in window), reverse=True), strict=True):
        assigned[key] = above = min(z, above - _APART)
    return {**zs, **assigned}


# The scoreboard: what is known of the candidates while they are being read

UNGRADED = "ungraded"
"""A model was asked and gave no grade: the passage stands where its prior says."""


class CallStats(msgspec.Struct):
    """What the model calls of one ranking took. `failures` are those of single calls, as they came."""

    rounds: int = 0
    open: bool = False
    requests: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    repairs: Counter[str] = msgspec.field(default_factory=Counter)
    failures: list[WinnowError] = []

    @contextmanager
    def round(self) -> Iterator[None]:
        """Calls made inside, in nested rounds too, run at the same time. Without any call it is no round."""
        requests, outer, self.open = self.requests, self.open, True
        try:
            yield
        finally:
            self.open = outer
            if not outer:
                self.rounds += self.requests > requests


class Scoreboard:
    """The passages of one ranking by falling prior, and what a model said of them.

    `weight` is that of the prior in the score, `spread` as in `prior_scores`. `attempted` are the ids that a model was
    asked about, whether it answered or not. `trust` in the model's grades is in [0,1].
    """

    def __init__(
        self,
        passages: Sequence[Ranked],
        calibration: Calibration,
        weight: float = PRIOR_WEIGHT,
        spread: Spread | None = None,
    ) -> None:
        self.passages = sorted(passages, key=lambda passage: (-passage.prior, passage.id))
        self.stats = CallStats()
        self.attempted: set[str] = set()
        self.trust = 1.0
        self._calibration, self._weight, self._spread = calibration, weight, spread
        self._blanks: list[LabelScores] = []
        self._scores: dict[str, LabelScores] = {}
        self._judged: dict[str, Grade] = {}
        self._relevance: dict[str, float] = {}
        self._moved: dict[str, float] = {}
        self._grades: dict[str, Grade] | None = None
        self._model: PriorModel | None = None

    @cached_property
    def priors(self) -> Mapping[str, float]:
        """By id, best first."""
        return {passage.id: passage.prior for passage in self.passages}

    @cached_property
    def _prior_zs(self) -> Mapping[str, float]:
        zs = prior_scores(list(self.priors.values()), self._spread)
        return {key: self._weight / PRIOR_WEIGHT * z for key, z in zip(self.priors, zs, strict=True)}

    @cached_property
    def _suspects(self) -> frozenset[str]:
        return frozenset(passage.id for passage in self.passages if SUSPECTED_INJECTION in passage.flags)

    @property
    def has_results(self) -> bool:
        """Whether a model has said anything about any of them."""
        return bool(self._scores or self._judged or self._relevance)

    @property
    def bias_known(self) -> bool:
        """Whether the label scorer has scored blanks."""
        return bool(self._blanks)

    def add_scores(self, scores: Mapping[str, LabelScores], blanks: Iterable[LabelScores] = ()) -> None:
        """What a label scorer said of passages, and of blanks."""
        self._scores.update(scores)
        self._blanks += blanks
        self._grades = self._model = None

    def add_grades(self, grades: Mapping[str, Grade]) -> None:
        """What a judge said."""
        self._judged.update(grades)
        self._grades = self._model = None

    def add_relevance(self, log_odds: Mapping[str, float]) -> None:
        """What a reranker said."""
        self._relevance.update(log_odds)
        self._grades = self._model = None

    def improve(self, priors: Mapping[str, float]) -> None:
        """Better priors, by id, duplicates included, than those that the passages came with."""
        improved = (
            msgspec.structs.replace(p, prior=max(priors[key] for key in (p.id, *p.duplicates))) for p in self.passages
        )
        self.passages = sorted(improved, key=lambda passage: (-passage.prior, passage.id))
        self._model = None
        for name in ("priors", "_prior_zs"):
            self.__dict__.pop(name, None)

    def move(self, zs: Mapping[str, float]) -> None:
        """What a second look found: these z replace those of the grades."""
        self._moved.update(zs)

    def grades(self) -> Mapping[str, Grade]:
        """Of those that were read."""
        if self._grades is None:
            bias = bias_of(self._blanks)
            scored = {key: grade_of(scores, bias) for key, scores in self._scores.items()}
            self._grades = {key: grade for key, grade in scored.items() if grade is not None}
            self._grades |= self._judged | relevance_grades(self._relevance)
        return self._grades

    def trusted(self, grades: Mapping[str, Grade]) -> dict[str, Grade]:
        """Those that may be shown side by side: a suspicious one could speak against its neighbours."""
        return {key: grade for key, grade in grades.items() if key not in self._suspects}

    def prior_model(self) -> PriorModel:
        """What priors say of grades, learnt from passages that are not suspicious."""
        if self._model is None:
            honest = self.trusted(self.grades())
            self._model = fit_prior((self.priors[key], grade.expected) for key, grade in honest.items())
        return self._model

    def zs(self) -> dict[str, float]:
        """Of those that were attempted; the ones that stayed ungraded have what their prior lets expect.

        A suspicious one is not believed to be better than that, nor does it rise above where retrieval has it.
        """
        graded = {key: self._graded_z(key, grade) for key, grade in self.grades().items()} | self._moved
        by_prior = {key: self._predicted_z(key) for key in self.attempted if key not in graded or key in self._suspects}
        zs = {key: min(graded.get(key, math.inf), by_prior.get(key, math.inf)) for key in self.attempted}
        return self._held_back(zs) if self._suspects else zs

    def _graded_z(self, key: str, grade: Grade) -> float:
        """The less the model meant a grade, the more counts what the prior lets expect."""
        z = pooled(combine(grade.expected, self._prior_zs[key]), self.priors[key], self.trust)
        meant = min(1.0, grade.mass / MIN_MASS)
        return z if meant == 1 else meant * z + (1 - meant) * self._predicted_z(key)

    def _predicted_z(self, key: str) -> float:
        """What the prior lets expect; it rises with the prior."""
        prior = self.priors[key]
        return pooled(combine(self.prior_model().expected(prior), self._prior_zs[key]), prior, self.trust)

    def _held_back(self, zs: Mapping[str, float]) -> dict[str, float]:
        """As many honest passages stay above each suspicious one as have better priors."""
        held = dict(zs)
        honest = sorted((z for key, z in zs.items() if key not in self._suspects), reverse=True)
        above = 0
        for key in filter(zs.__contains__, self.priors):
            if key not in self._suspects:
                above += 1
            elif above:
                held[key] = min(zs[key], math.nextafter(honest[above - 1], -math.inf))
        return held

    def ranked(self) -> tuple[Ranked, ...]:
        """Every candidate once, best first: those that were attempted by z, then the others by prior."""
        zs, grades = self.zs(), self.grades()
        scores = {key: score_of(zs[key], self._calibration) for key in in_order(zs, self.priors)}
        if self._relevance:
            grades = {key: Grade(expected=sigmoid(odds), variance=0.0) for key, odds in self._relevance.items()}
            scores = dict(zip(scores, self._relevance_scores(scores), strict=True))
        if unread := [passage for passage in self.passages if passage.id not in self.attempted]:
            last = min(scores.values(), default=1.0)
            scores |= {p.id: min(last, score_of(self._predicted_z(p.id), self._calibration)) for p in unread}
        by_id = {passage.id: passage for passage in self.passages}
        order: list[Ranked] = []
        for key, score in scores.items():
            passage, grade = by_id[key], grades.get(key)
            if grade is not None:
                order += with_duplicates(
                    msgspec.structs.replace(
                        passage,
                        score=score,
                        read=True,
                        grade=grade.expected,
                        flags=(*passage.flags, *grade.flags),
                    )
                )
            else:
                flags = (*passage.flags, UNGRADED) if key in self.attempted else passage.flags
                order += with_duplicates(msgspec.structs.replace(passage, score=score, flags=flags))
        return tuple(order)

    def _relevance_scores(self, order: Iterable[str]) -> list[float]:
        """The scores of what a reranker was asked about, by place: z orders by how its passages compare, but a score is
        absolute, the same whatever else is in the list. What is suspicious or was not read counts as its prior.
        """
        honest = {key: sigmoid(odds) for key, odds in self._relevance.items() if key not in self._suspects}
        zs = [
            pooled(combine(honest.get(key, self.priors[key]), self._prior_zs[key]), self.priors[key], self.trust)
            for key in order
        ]
        return sorted((score_of(z, self._calibration) for z in zs), reverse=True)


def with_duplicates(passage: Ranked) -> list[Ranked]:
    """A passage, and its duplicates right behind it."""
    return [passage, *(msgspec.structs.replace(passage, id=duplicate) for duplicate in passage.duplicates)]
