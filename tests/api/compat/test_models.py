"""GET /v1/models: what clients offer their users, and what RAGFlow makes of the names."""

from pathlib import Path

import httpx
import pytest

from tests.fakes.corpus import fill
from tests.fakes.models import client_of, openai_style, services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

pytestmark = pytest.mark.anyio


def ragflow_type(model: str) -> str:
    """RAGFlow's guess, by the first substring that is found."""
    for kind, words in (
        ("rerank", ("rerank",)),
        ("embedding", ("embed", "bge")),
        ("asr", ("asr", "stt", "transcribe", "whisper")),
        ("tts", ("tts", "text-to-speech")),
    ):
        if any(word in model.lower() for word in words):
            return kind
    return "chat"


async def test_every_name_is_listed_once(tmp_path: Path) -> None:
    """Ours, those of collections and backends, and the backends' own models with their context."""
    async with OpenAIServer(model=FakeModel(name="google/gemma-3", context=4096)) as server:
        services = services_for(tmp_path, {"vllm": openai_style(server)})
        async with client_of(services) as client:
            await fill(await services.store.get())
            await client.post("/v1/rerank", json={"query": "a", "documents": ["b"]})  # so that the model is known
            reply = (await client.get("/v1/models", headers={"Authorization": "Bearer x"})).json()
            one = (await client.get("/v1/models/google/gemma-3")).json()
    assert reply["object"] == "list"
    found = {model["id"]: model for model in reply["data"]}
    assert list(found) == [
        "winnow-rerank",
        "winnow-rerank@auto",
        "winnow-rerank@vllm",
        "winnow-embed",
        "winnow",
        "winnow:default",
        "google/gemma-3",
    ]
    assert len(found) == len(reply["data"])
    assert all(model["object"] == "model" and isinstance(model["created"], int) for model in reply["data"])
    assert one == found["google/gemma-3"]
    assert (one["owned_by"], one["max_model_len"]) == ("vllm", 4096)
    assert found["winnow-embed"]["max_model_len"] == 256


async def test_ragflow_guesses_right(tmp_path: Path) -> None:
    """A backend called "vllm", in which there is "vl", does not make a picture reader of the reranker."""
    async with (
        OpenAIServer() as server,
        client_of(services_for(tmp_path, {"vllm": openai_style(server)})) as client,
    ):
        ids = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
    guessed = {model: ragflow_type(model) for model in ids if model.startswith("winnow")}
    assert guessed["winnow-rerank@vllm"] == guessed["winnow-rerank"] == "rerank"
    assert (guessed["winnow-embed"], guessed["winnow"]) == ("embedding", "chat")


async def test_an_unknown_model_is_openais_404(client: httpx.AsyncClient) -> None:
    """With the way to the list."""
    response = await client.get("/v1/models/nobody/here")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert "GET /v1/models" in response.json()["error"]["message"]
