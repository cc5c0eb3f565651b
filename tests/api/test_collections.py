"""PUT, GET and DELETE /collections/{name}."""

import shutil
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.config.settings import IndexSection, Settings
from app.main import create_app
from app.wiring import Services
from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from tests.api.conftest import SharedStore, local_client
from tests.fakes.answerer import ScriptedAnswerer
from tests.fakes.corpus import fill
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder

pytestmark = pytest.mark.anyio


async def test_a_collection_is_created_once(client: httpx.AsyncClient) -> None:
    """201, then 200 with the same body; it is empty and searchable."""
    created, again = await client.put("/collections/fresh"), await client.put("/collections/fresh", json={})
    assert (created.status_code, again.status_code) == (201, 200)
    assert created.json() == again.json() == (await client.get("/collections/fresh")).json()
    shown = created.json()
    assert (shown["documents"], shown["passages"], shown["vector_size"], shown["distance"]) == (0, 0, 64, "cosine")
    assert (shown["status"], shown["embedder"]) == ("ready", "hash-words")
    found = await client.post("/search", json={"query": "dental", "collection": "fresh"})
    assert (found.status_code, found.json()["results"]) == (200, [])


async def test_a_collection_that_lost_passages_is_incomplete(client: httpx.AsyncClient, store: SharedStore) -> None:
    """Its `status` says so until the documents are there again."""
    document = {"id": "x", "text": "dental"}
    body = {"collection": "torn", "documents": [document]}
    await client.post("/documents", json=body)
    assert (await client.get("/collections/torn")).json()["status"] == "ready"
    await store.delete_documents("torn", ["x"])
    assert (await client.get("/collections/torn")).json()["status"] == "incomplete"
    await store.drop("torn")


async def test_the_shape_may_be_said(client: httpx.AsyncClient, settings: Settings) -> None:
    """A body that agrees with the configured embedder creates, and finds again."""
    shape = {"embedding_model": settings.embedding.model, "vector_size": 64, "distance": "cosine"}
    assert (await client.put("/collections/said", json=shape)).status_code == 201
    assert (await client.put("/collections/said", json=shape)).status_code == 200


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(
    ("field", "value"), [("embedding_model", "other/model"), ("vector_size", 128), ("distance", "dot")]
)
async def test_another_shape_is_a_conflict(client: httpx.AsyncClient, field: str, value: Any, exists: bool) -> None:
    """409 that points at the field and says what it is here; nothing is created."""
    if exists:
        await client.put("/collections/shaped")
    response = await client.put("/collections/shaped", json={field: value})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (409, f"/{field}")
    assert (await client.delete("/collections/shaped")).status_code == (204 if exists else 404)


async def test_a_collection_of_another_model_is_a_conflict(client: httpx.AsyncClient, services: Services) -> None:
    """What exists and cannot be searched was not created."""
    await fill(await services.store.get(), name="othermodel", fingerprint="another model")
    response = await client.put("/collections/othermodel")
    assert response.status_code == 409
    assert "--rebuild" in response.json()["detail"]
    assert (await client.delete("/collections/othermodel")).status_code == 204  # others search all that there are


@pytest.mark.parametrize("name", [".hidden", "a%20b", "x" * 65, "a--0123456789ab", "%C3%BC"])
async def test_a_bad_name_is_refused(client: httpx.AsyncClient, name: str) -> None:
    """400 that says what a name may be."""
    response = await client.put(f"/collections/{name}")
    assert (response.status_code, response.json()["type"]) == (400, "urn:winnow:problem:invalid-name")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({"vector_size": 0}, "/vector_size"), ({"distance": "far"}, "/distance"), ({"size": 1}, "/size"), ([], "")],
)
async def test_a_bad_body_is_refused(client: httpx.AsyncClient, body: Any, pointer: str) -> None:
    """400 with a pointer."""
    response = await client.put("/collections/whatever", json=body)
    assert response.status_code == 400
    assert response.json()["errors"][0]["pointer"] == pointer


async def test_a_body_must_say_that_it_is_json(client: httpx.AsyncClient) -> None:
    """415 for anything else."""
    assert (await client.put("/collections/whatever", content=b"{}")).status_code == 415


async def test_documents_are_counted(client: httpx.AsyncClient) -> None:
    """The list and the collection tell the same numbers."""
    documents = [{"id": str(n), "text": f"text {n}"} for n in range(3)]
    await client.post("/documents", json={"collection": "counted", "documents": documents})
    shown = (await client.get("/collections/counted")).json()
    assert (shown["documents"], shown["passages"]) == (3, 3)
    assert shown in (await client.get("/collections")).json()["collections"]


async def test_a_dropped_collection_is_gone(client: httpx.AsyncClient) -> None:
    """From the list, from search, and with its documents: one of the same name starts empty."""
    body = {"collection": "dropped", "documents": [{"id": "d", "text": "dental"}]}
    await client.post("/documents", json=body)
    assert (await client.delete("/collections/dropped")).status_code == 204
    search = await client.post("/search", json={"query": "dental", "collection": "dropped"})
    again, listed = await client.delete("/collections/dropped"), await client.get("/documents?collection=dropped")
    assert [reply.status_code for reply in (search, again, listed)] == [404, 404, 404]
    assert (await client.post("/documents", json=body)).json()["created"] == 1


async def test_a_damaged_collection_is_listed_and_the_others_serve(settings: Settings, tmp_path: Path) -> None:
    """Requests to it are 503 with the way back; readiness stays 200 and warns; the listing says what is wrong."""
    store = EmbeddedStore(tmp_path / "index")
    await fill(store)
    await fill(store, name="well")
    await store.close()
    for segments in (tmp_path / "index" / "collections" / "default").glob("*/segments"):
        shutil.rmtree(segments)

    async def reopened() -> VectorStore:
        return EmbeddedStore(tmp_path / "index")

    settings = msgspec.structs.replace(settings, index=IndexSection(home=tmp_path))
    services = Services(settings, reopened, GivenEmbedder(HashEmbedder()), lambda _services: ScriptedAnswerer())
    app = create_app(settings, services)
    async with app.lifespan(), local_client(app) as client:
        listed = (await client.get("/collections")).json()["collections"]
        assert [(one["name"], one["status"] == "damaged") for one in listed] == [("default", True), ("well", False)]
        refused = await client.post("/search", json={"query": "dental"})
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:winnow:problem:collection-damaged")
        assert "winnow index --rebuild --collection default" in refused.json()["detail"] == listed[0]["detail"]
        assert (await client.post("/search", json={"query": "dental", "collection": "well"})).json()["results"]
        ready = await client.get("/health/ready")
        assert (ready.status_code, listed[0]["detail"] in ready.json()["warnings"]) == (200, True)
        assert (await client.delete("/collections/default")).status_code == 204
        assert listed[0]["detail"] not in (await client.get("/health/ready")).json()["warnings"]
