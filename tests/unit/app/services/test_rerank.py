"""Ranking texts that the caller brings along, where no model ranks them."""

import threading
from collections.abc import AsyncIterator

import pytest

from app.backends.router import Backends, Router
from app.backends.settings import RoutingSettings
from app.config.settings import CompatSettings, RankingSettings
from app.domain import ANONYMOUS
from app.errors import MissingCapability, TooLarge, UnknownBackend
from app.ranking.cache import ScoreCache
from app.ranking.reranker import Reranker
from app.services.admission import Gate, Places
from app.services.ranking import Rankers
from app.services.rerank import ALONE, BY_WORDS, MAX_QUERY_LENGTH, MAX_TEXT_LENGTH, MAX_TEXTS, TextRanker
from indexing.embedding.batching import TextEmbedder
from indexing.retrieval.bm25 import Lexical
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder

pytestmark = pytest.mark.anyio

QUERY = "When does dental cover start?"
GOOD, BAD = "Dental cover starts on the first day of work.", "Parking is free for staff."


@pytest.fixture
def embedder() -> HashEmbedder:
    return HashEmbedder()


@pytest.fixture
async def embedding(embedder: HashEmbedder) -> AsyncIterator[TextEmbedder]:
    embedding = TextEmbedder(GivenEmbedder(embedder).get)
    yield embedding
    await embedding.close()


def ranker(texts: TextEmbedder, embedder: HashEmbedder, settings: CompatSettings | None = None) -> TextRanker:
    async def router() -> Router:
        return Router([], RoutingSettings())

    rankers = Rankers(Backends(), router, Reranker(ScoreCache(9)), RankingSettings())
    return TextRanker(
        rankers,
        Lexical(),
        texts,
        GivenEmbedder(embedder).get,
        settings or CompatSettings(),
        Gate("rankings", Places(1)),
    )


async def test_every_text_has_one_place(embedding: TextEmbedder, embedder: HashEmbedder) -> None:
    """The best first, equal ones in their order, blank ones last with 0."""
    found = await ranker(embedding, embedder).rank(QUERY, [" \n", BAD, GOOD, GOOD, ""], ANONYMOUS)
    assert [index for index, _ in found.results] == [2, 3, 1, 0, 4]
    assert found.results[0][1] == found.results[1][1]
    assert [score for _, score in found.results[3:]] == [0.0, 0.0]
    assert found.timings_ms.keys() == {"match", "rank", "total"}


async def test_no_texts_are_no_error(embedding: TextEmbedder, embedder: HashEmbedder) -> None:
    """RAGFlow wants tokens above 0 in any case."""
    found = await ranker(embedding, embedder).rank("", [], ANONYMOUS)
    assert (found.results, found.input_tokens) == ((), 1)


async def test_only_short_lists_are_embedded(embedding: TextEmbedder, embedder: HashEmbedder) -> None:
    """Up to `rerank_embedded` texts are matched by vectors, too; in longer lists words must do, without a warning."""
    ours = ranker(embedding, embedder, CompatSettings(rerank_embedded=2))
    await ours.rank(QUERY, [GOOD, BAD], ANONYMOUS)
    calls = embedder.document_calls
    found = await ours.rank("cover", [GOOD, BAD, "Dental plan."], ANONYMOUS)
    assert QUERY in embedder.query_calls[-1]
    assert (embedder.document_calls, found.warnings) == (calls, ())


async def test_an_embedder_that_hangs_leaves_the_words() -> None:
    """A part of the deadline is all that it gets; the warning says so."""
    embedder = HashEmbedder(gate=threading.Event())
    texts = TextEmbedder(GivenEmbedder(embedder).get)
    ours = ranker(texts, embedder, CompatSettings(rerank_deadline_ms=100))
    found = await ours.rank(QUERY, [BAD, GOOD], ANONYMOUS)
    assert (found.results[0][0], found.warnings) == (1, (BY_WORDS,))
    assert embedder.gate is not None
    embedder.gate.set()
    await texts.close()


async def test_what_is_cut_is_said(embedding: TextEmbedder, embedder: HashEmbedder) -> None:
    """The first of the texts that are too long are named, and nothing is said of what just fits."""
    given = [GOOD, *["x" * (MAX_TEXT_LENGTH + 1)] * 6, "x" * MAX_TEXT_LENGTH]
    found = await ranker(embedding, embedder).rank(f"dental{' ' * MAX_QUERY_LENGTH}", given, ANONYMOUS)
    query, documents = found.warnings
    assert query == "the query was cut to its first 8192 characters"
    assert documents == "of documents 1, 2, 3, 4, 5, ... only the first 50000 characters were read"


@pytest.mark.parametrize(("backend", "said"), [(None, (ALONE,)), ("auto", (ALONE,)), ("none", ())])
async def test_who_wants_no_model_misses_none(
    embedding: TextEmbedder, embedder: HashEmbedder, backend: str | None, said: tuple[str, ...]
) -> None:
    """That no model ranked is said where one was wanted."""
    found = await ranker(embedding, embedder).rank(QUERY, [GOOD], ANONYMOUS, backend=backend)
    assert (found.use.used, found.degraded) == ("none", said)


@pytest.mark.parametrize(
    ("texts", "backend", "error"),
    [
        ([GOOD], "nobody", UnknownBackend),
        ([GOOD], "extractive", MissingCapability),
        ([GOOD] * (MAX_TEXTS + 1), None, TooLarge),
    ],
)
async def test_mistakes_are_found_before_any_work(
    embedding: TextEmbedder, embedder: HashEmbedder, texts: list[str], backend: str | None, error: type[Exception]
) -> None:
    """Nothing is embedded for a request that cannot be served."""
    with pytest.raises(error):
        await ranker(embedding, embedder).rank(QUERY, texts, ANONYMOUS, backend)
    assert (embedder.embedded, embedder.query_calls) == ([], [])
