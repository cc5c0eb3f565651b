"""The collections that `benchmarks.sizes` searches: real passages and questions with their real vectors, and mixtures.

The first 20,000 points are real: the passages of the data set, and halves of them. Each further one is a real passage
with half of another one's vector added, as a passage about two things would have it, and some of its terms: its
neighbours are other mixtures, whose distances spread as those of real texts do (noise that is alike in all dimensions
would spread them as no text does). Vectors are those of the configured model.
"""

import asyncio
import gzip
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.indexed import services_at
from indexing.documents import Passage, passage_id
from indexing.embedding.model import Lane, Vectors
from indexing.retrieval.bm25 import Lexical
from indexing.settings import StoreSettings
from indexing.store.base import CollectionSpec, Point, SparseVector
from indexing.store.embedded import EmbeddedStore

BATCH, REAL, TOP, EXACT = 500, 20_000, 10, 200
SHARE = 0.5
"""Of another passage in a mixture: cosine .9 to the first."""
KEPT = 0.8
"""Of a passage's terms in a mixture."""
NEVER = 10**9


class Texts(msgspec.Struct, frozen=True):
    """Passages (title, text) and questions with their vectors, as lists of float32."""

    passages: list[tuple[str, str]]
    questions: list[str]
    dense: NDArray[np.float32]
    asked: NDArray[np.float32]

    def judged(self) -> NDArray[np.float32]:
        """The questions of which recall is taken."""
        return self.asked[-EXACT:]


class Filling(msgspec.Struct, frozen=True):
    """A filled home: what it took, how it lies, and the cosine of the TOPth passage to each judged question."""

    points: int
    seconds: float
    cpu_s: float
    settings: StoreSettings
    tenth: list[float]


class LookUp:
    """An embedder of questions that end in their number, and of documents of no matter what."""

    model_id, max_tokens, fingerprint = "look-up", 256, "look-up"

    def __init__(self, asked: NDArray[np.float32]) -> None:
        self._asked = asked

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        return self._asked[[len(text) % len(self._asked) for text in texts]]

    def embed_queries(self, texts: Sequence[str], lane: Lane = "queries") -> Vectors:
        numbers = [int(text.rpartition("#")[2]) for text in texts]
        noise = np.random.default_rng(numbers[0]).standard_normal((len(texts), self._asked.shape[1]))
        return _near(self._asked[[number % len(self._asked) for number in numbers]], noise.astype(np.float32), 0.005)

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def _near(rows: NDArray[np.float32], others: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    rows = rows + np.float32(share) * others
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def real_texts(data: Path) -> list[tuple[str, str]]:
    """Titles and texts: the passages, those of `distractors.jsonl.gz` if there are any, then halves of them."""
    lines = (data / "corpus.jsonl").read_text("utf-8").splitlines()
    if (more := data / "distractors.jsonl.gz").exists():
        lines += gzip.decompress(more.read_bytes()).decode("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    whole = [(row.get("title", ""), row["text"]) for row in rows]
    halves = [(title, half.strip()) for title, text in whole for half in _halves(text) if half.strip()]
    return [*whole, *halves][: max(REAL, len(whole))]


def _halves(text: str) -> tuple[str, str]:
    middle = text.find(" ", len(text) // 2)
    return (text[:middle], text[middle:]) if middle > 0 else (text, "")


async def embedded(data: Path, questions: int, kept: Path | None) -> Texts:
    """The data set's texts and so many of its questions, embedded by the configured model, or as `kept` has them."""
    passages = real_texts(data)
    asked = [json.loads(line)["text"] for line in (data / "queries.jsonl").read_text("utf-8").splitlines()]
    asked = asked[:: max(1, len(asked) // questions)][:questions]
    if kept is None or not await asyncio.to_thread(kept.exists):
        async with services_at(None) as services:
            model = await services.embedder.get()
            dense = await asyncio.to_thread(model.embed_documents, [text for _, text in passages])
            vectors = await asyncio.to_thread(model.embed_queries, asked)
        if kept is not None:
            np.savez(kept, dense=dense, asked=vectors)
    else:
        dense, vectors = (np.load(kept)[name] for name in ("dense", "asked"))
    return Texts(passages, asked, dense, vectors)


def batches(texts: Texts, points: int) -> Iterator[list[Point]]:
    """The first ones are the corpus itself."""
    lexical, random = Lexical(), np.random.default_rng(5)
    terms = [lexical.document(text) for _, text in texts.passages]
    for start in range(0, points, BATCH):
        numbers = np.arange(start, min(start + BATCH, points))
        copies = numbers >= len(terms)
        others = texts.dense[random.integers(len(terms), size=len(numbers))] * copies[:, None]
        yield [
            Point(passage=_passage(texts, number), dense=row, sparse=_some(terms[number % len(terms)], copy, random))
            for number, row, copy in zip(
                numbers.tolist(), _near(texts.dense[numbers % len(terms)], others, SHARE), copies, strict=True
            )
        ]


def _some(terms: SparseVector | None, copy: bool, random: np.random.Generator) -> SparseVector | None:
    if terms is None or not copy:
        return terms
    kept = np.flatnonzero(random.random(len(terms.indices)) < KEPT)
    values = np.asarray(terms.values)[kept] * random.uniform(0.8, 1.2, len(kept))
    return SparseVector(np.asarray(terms.indices)[kept].tolist(), values.tolist()) if len(kept) else terms


def _passage(texts: Texts, number: int) -> Passage:
    title, text = texts.passages[number % len(texts.passages)]
    text = text if number < len(texts.passages) else f"{text} ({number})"
    document = f"d{number // 5}"
    return Passage(
        id=passage_id(document, "1", number % 5),
        document_id=document,
        version="1",
        ordinal=number % 5,
        start=0,
        end=len(text),
        text=text,
        source=f"articles/{document}.txt",
        title=title,
        page=number % 5 // 2,
        metadata={"year": 2000 + number % 20, "lang": "en"},
    )


async def filled(home: Path, texts: Texts, points: int, settings: StoreSettings) -> Filling:
    """As an earlier run has filled it, or filled now, without a graph."""
    record = home / "filled.json"
    if await asyncio.to_thread(record.exists):
        return msgspec.json.decode(await asyncio.to_thread(record.read_bytes), type=Filling)
    store = EmbeddedStore(home / "index", optimize_from=NEVER, settings=settings)
    await store.create("default", CollectionSpec(dimension=texts.dense.shape[1], embedder=LookUp.fingerprint))
    best, seconds, cpu_s = np.full((EXACT, TOP), -1.0, np.float32), 0.0, 0.0
    for batch in batches(texts, points):
        begun, cpu = time.perf_counter(), time.process_time()
        await store.upsert("default", batch)
        seconds, cpu_s = seconds + time.perf_counter() - begun, cpu_s + time.process_time() - cpu
        cosines = texts.judged() @ np.stack([point.dense for point in batch]).T
        best = np.partition(np.hstack([best, cosines]), -TOP, axis=1)[:, -TOP:]
    await store.close()
    filling = Filling(points, seconds, cpu_s, settings, best.min(axis=1).tolist())
    await asyncio.to_thread(record.write_bytes, msgspec.json.encode(filling))
    return filling
