"""How well sentences answer a question: by their terms, and by the type of answer that is asked for. Pure."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.answering.extractive.rows import Piece, Row, pieces
from app.answering.models import ParsedQuestion
from app.domain import Hit
from app.text.stopwords import asks_permission, tells_permission
from app.text.terms import fold, terms
from indexing.documents import Span

_NUMBER_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand million "
    "billion half third percent zwei drei vier funf sechs sieben acht neun zehn elf zwolf hundert tausend deux trois "
    "quatre cinq sept huit neuf dix cent mille dos tres cuatro cinco seis siete ocho nueve diez cien"
)
_TIME_WORDS = (
    "jan feb mar apr may mai jun jul aug sep oct okt nov dec dez ene centur jahrhundert siecle siglo secol decade year "
    "jahr day tag week woche month monat"
)
_NUMBER = re.compile(rf"\d+(?:[.,]\d+)*|\b(?:{_NUMBER_WORDS.replace(' ', '|')})\b|[一二两三四五六七八九十百千万亿]+")
_TIME = re.compile(
    rf"\b(?:1\d{{3}}|20\d\d)\b|\b\d+(?:st|nd|rd|th)\b|\b(?:{_TIME_WORDS.replace(' ', '|')})|\d*[年月日]|世纪"
)
_NAME = re.compile(r"(?<=[^.!?\s] )[^\W\d_a-zß-öø-ÿ][\w'’-]+")


def shape_feature(question: ParsedQuestion, sentence: str) -> float:
    """Whether the sentence holds what the question asks for (a number, a time, a name), not counting its own words.

    1 if it does, -1 if it does not, 0 if the question asks for no particular type.
    """
    if question.answer_type is None:
        return 0.0
    if question.answer_type == "name":
        candidates, own_words = _NAME.findall(sentence), question.text
    else:
        pattern = _TIME if question.answer_type == "time" else _NUMBER
        candidates, own_words = pattern.findall(fold(sentence)), fold(question.text)
    return 1.0 if any(candidate not in own_words for candidate in candidates) else -1.0


_TITLE_LINE = re.compile(r"(?:\d+(?:\.\d+)*[.)]?[ \t]+)?[^\W\d_][^\n.!?:;。！？：；]{0,60}\n(?=[^\W\d_a-zß-öø-ÿ])")
"""A line at the beginning of a paragraph that ends without a full stop, before one that begins anew."""

Spans = Sequence[Sequence[Span]]
"""Of the sentences of each passage, where they are known already."""

Scores = NDArray[np.float64]

# Fitted by `python -m benchmarks.answers --fit`, all-MiniLM-L6-v2, on 600 questions each of SQuAD 2.0 dev, CMRC 2018
# trial, XQuAD de and zh, with the same weight for each set; the benchmark reports other questions. The order: softmax
# over a question's sentences. The relevance: logistic regression, these questions against those among them whose
# article is not in the corpus, and against questions for other corpora (chunking_eval, CMRC, XQuAD zh). Rounded.
WEIGHTS = {"words": 4.5, "context": 3.7, "shape": 1.0, "passage": 2.5, "rank": 2.8, "sentence_cosine": 2.6}
RELEVANCE = {"context": 4.7, "passage": 4.3, "sentence_cosine": 2.6, "passage_cosine": 6.7, "lead": 2.4, "bias": -10.7}
VARIANT_WEIGHT = 0.5
"""The weight of a variant of a question's word, relative to the word itself."""
_NEAR = 0.5
"""Cosine. Of questions about snakes, lizards, turtles and the like "Reptiles are not permitted" has .57 and more with
MiniLM, of those about parrots, horses, bicycles or children .44 and less."""
_FIRST = 100.0
_LEADERS = 3
_CHANCE = 1.5  # BM25 points per word that are no lead even where the rest of the passages has none
_MAX_LEAD = 2.0
_FEATURES = ("words", "context", "shape", "passage", "rank")
_PASSAGE = _FEATURES.index("passage")
_LEXICAL = np.array([WEIGHTS[feature] for feature in _FEATURES])


class Sentence(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence of a passage: `text == hits[hit].text[start:end]`.

    `terms` are its own, `context` adds those of the sentence before it, of the title and of the headings. A `heading`
    (or the title) is no answer itself, nor is the head of a table. `shown` is what of a `row` is shown; "" for all.
    """

    hit: int
    start: int
    end: int
    text: str
    terms: frozenset[str]
    context: frozenset[str]
    heading: bool = False
    row: Row | None = None
    shown: str = ""


def split(hits: Sequence[Hit], spans: Spans | None = None) -> list[Sentence]:
    """All sentences of all passages, in order, each text once."""
    sentences: list[Sentence] = []
    seen: set[str] = set()
    for number, hit in enumerate(hits):
        for sentence in _sentences(number, hit, spans[number] if spans else None):
            folded = " ".join(sentence.text.split())
            if folded not in seen:
                seen.add(folded)
                sentences.append(sentence)
    return sentences


def _sentences(number: int, hit: Hit, spans: Sequence[Span] | None) -> list[Sentence]:
    text = hit.text or ""
    names = {_bare(name) for name in (hit.title, *hit.heading)}
    above = terms(" ".join((hit.title, *hit.heading)))
    sentences: list[Sentence] = []
    before = under = frozenset[str]()
    for span, row, titled in _with_title_lines(text, pieces(hit, spans)):
        piece = text[span.start : span.end]
        own = terms(piece)
        heading = titled or piece.startswith("#") or _bare(piece) in names or (row is not None and row.header)
        if row is not None:
            before = terms(" ".join(row.columns))
        elif heading:
            before, under = frozenset(), own
        context = own.union(before, under, above)
        sentence = Sentence(
            hit=number, start=span.start, end=span.end, text=piece, terms=own, context=context, heading=heading, row=row
        )
        sentences.append(sentence)
        before = own
    return sentences


def _with_title_lines(text: str, found: Iterable[Piece]) -> Iterator[tuple[Span, Row | None, bool]]:
    """The pieces, with what is only a title ("1. Forklifts") apart from the sentence below it, and whether it is one.

    Plain text does not mark its titles. One is at most half as long as the line below it, which no broken line is.
    """
    for span, row in found:
        match = _TITLE_LINE.match(text, span.start, span.end) if row is None else None
        if match is None:
            yield span, row, False
            continue
        below = text[match.end() :].partition("\n")[0]
        if 2 * len(match[0].rstrip()) > len(below):
            yield span, row, False
            continue
        yield Span(span.start, span.start + len(match[0].rstrip())), None, True
        yield Span(match.end(), span.end), None, False


def _bare(name: str) -> str:
    return " ".join(name.split()).strip("#:. ").casefold()


def lexical_features(question: ParsedQuestion, sentences: Sequence[Sentence]) -> Scores:
    """Shape (sentences, 5): words, context, shape, passage, rank."""
    rare = _Shares(question, _rarity(question.terms, sentences))
    equal = _Shares(question, dict.fromkeys(question.terms, 1.0))
    passages: dict[int, set[str]] = {}
    for sentence in sentences:
        passages.setdefault(sentence.hit, set()).update(sentence.context)
    covered = {hit: equal.of(present) for hit, present in passages.items()}
    rows = [
        (
            rare.of(sentence.terms),
            rare.of(sentence.context),
            shape_feature(question, sentence.text),
            covered[sentence.hit],
            1 / (1 + sentence.hit),
        )
        for sentence in sentences
    ]
    return np.array(rows, dtype=np.float64).reshape(len(sentences), 5)


def promising(features: Scores, limit: int) -> list[int]:
    """Indices of the `limit` sentences worth an embedding, in their order."""
    best = np.argsort(-(features @ _LEXICAL), kind="stable")[:limit]
    return sorted(int(index) for index in best)


def _rarity(query_terms: Mapping[str, object], sentences: Sequence[Sentence]) -> dict[str, float]:
    """BM25's idf over these sentences: a term that all of them share does not tell them apart."""
    count = len(sentences)
    frequency = Counter(term for sentence in sentences for term in sentence.terms & query_terms.keys())
    return {term: math.log1p((count - frequency[term] + 0.5) / (frequency[term] + 0.5)) for term in sorted(query_terms)}


class _Shares:
    """The shares of the question's terms that texts have, by weight."""

    def __init__(self, question: ParsedQuestion, weights: Mapping[str, float]) -> None:
        self._weights = [(term, weight, question.terms[term]) for term, weight in weights.items()]
        self._total = math.fsum(weights.values())

    def of(self, present: Set[str]) -> float:
        """In [0,1]; a variant of a term counts in part."""
        matched: list[float] = []
        for term, weight, variants in self._weights:
            if term in present:
                matched.append(weight)
            elif any(variant <= present for variant in variants):
                matched.append(weight * VARIANT_WEIGHT)
        return math.fsum(matched) / self._total if self._total else 0.0


def score_sentences(
    question: ParsedQuestion, hits: Sequence[Hit], sentences: Sequence[Sentence], features: Scores, cosines: Scores
) -> tuple[Scores, float]:
    """Scores of the sentences, which compare sentences of one question; and relevance in [0,1], to compare questions.

    `features`, shape (sentences, 5), and `cosines`, shape (sentences,), are in the order of `sentences`; at least one.
    """
    scores: Scores = features @ _LEXICAL + WEIGHTS["sentence_cosine"] * cosines
    best = int(np.argmax(scores))
    by_feature = relevance_features(question, hits, sentences[best], features[best], float(cosines[best]))
    evidence = RELEVANCE["bias"] + math.fsum(RELEVANCE[feature] * value for feature, value in by_feature.items())
    relevance = 1 / (1 + math.exp(-evidence))
    if (ruling := _ruling(question, sentences, cosines)) is not None and cosines[ruling] > relevance:
        scores[ruling] += _FIRST
        relevance = float(cosines[ruling])
    return scores, relevance


def _ruling(question: ParsedQuestion, sentences: Sequence[Sentence], cosines: Scores) -> int | None:
    """The sentence that rules on what may be, by its meaning alone: "Reptiles are not permitted" for snakes.

    It is near to the question, and the next one half as near at most: an embedder that cannot read finds all alike.
    """
    if not asks_permission(fold(question.text)):
        return None
    first, *others = np.argsort(-cosines, kind="stable")
    alone = not others or cosines[others[0]] * 2 <= cosines[first]
    near = cosines[first] >= _NEAR and alone and tells_permission(fold(sentences[first].text))
    return int(first) if near else None


def relevance_features(
    question: ParsedQuestion, hits: Sequence[Hit], best: Sentence, features: Scores, cosine: float
) -> dict[str, float]:
    """What `relevance` is made from; `features` has shape (5,)."""
    return {
        "context": _Shares(question, dict.fromkeys(question.terms, 1.0)).of(best.context),
        "passage": float(features[_PASSAGE]),
        "sentence_cosine": cosine,
        "passage_cosine": _passage_cosine(hits, best.hit, cosine),
        "lead": _lead(question, hits, best.hit),
    }


def _passage_cosine(hits: Sequence[Hit], number: int, cosine: float) -> float:
    """The passage's cosine; the smallest of all passages if it has none; the sentence's own if no passage has one."""
    cosines = [hit.scores.dense for hit in hits if hit.scores.dense is not None]
    own = hits[number].scores.dense
    return own if own is not None else min(cosines, default=cosine)


def _lead(question: ParsedQuestion, hits: Sequence[Hit], number: int) -> float:
    """BM25 points per word, relative to those of the passages behind the first three; in [0, `_MAX_LEAD`]."""
    words = max(1, len(question.terms))
    rest = [hit.scores.sparse or 0.0 for hit in hits[_LEADERS:]]
    chance = math.fsum(rest) / len(rest) if rest else 0.0
    return min(_MAX_LEAD, (hits[number].scores.sparse or 0.0) / (_CHANCE * words + chance))
