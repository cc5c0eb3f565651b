"""Measures of answers and citations, and their bootstrap intervals. Pure."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import regex

from app.evaluation.models import Figure

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKERS = re.compile(r"\s?\[\d+\]")
_ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}"
_TOKEN = regex.compile(rf"[{_ALONE}]|[^\s{_ALONE}]+")


def tokens(text: str) -> list[str]:
    """What is compared."""
    lowered = _MARKERS.sub("", text).lower()
    bare = "".join(char for char in lowered if not _is_punctuation(char))
    return _TOKEN.findall(_ARTICLES.sub(" ", bare))


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 when it equals one of the right answers, else 0."""
    return _best(lambda said, gold: float(said == gold), answer, golds)


def f1(answer: str, golds: Sequence[str]) -> float:
    """The best over the right answers, in [0,1]."""
    return _best(_f1, answer, golds)


def _f1(said: list[str], gold: list[str]) -> float:
    if not said or not gold:
        return float(said == gold)
    shared = sum((Counter(said) & Counter(gold)).values())
    return 2 * shared / (len(said) + len(gold))


def _best(measure: Callable[[list[str], list[str]], float], answer: str, golds: Sequence[str]) -> float:
    said = tokens(answer)
    return max((measure(said, tokens(gold)) for gold in golds), default=0.0)


def _is_punctuation(char: str) -> bool:
    """ASCII's, as SQuAD has it, and that of other scripts."""
    return unicodedata.category(char)[0] == "P" or char in "$+<=>^`|~"


Supports = Callable[[int, frozenset[int]], bool]
"""(number of the sentence, some of its citations) -> whether these support it together; none never do."""


def citation_recall(cited: Sequence[frozenset[int]], supports: Supports) -> float:
    """`cited` are the citations of each sentence. 0 of no sentence."""
    recalled = [bool(citations) and supports(number, citations) for number, citations in enumerate(cited)]
    return sum(recalled) / max(len(cited), 1)


def citation_precision(cited: Sequence[frozenset[int]], supports: Supports) -> float:
    """0 of no citation."""
    precise = [_is_needed(number, one, all_, supports) for number, all_ in enumerate(cited) for one in all_]
    return sum(precise) / max(len(precise), 1)


def _is_needed(number: int, one: int, all_: frozenset[int], supports: Supports) -> bool:
    if not supports(number, all_):
        return False
    others = all_ - {one}
    return supports(number, frozenset((one,))) or not (others and supports(number, others))


RESAMPLES = 2000
LEVEL = 0.95


def figure(values: Mapping[str, float], seed: int, resamples: int = RESAMPLES) -> Figure | None:
    """The mean of one value a question, and the interval in which it lies with 95 %. None of no question."""
    if not values:
        return None
    ordered = np.array([values[key] for key in sorted(values)], dtype=np.float64)
    random = np.random.default_rng(seed)
    # One resample at a time: all of them together would take gigabytes for a large set.
    means = [ordered[random.integers(len(ordered), size=len(ordered))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Figure(mean=float(ordered.mean()), low=float(low), high=float(high), n=len(ordered))


def gain(values: Mapping[str, float], baseline: Mapping[str, float], seed: int) -> Figure | None:
    """The mean difference to the baseline on the same questions: paired, for what is hard is hard for both."""
    return figure({key: values[key] - baseline[key] for key in values.keys() & baseline.keys()}, seed)
