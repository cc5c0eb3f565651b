"""What it costs that RAGFlow on Elasticsearch sends stemmed token soup: `python -m benchmarks.stemmed --data DIR`.

RAGFlow's tokenizer drops punctuation, lower-cases, lemmatises and Porter-stems what it hands to a reranker; the query
arrives as typed. Here each of the first `--depth` texts of a query by BM25 (of a BEIR-style set in DIR) is ranked
twice by the service's own matches: as it is, and stemmed alike, by NLTK's Porter stemmer as in RAGFlow 0.22
(0.27 has Snowball's), but without the lemmas of WordNet. Needs `pip install nltk`. nDCG@10:

first stage   the order that the texts arrive in
words         matches by words, of more than [compat] rerank_embedded texts all that there is without a model
vectors       matches by the vectors of the beginnings: the one neural reader that is at hand
both          by words and vectors

`share` is the part of a relevant text's match that is left after stemming: what a threshold on scores would notice.
"""

import argparse
import math
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from nltk.stem import PorterStemmer

from app.services.rerank import EMBEDDED_CHARACTERS, WordMatcher, both, match_vectors
from benchmarks.rerank_data import Task, load_set
from indexing.embedding.calibration import contrast
from indexing.embedding.loading import load_embedder
from indexing.embedding.model import Embedder
from indexing.retrieval.bm25 import Lexical
from indexing.settings import EmbeddingSettings

CUT = 10
stem = cache(PorterStemmer().stem)


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", default="scifact")
    parser.add_argument("--depth", type=int, default=64)
    parser.add_argument("--queries", type=int, default=0, help="only the first so many")
    parser.add_argument("--embedded", type=int, default=0, help="match by vectors too, for the first so many queries")
    args = parser.parse_args()
    tasks = load_set(args.data, args.set, depth=args.depth, limit=args.queries).tasks
    print(f"first stage  {_mean(ndcg([c.passage.id for c in task.candidates], task.grades) for task in tasks):.3f}")
    _show("words", [(task, *_by_words(task)) for task in tasks])
    if args.embedded:
        embedder = load_embedder(EmbeddingSettings())
        scale = contrast(embedder)
        found = [(task, *_by_vectors(task, embedder, scale)) for task in tasks[: args.embedded]]
        _show("vectors", found)
        _show("both", [(task, *_by_both(task, vectors)) for task, *vectors in found])
    return 0


def stemmed(text: str) -> str:
    """As RAGFlow's tokenizer leaves English: no punctuation, lower case, every word stemmed."""
    return " ".join(stem(word) for word in re.sub(r"\W+", " ", text).lower().split())


def ndcg(order: Sequence[str], grades: Mapping[str, int]) -> float:
    """At CUT, with exponential gains; the ideal knows all relevant texts, those that were not found too."""
    ideal = sorted(grades.values(), reverse=True)
    return _dcg([grades.get(key, 0) for key in order]) / _dcg(ideal)


def _dcg(grades: Sequence[int]) -> float:
    return math.fsum((2**grade - 1) / math.log2(place + 2) for place, grade in enumerate(grades[:CUT]))


def _texts(task: Task) -> tuple[list[str], list[str]]:
    whole = [f"{candidate.passage.title} {candidate.passage.text}" for candidate in task.candidates]
    return whole, [stemmed(text) for text in whole]


def _by_words(task: Task) -> tuple[list[float], list[float]]:
    whole, soup = (WordMatcher(Lexical()).match(task.query, texts) for texts in _texts(task))
    return whole, soup


def _by_vectors(task: Task, embedder: Embedder, scale: tuple[float, float]) -> tuple[list[float], list[float]]:
    query = embedder.embed_queries([task.query])[0]
    whole, soup = (
        match_vectors(query, embedder.embed_documents([text[:EMBEDDED_CHARACTERS] for text in texts]), *scale)
        for texts in _texts(task)
    )
    return whole, soup


def _by_both(task: Task, vectors: Sequence[list[float]]) -> tuple[list[float], list[float]]:
    whole, soup = (both(by_words, by_vectors) for by_words, by_vectors in zip(_by_words(task), vectors, strict=True))
    return whole, soup


def _show(name: str, found: Sequence[tuple[Task, list[float], list[float]]]) -> None:
    plain = [ndcg(_order(task, scores), task.grades) for task, scores, _ in found]
    soup = [ndcg(_order(task, scores), task.grades) for task, _, scores in found]
    left = [
        after / before
        for task, whole, soup_scores in found
        for candidate, before, after in zip(task.candidates, whole, soup_scores, strict=True)
        if task.grades.get(candidate.passage.id) and before
    ]
    change = _mean(soup) - _mean(plain)
    error = statistics.stdev(b - a for a, b in zip(plain, soup, strict=True)) / math.sqrt(len(plain))
    print(
        f"{name:12} {_mean(plain):.3f}   stemmed {_mean(soup):.3f}   {change:+.3f} (standard error {error:.3f})   "
        f"share {statistics.median(left):.2f}   {len(found)} queries"
    )


def _order(task: Task, scores: Sequence[float]) -> list[str]:
    by_score = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    return [task.candidates[index].passage.id for index in by_score]


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


if __name__ == "__main__":
    sys.exit(main())
