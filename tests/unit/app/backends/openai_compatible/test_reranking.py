"""The servers of rerankers, each in the shape that it really has."""

import math
from collections.abc import AsyncIterator
from typing import get_args

import pytest

from app.backends.openai_compatible.reranking import MOST_LOG_ODDS, PATHS, Reranker
from app.backends.settings import BackendSettings, Dialect
from app.errors import (
    MissingCapability,
    UpstreamBadReply,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from tests.fakes.rerank_server import BATCH, KEY, MODEL, PRODUCTS, RerankServer, relevance

pytestmark = pytest.mark.anyio

QUERY = "how hot is the kettle"
TEXTS = ["the kettle is hot", "nothing of this", "how hot", "the kettle"]


@pytest.fixture(params=PRODUCTS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[RerankServer]:
    async with RerankServer(request.param) as running:
        yield running


def reranker(server: RerankServer, **settings: object) -> Reranker:
    """Named as it has to be: some servers do not say which model they have."""
    url = server.url if server.product == "tei" else f"{server.url}/v1"
    given = {"kind": "rerank", "url": url, "api_key": KEY, "model": MODEL} | settings
    return Reranker("tei", BackendSettings(**given))  # type: ignore[arg-type]


async def test_each_server_is_understood(server: RerankServer) -> None:
    """The shape is tried out once; then the texts come back in their order, as log-odds, with what was read."""
    adapter = reranker(server)
    assert adapter.reranker is None
    probed = await adapter.probe(5)
    assert (probed.model, probed.capabilities) == (MODEL, {"rerank"})
    assert probed.requests == 1
    assert probed.tokens.input > 0
    answer = await adapter.relevance(QUERY, TEXTS, 5)
    assert answer.log_odds == pytest.approx([relevance(QUERY, text) for text in TEXTS])
    assert answer.tokens.input >= len(TEXTS)
    assert answer.requests == 1
    await adapter.ping(5)
    await adapter.aclose()


async def test_raw_scores_are_taken_for_what_they_are() -> None:
    """llama.cpp and some models send log-odds; one score outside of [0,1] shows it, for good."""
    async with RerankServer("jina", raw=True) as server:
        adapter = reranker(server)
        await adapter.probe(5)
        answer = await adapter.relevance("a b c d e f g h", ["a b c d"], 5)
        assert answer.log_odds == (relevance("a b c d e f g h", "a b c d"),) == (0.0,)
        await adapter.aclose()


@pytest.mark.parametrize("product", ["tei", "vllm", "infinity"])
async def test_the_model_may_be_left_to_the_server(product: str) -> None:
    """Where the server names it."""
    async with RerankServer(product) as server:  # type: ignore[arg-type]
        adapter = reranker(server, model=None)
        assert (await adapter.probe(5)).model == MODEL
        await adapter.aclose()


async def test_a_long_list_is_split_as_the_server_wants_it() -> None:
    """text-embeddings-inference says how many texts it takes at once; the order stays."""
    texts = [f"the kettle {'is hot ' * (number % 3)}{number}" for number in range(2 * BATCH + 1)]
    async with RerankServer("tei") as server:
        adapter = reranker(server)
        await adapter.probe(5)
        answer = await adapter.relevance(QUERY, texts, 5)
        assert answer.log_odds == pytest.approx([relevance(QUERY, text) for text in texts])
        assert [len(body["texts"]) for body in server.asked[1:]] == [BATCH, BATCH, 1]
        assert answer.requests == 3
        await adapter.aclose()


async def test_vllm_is_told_to_cut_long_texts() -> None:
    """It would refuse them otherwise; others cut by themselves, and may refuse the field."""
    async with RerankServer("vllm") as vllm, RerankServer("jina") as jina:
        for server in (vllm, jina):
            adapter = reranker(server)
            await adapter.probe(5)
            await adapter.relevance(QUERY, TEXTS, 5)
            await adapter.aclose()
        assert vllm.asked[-1]["truncate_prompt_tokens"] == -1
        assert "truncate_prompt_tokens" not in jina.asked[-1]


async def test_cohere_bills_searches() -> None:
    """150 texts are two of them."""
    async with RerankServer("cohere") as server:
        adapter = reranker(server)
        await adapter.probe(5)
        assert (await adapter.relevance(QUERY, ["the kettle"] * 150, 5)).requests == 2
        await adapter.aclose()


async def test_the_settings_may_name_the_shape() -> None:
    """Then no other is tried."""
    async with RerankServer("cohere") as server:
        adapter = reranker(server, dialect="jina")
        with pytest.raises(UpstreamRejected, match="no such endpoint"):
            await adapter.probe(5)
        await adapter.aclose()
        adapter = reranker(server, dialect="cohere")
        assert (await adapter.probe(5)).capabilities == {"rerank"}
        await adapter.aclose()
    assert PATHS.keys() == set(get_args(Dialect))


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        (b'{"results": [{"index": 0, "relevance_score": 0.5}]}', "texts are missing"),
        (b'{"results": [{"index": 0, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.1}]}', "one twice"),
        (b'{"results": [{"index": 0, "relevance_score": 0.5}, {"index": 7, "relevance_score": 0.1}]}', "unknown"),
        (b'{"results": [{"index": 0}, {"index": 1, "relevance_score": 0.1}]}', "no score"),
        (b'{"results": [{"index": 0, "relevance_score": 1e999}, {"index": 1, "relevance_score": 0.1}]}', "infinite"),
        (b"{}", "nothing"),
        (b"<html>", "no JSON"),
        (b"[" * 100_000, "nested without end"),
    ],
)
async def test_a_spoilt_reply_is_a_bad_reply(spoilt: bytes, why: str) -> None:
    """No score is made up for a text that the server left out."""
    async with RerankServer("jina") as server:
        adapter = reranker(server)
        await adapter.probe(5)
        server.spoilt = spoilt
        with pytest.raises(UpstreamBadReply, match="cannot be read"):
            await adapter.relevance(QUERY, TEXTS[:2], 5)
        await adapter.aclose()


async def test_certainty_is_finite() -> None:
    """A probability that was rounded to 0 or 1 is a large log-odds, not an infinite one."""
    async with RerankServer("jina") as server:
        adapter = reranker(server)
        await adapter.probe(5)
        server.spoilt = b'{"results": [{"index": 0, "relevance_score": 1}, {"index": 1, "relevance_score": 0}]}'
        assert (await adapter.relevance(QUERY, TEXTS[:2], 5)).log_odds == (MOST_LOG_ODDS, -MOST_LOG_ODDS)
        assert math.isclose(1 / (1 + math.exp(-MOST_LOG_ODDS)), 1 - 1e-6, rel_tol=1e-7)
        await adapter.aclose()


@pytest.mark.parametrize(
    ("status", "error"), [(429, UpstreamRateLimited), (503, UpstreamUnavailable), (413, UpstreamRejected)]
)
async def test_errors_are_those_of_every_backend(server: RerankServer, status: int, error: type[Exception]) -> None:
    """And repeat nothing that the server wrote."""
    adapter = reranker(server)
    await adapter.probe(5)
    server.failing = [status]
    with pytest.raises(error) as raised:
        await adapter.relevance(QUERY, TEXTS, 5)
    assert "secret" not in str(raised.value)
    await adapter.aclose()


async def test_a_wrong_key_is_named() -> None:
    """Not the shapes that were tried after it."""
    async with RerankServer("voyage") as server:
        adapter = reranker(server, api_key="wrong")
        with pytest.raises(UpstreamRejected, match=r"rejects the API key"):
            await adapter.probe(5)
        await adapter.aclose()


async def test_it_does_not_write() -> None:
    """Neither at once nor in pieces."""
    adapter = reranker(RerankServer("tei"))
    with pytest.raises(MissingCapability, match="is a reranker: it cannot write"):
        await adapter.complete(None, 1)  # type: ignore[arg-type]
    with pytest.raises(MissingCapability, match="is a reranker: it cannot write"):
        adapter.stream(None, 1)  # type: ignore[arg-type]
    await adapter.aclose()
