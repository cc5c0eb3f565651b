"""Measures of answers, citations and best scores, with bootstrap intervals. Pure."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import regex

from app.evaluation.models import Figure, Gate

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKERS = re.compile(r"\s?\[\d+\]")
_ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}"
_TOKEN = regex.compile(rf"[{_ALONE}]|[^\s{_ALONE}]+")


def tokens(text: str) -> list[str]:
    """What is compared: lower case, without punctuation, English articles and citation markers; CJK by character."""
    lowered = _MARKERS.sub("", text).lower()
    bare = "".join(char for char in lowered if not _is_punctuation(char))
    return _TOKEN.findall(_ARTICLES.sub(" ", bare))


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 if the answer equals one of the correct ones, else 0."""
    return _best(lambda answered, gold: float(answered == gold), answer, golds)


def f1(answer: str, golds: Sequence[str]) -> float:
    """The best token F1 over the correct answers, in [0,1]."""
    return _best(_f1, answer, golds)


def _f1(answered: list[str], gold: list[str]) -> float:
    if not answered or not gold:
        return float(answered == gold)
    shared = sum((Counter(answered) & Counter(gold)).values())
    return 2 * shared / (len(answered) + len(gold))


def _best(measure: Callable[[list[str], list[str]], float], answer: str, golds: Sequence[str]) -> float:
    answered = tokens(answer)
    return max((measure(answered, tokens(gold)) for gold in golds), default=0.0)


def _is_punctuation(char: str) -> bool:
    """ASCII punctuation, as in SQuAD's evaluation script, and that of other scripts."""
    return unicodedata.category(char)[0] == "P" or char in "$+<=>^`|~"


Supports = Callable[[int, frozenset[int]], bool]
"""(number of the sentence, some of its citations) -> whether these together support it; an empty set never does."""


def citation_recall(cited: Sequence[frozenset[int]], supports: Supports) -> float:
    """The share of sentences that their citations support. `cited` are the citations of each sentence; 0 for none."""
    recalled = [bool(citations) and supports(number, citations) for number, citations in enumerate(cited)]
    return sum(recalled) / max(len(cited), 1)


def citation_precision(cited: Sequence[frozenset[int]], supports: Supports) -> float:
    """The share of citations that are needed. 0 without citations."""
    precise = [_is_needed(number, one, group, supports) for number, group in enumerate(cited) for one in group]
    return sum(precise) / max(len(precise), 1)


def _is_needed(number: int, one: int, group: frozenset[int], supports: Supports) -> bool:
    """By ALCE: the sentence is supported, and this citation supports it alone or the others do not."""
    if not supports(number, group):
        return False
    others = group - {one}
    return supports(number, frozenset((one,))) or not (others and supports(number, others))


RECALL = 0.9
"""Of the answerable questions, at which false acceptance is measured."""


def gate(answerable: Sequence[float], unanswerable: Sequence[float]) -> Gate | None:
    """From the best score of each question; equal ones count half. None without questions of both kinds."""
    if not answerable or not unanswerable:
        return None
    accepted, refused = np.sort(np.asarray(answerable)), np.sort(np.asarray(unanswerable))
    below = np.searchsorted(refused, accepted, "left") + np.searchsorted(refused, accepted, "right")
    threshold = float(accepted[int((1 - RECALL) * len(accepted) + 1e-9)])
    return Gate(
        auroc=float(below.sum()) / (2 * len(accepted) * len(refused)),
        false_acceptance=float(np.mean(refused >= threshold)),
        threshold=threshold,
        answerable=len(accepted),
        unanswerable=len(refused),
    )


RESAMPLES = 2000
LEVEL = 0.95


def figure(values: Mapping[str, float], seed: int, resamples: int = RESAMPLES) -> Figure | None:
    """The mean over the questions, with its 95 % bootstrap interval. None without a question."""
    if not values:
        return None
    ordered = np.array([values[key] for key in sorted(values)], dtype=np.float64)
    random = np.random.default_rng(seed)
    # One resample at a time: all of them together would take gigabytes for a large set.
    means = [ordered[random.integers(len(ordered), size=len(ordered))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Figure(mean=float(ordered.mean()), low=float(low), high=float(high), n=len(ordered))


def gain(values: Mapping[str, float], baseline: Mapping[str, float], seed: int) -> Figure | None:
    """The mean difference to the baseline, paired by question: a hard question is hard for both."""
    return figure({key: values[key] - baseline[key] for key in values.keys() & baseline.keys()}, seed)
