"""Whatever JSON comes: a good answer, or an error in the shape of the client, and never a fault of ours."""

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.corpus import fill
from tests.fakes.models import client_of, openai_style, services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

Ask = Callable[[str, Any], httpx.Response]

TURN = {"role": "user", "content": "hi"}
GOOD: dict[str, dict[str, Any]] = {
    "/v1/rerank": {"query": "dental cover", "documents": ["a", "dental"], "top_n": 2, "rank_fields": ["text"]},
    "/tei/rerank": {"query": "dental cover", "texts": ["a", "dental"], "return_text": True},
    "/v1/embeddings": {"model": "winnow-embed", "input": ["a"], "encoding_format": "float", "dimensions": 64},
    "/v1/chat/completions": {"model": "gemma-3", "messages": [TURN], "stop": "x", "seed": 1, "response_format": None},
    "/retrieval": {
        "knowledge_id": "default",
        "query": "dental",
        "retrieval_setting": {"top_k": 1, "score_threshold": 0},
    },
    "/api/v1/retrieval": {"dataset_ids": ["default"], "question": "dental", "page": 1, "metadata_condition": None},
    "/api/v1/openai/default/chat/completions": {"model": "model", "messages": [TURN], "extra_body": {}},
}
FIELDS = [(path, field) for path, body in GOOD.items() for field in body]

texts = st.text(st.characters(), max_size=20)
"""Halves of characters among them."""

atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(atoms, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
documents = st.lists(texts | st.none() | st.sampled_from(["dental cover", " ", "\0"]), max_size=8)


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Posts a body to a service with a model."""
    server = OpenAIServer(model=FakeModel(name="gemma-3"))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server):
        services = services_for(tmp_path_factory.mktemp("home"), {"gemma": openai_style(server)})
        with portal.wrap_async_context_manager(client_of(services)) as client:
            portal.call(fill, portal.call(services.store.get))
            send = partial(client.post, headers={"Content-Type": "application/json"})
            yield lambda path, body: portal.call(partial(send, path, content=json.dumps(body)))


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(where=st.sampled_from(FIELDS), value=values)
def test_any_value_in_any_field(ask: Ask, where: tuple[str, str], value: Any) -> None:
    """It is served, or refused as the client's mistake with a text."""
    path, field = where
    response = ask(path, {**GOOD[path], field: value})
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        reply = response.json()
        assert reply["error"] if "error" in reply else reply["error_msg"], reply


@settings(deadline=None, max_examples=60)
@given(query=texts.filter(str.strip), sent=documents)
def test_any_documents_are_ranked(ask: Ask, query: str, sent: list[str | None]) -> None:
    """Each comes back once, best first, with a finite score in [0,1], and the same again."""
    first, again = (ask("/v1/rerank", {"query": query, "documents": sent}).json()["results"] for _ in range(2))
    found = [result["relevance_score"] for result in first]
    assert sorted(result["index"] for result in first) == list(range(len(sent)))
    assert found == sorted(found, reverse=True)
    assert all(math.isfinite(score) and 0 <= score <= 1 for score in found)
    assert first == again
