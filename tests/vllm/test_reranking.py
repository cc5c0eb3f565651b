"""A cross-encoder served by a real vLLM, as a backend of kind "rerank"."""

import os
from collections.abc import Iterator

import pytest

from app.backends.openai_compatible.reranking import Reranker
from app.backends.settings import BackendSettings, Dialect
from tests.fakes.tiny_cross_encoder import make_tiny_cross_encoder
from tests.vllm.running import KEY, MODEL, RunningVllm, VllmFailed, real_vllm

pytestmark = [pytest.mark.anyio, pytest.mark.vllm, pytest.mark.timeout(400)]

PLENTY_S = 60.0
QUERY = "when does the office open"
TEXTS = ["the office opens at nine", "the kettle is hot", "dental cover " * 500, "a"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVllm]:
    options = ("--max-model-len", "128")
    try:
        with real_vllm(tmp_path_factory.mktemp("reranker"), os.environ, make_tiny_cross_encoder, options) as server:
            yield server
    except VllmFailed as exc:
        pytest.fail(str(exc), pytrace=False)


@pytest.mark.parametrize("dialect", [None, "jina", "cohere", "infinity", "score"])
async def test_it_says_what_the_model_says(served: RunningVllm, dialect: Dialect | None) -> None:
    """By each of the shapes that vLLM has, a text of 1,000 words among them; the first is found by itself."""
    told = {"model": MODEL, "query": QUERY, "documents": TEXTS, "truncate_prompt_tokens": -1}
    raw = served.http.post("/v1/rerank", json=told).raise_for_status().json()
    scores = {one["index"]: one["relevance_score"] for one in raw["results"]}
    adapter = Reranker("own", BackendSettings(kind="rerank", url=served.url, api_key=KEY, dialect=dialect))
    try:
        probed = await adapter.probe(PLENTY_S)
        said = await adapter.relevance(QUERY, TEXTS, PLENTY_S)
    finally:
        await adapter.aclose()
    assert (probed.model, probed.context_tokens) == (MODEL, 128)
    order = sorted(range(len(TEXTS)), key=lambda place: said.log_odds[place])
    assert order == sorted(range(len(TEXTS)), key=lambda place: scores[place])
    assert said.tokens.input == raw["usage"]["total_tokens"]
