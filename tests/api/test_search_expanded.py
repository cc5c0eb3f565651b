"""POST /search and /answer with queries that a model expands; they are fake servers on real sockets."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.api.conftest import SharedStore
from tests.fakes.answering_model import AnsweringModel
from tests.fakes.answering_service import KINDS, AnsweringService, answering_service, server_of
from tests.fakes.embedder import HashEmbedder
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.mind import Mind

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]

Answering = Callable[..., AbstractAsyncContextManager[AnsweringService]]

QUERY = "medical benefits when hired"
PASSAGE = "Dental cover begins on the first day of work."


@pytest.fixture
def answering(tmp_path: Path, store: SharedStore) -> Answering:
    """`answering_service` over HANDBOOK."""
    return partial(answering_service, tmp_path, store=store)


def says(text: str) -> Mind:
    """A model that replies so to everything but a schema."""
    return lambda turns, schema: text if schema is None else None


async def search(service: AnsweringService, status: int = 200, **body: Any) -> dict[str, Any]:
    response = await service.client.post("/search", json={"query": QUERY, "backend": "none", **body})
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    return found


def texts_asked(server: Any, kind: str) -> str:
    """All bodies of completions that the server got."""
    return str(server.bodies if kind == "gemini" else server.bodies("/v1/chat/completions"))


@pytest.mark.parametrize("kind", KINDS)
async def test_phrasings_of_a_model_are_searched_too(answering: Answering, kind: str) -> None:
    """They are found by, listed and paid for; the query stays what it was."""
    server = server_of(kind, says("1. the office opens\n2. when the office closes"))
    async with answering({"tiny": server}) as service:
        plain = await search(service)
        found = await search(service, expand_query="multi")
        assert found["results"][0]["document_id"] == "office"
        assert found["results"][0]["score"] > max(hit["score"] for hit in plain["results"])
        assert found["query"] == QUERY
        assert found["queries"] == [QUERY, "the office opens", "when the office closes"]
        assert found["usage"]["by_stage"].keys() == {"expand"}
        assert found["usage"]["by_stage"]["expand"]["output_tokens"] > 0
        assert next(iter(found["timings_ms"])) == "expand"
        assert (found["degraded"], found["warnings"]) == ([], [])
        assert f"Query: {QUERY}" in texts_asked(server, kind)
        given = await search(service, queries=["the office opens", "when the office closes"])
        assert given["results"][0]["score"] > found["results"][0]["score"]  # a model's words have less weight


async def test_a_hypothetical_passage_moves_the_vector_and_not_the_words(tmp_path: Path, store: SharedStore) -> None:
    """Its vector is averaged with the query's; no passage gets a BM25 score for its words."""
    embedder = HashEmbedder()
    settings = {"store": store, "embedder": embedder}
    async with answering_service(tmp_path, {"tiny": server_of("gemini", says(PASSAGE))}, **settings) as service:
        found = await search(service, expand_query="hyde")
        best = found["results"][0]
        assert best["document_id"] == "dental"
        assert "sparse" not in best["scores"]
        assert found["queries"] == [QUERY, PASSAGE]
        assert embedder.query_calls == [[QUERY, PASSAGE]]
        mean = np.sum(embedder.embed_documents([QUERY, PASSAGE]), axis=0)
        mean /= np.linalg.norm(mean)
        cosine = float(mean @ embedder.embed_documents([best["text"]])[0])
        assert best["scores"]["dense"] == pytest.approx(cosine, abs=1e-4)


async def test_a_passage_has_no_effect_on_words_alone(answering: Answering) -> None:
    """No model is asked for it in the mode "sparse", and a warning names the field."""
    server = server_of("gemini", says(PASSAGE))
    async with answering({"tiny": server}) as service:
        found = await search(service, expand_query="hyde", mode="sparse")
        assert found["usage"]["requests"] == 0
        assert found["warnings"][0].startswith("`expand_query` was ignored")
        assert (await search(service, expand_query="multi", mode="sparse"))["usage"]["requests"] == 1


@pytest.mark.parametrize("kind", ["gemini", "vllm"])
@pytest.mark.parametrize("way", ["multi", "hyde"])
async def test_an_expansion_that_fails_leaves_a_plain_search(answering: Answering, kind: str, way: str) -> None:
    """The same results as without it, with a sentence in `degraded`; an error only where the caller wants one."""
    server = server_of(kind, says(PASSAGE))
    async with answering({"tiny": server}) as service:
        await (await service.services.pool.get()).router.clients["tiny"].known()
        plain = await search(service)
        if isinstance(server, GeminiServer):
            server.script.extend([Fault.BAD_REQUEST] * 2)
        else:
            server.expect(Fault.BAD_REQUEST, Fault.BAD_REQUEST)
        found = await search(service, expand_query=way)
        assert found["results"] == plain["results"]
        assert "queries" not in found
        (sentence,) = found["degraded"]
        assert "not expanded (rejected)" in sentence
        problem = await search(service, 502, expand_query=way, ranking={"on_failure": "fail"})
        assert problem["type"] == "urn:winnow:problem:upstream-rejected"


@pytest.mark.parametrize("text", ["", "Here are three other queries:", "牙科保险从第一天开始", QUERY])
async def test_a_reply_that_cannot_be_used_is_not_searched_for(answering: Answering, text: str) -> None:
    """It is paid for all the same."""
    async with answering({"tiny": server_of("vllm", says(text))}) as service:
        found = await search(service, expand_query="multi")
        assert "queries" not in found
        assert found["degraded"] != []
        assert found["usage"]["by_stage"].keys() == {"expand"}


async def test_without_a_model_it_is_refused(answering: Answering) -> None:
    """422 that points at the field: there is nobody to write anything."""
    async with answering({}) as service:
        problem = await search(service, 422, expand_query="multi")
        assert problem["type"] == "urn:winnow:problem:missing-capability"
        assert problem["errors"][0]["pointer"] == "/expand_query"


@pytest.mark.parametrize("body", [{"collection": "nowhere"}, {"backend": "gpt"}])
async def test_a_search_that_cannot_work_costs_nothing(answering: Answering, body: dict[str, Any]) -> None:
    """What is wrong is found out before a model is asked."""
    server = server_of("gemini", says(PASSAGE))
    async with answering({"tiny": server}) as service:
        await search(service, 422 if "backend" in body else 404, expand_query="multi", **body)
        assert PASSAGE not in texts_asked(server, "gemini")
        assert not any("Query:" in str(one) for one in server.bodies)  # type: ignore[union-attr]


async def test_the_model_that_ranks_expands(answering: Answering) -> None:
    """And ranks by the query, not by what it wrote."""
    first, second = server_of("vllm", says("opening hours of the office")), server_of("vllm", says("never"))
    async with answering({"first": first, "second": second}) as service:
        found = await search(service, expand_query="multi", backend="first")
        assert found["usage"]["by_stage"].keys() == {"expand", "rank"}
        assert found["backend"]["used"] == "first"
        graded = str(first.bodies("/v1/chat/completions/batch"))  # type: ignore[operator]
        assert QUERY in graded
        assert "opening hours" not in graded
        assert QUERY not in str(second.bodies("/v1/chat/completions"))  # type: ignore[operator]


async def test_an_answer_can_be_searched_for_so_too(answering: Answering) -> None:
    """Its cost and time are a stage of the answer's."""
    mind = AnsweringModel()

    def expands(turns: Any, schema: Any) -> str | None:
        return "start of the dental cover" if turns[-1][1].startswith("Query:") else mind(turns, schema)

    async with answering({"tiny": server_of("gemini", expands)}) as service:
        answer = await service.ask("When does dental cover start at work?", expand_query="multi")
        assert answer["answerable"]
        assert answer["usage"]["by_stage"].keys() == {"expand", "answer"}
        assert next(iter(answer["timings_ms"])) == "expand"
