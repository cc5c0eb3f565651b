"""How near an answer is to a right one. Pure.

SQuAD's measures (Rajpurkar et al., 2016): lower case, without punctuation, articles and markers; then equal or not, and
the F1 of the tokens that both have. A Chinese, Japanese or Korean character is a token of its own, as CMRC 2018 (Cui et
al., 2019) counts Chinese.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import regex

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
