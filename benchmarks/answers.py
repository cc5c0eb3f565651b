"""How good the extractive answers are, and how well it knows when to be silent.

    python -m benchmarks.answers --data DIR [--questions 1000] [--off-topic DIR ...] [--cache DIR]
    python -m benchmarks.answers --fit --data DIR DIR ... [--off-topic DIR ...]

DIR: corpus.jsonl, queries.jsonl with `answers`, qrels.tsv, perhaps unanswerable.jsonl; of one that is asked off-topic,
only queries.jsonl is read. Answerer and search are the service's, over passages in memory. `--fit` prints the constants
of app/answering/extractive/evidence.py, from questions that are never reported.
"""

import argparse
import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from app.answering.extractive.answerer import Embed, ExtractiveSettings, select_sentences
from app.answering.questions import parse_question
from app.backends.router import Backends, Router
from app.backends.settings import RoutingSettings
from app.domain import ANONYMOUS, Answer, Query, Question
from app.services.answer import Answerer
from benchmarks.answers_corpus import Corpus, DataSet, Vectorizer
from benchmarks.answers_fit import fit
from indexing.embedding.model import Vectors

THRESHOLDS = (0.2, 0.3, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8)
LATENCY_QUESTIONS = 25


class Asked(msgspec.Struct, frozen=True):
    """One question, its answer at the default threshold, and its relevance."""

    record: dict[str, Any]
    answer: Answer
    relevance: float


def quoting_answerer(corpus: Corpus, embed: Embed) -> Answerer:
    """The use case without any model."""

    async def no_models() -> Router:
        return Router((), RoutingSettings())

    return Answerer(corpus, Backends(), no_models, embed, deadline_s=60)


async def ask(corpus: Corpus, vectorizer: Vectorizer, records: Iterable[dict[str, Any]]) -> list[Asked]:
    """Through the service's own use case; `select_sentences` runs once more for the relevance that it hides."""
    answerer = quoting_answerer(corpus, vectorizer.embed)
    settings = ExtractiveSettings(min_relevance=0)
    asked = []
    for record in records:
        query = Query(text=record["text"])
        answer = await answerer.answer(Question(search=query), ANONYMOUS)
        parsed = parse_question(query.text)
        selection = await select_sentences(parsed, answer.results, vectorizer.embed, settings, max_tokens=1024)
        asked.append(Asked(record, answer, selection.relevance))
    return asked


def holds_answer(asked: Asked) -> bool:
    """Whether a gold answer stands in a cited quote, as it is spelled."""
    return any(gold in citation.quote for gold in asked.record["answers"] for citation in asked.answer.citations)


def verbatim(asked: Asked, texts: dict[str, str]) -> list[bool]:
    """For each citation, whether its quote is the document's text at its offsets."""
    return [texts[c.document_id][c.start : c.end] == c.quote for c in asked.answer.citations]


def report_quality(name: str, asked: Sequence[Asked], texts: dict[str, str]) -> None:
    answered = [one for one in asked if one.answer.answerable]
    quotes = [citation.quote for one in answered for citation in one.answer.citations]
    true = [flag for one in answered for flag in verbatim(one, texts)]
    right = sum(map(holds_answer, answered))
    print(f"\n{name}: {len(asked)} answerable questions, threshold {ExtractiveSettings().min_relevance}")
    print(f"  answered                                  {share(len(answered), len(asked))}")
    print(f"  gold answer in a quote, of the answered   {share(right, len(answered))}")
    print(f"  gold answer in a quote, of all            {share(right, len(asked))}")
    print(f"  quotes verbatim at their offsets          {share(sum(true), len(true))}")
    print(
        f"  quotes per answer, characters per quote   {len(quotes) / len(answered):.2f}, {mean(map(len, quotes)):.0f}"
    )


def report_curve(groups: dict[str, Sequence[Asked]]) -> None:
    print(f"  share answered at threshold {' ' * 28}" + "".join(f"{threshold:8.2f}" for threshold in THRESHOLDS))
    for name, asked in groups.items():
        relevance = np.array([one.relevance for one in asked])
        row = "".join(f"{float(np.mean(relevance >= threshold)):8.3f}" for threshold in THRESHOLDS)
        print(f"    {name:46} {len(asked):5}{row}")


async def report(data: DataSet, others: Sequence[DataSet], vectorizer: Vectorizer, count: int) -> None:
    corpus = Corpus(data.passages, vectorizer)
    half = Corpus(data.half(), vectorizer)
    questions = data.to_report(count)
    asked = await ask(corpus, vectorizer, questions)
    groups = {"answerable": asked}
    if data.unanswerable:
        groups["unanswerable, about the same passage"] = await ask(corpus, vectorizer, data.unanswerable[:count])
    groups["article absent from the corpus"] = await ask(half, vectorizer, data.without_article(questions))
    for other in others:
        groups[f"off-topic, of {other.name}"] = await ask(
            corpus, vectorizer, other.elsewhere(count // 2, fitting=False)
        )
    report_quality(data.name, asked, {passage["_id"]: passage["text"] for passage in data.passages})
    report_curve(groups)
    await report_latency(corpus, vectorizer, questions[:LATENCY_QUESTIONS])


async def report_latency(corpus: Corpus, vectorizer: Vectorizer, records: Sequence[dict[str, Any]]) -> None:
    """Of the use case after its search: with every sentence embedded anew, and with all vectors known."""

    async def embed_anew(texts: Sequence[str]) -> Vectors:
        return np.asarray(await asyncio.to_thread(vectorizer.encode, texts), dtype=np.float32)

    for name, embed in (("with embedding", embed_anew), ("without", vectorizer.embed)):
        answerer = quoting_answerer(corpus, embed)
        answers = [await answerer.answer(Question(search=Query(text=record["text"])), ANONYMOUS) for record in records]
        spent = [answer.timings_ms["answer"] for answer in answers[5:]]
        p50, p95 = np.quantile(spent, 0.5), np.quantile(spent, 0.95)
        print(f"  milliseconds to answer, {name + ',':15} p50, p95 {p50:7.1f} {p95:7.1f}  ({len(spent)} questions)")


def share(part: int, whole: int) -> str:
    return f"{part / whole if whole else 0:6.1%}  ({part} of {whole})"


def mean(values: Iterable[float]) -> float:
    collected = list(values)
    return sum(collected) / len(collected) if collected else 0.0


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--off-topic", type=Path, nargs="*", default=[])
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="directory to keep vectors in between runs")
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    vectorizer = Vectorizer(arguments.cache)
    sets = [DataSet(directory, arguments.seed) for directory in arguments.data]
    if arguments.fit:
        await fit(sets, [DataSet(directory, arguments.seed) for directory in arguments.off_topic], vectorizer)
    else:
        others = [DataSet(directory, arguments.seed) for directory in arguments.off_topic]
        for data in sets:
            await report(data, others, vectorizer, arguments.questions)
    vectorizer.save()


if __name__ == "__main__":
    asyncio.run(main())
