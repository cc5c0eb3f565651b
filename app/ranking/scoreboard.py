"""What is known of the candidates while they are being read, and the order that follows from it. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property

import msgspec

from app.backends.base import LabelScores
from app.errors import WinnowError
from app.ranking.injection.detector import SUSPECTED_INJECTION
from app.ranking.models import Calibration, Grade, Prepared, Ranked, Spread
from app.ranking.scoring.fusion import (
    PRIOR_WEIGHT,
    PriorModel,
    bias_of,
    fit_prior,
    fuse,
    grade_of,
    in_order,
    prior_scores,
    score_of,
    unread_scores,
)

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
