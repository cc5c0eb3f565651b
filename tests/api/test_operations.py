"""Health, version, backends, collections, and the description of it all."""

import asyncio
import re
import sqlite3
from contextlib import closing
from typing import Any

import httpx
import msgspec
import pytest

from app.config.settings import Settings
from app.main import create_app
from app.services.jobs import JOBS_FILE, Jobs
from app.services.warm_up import WarmUp
from app.wiring import Services
from indexing.errors import EmbedderUnavailable, IndexBusy
from indexing.store.base import VectorStore
from tests.api.conftest import SharedStore, local_client
from tests.fakes.answerer import ScriptedAnswerer
from tests.fakes.corpus import fill
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder

pytestmark = pytest.mark.anyio


async def test_the_process_lives(client: httpx.AsyncClient) -> None:
    """Liveness needs no dependency."""
    response = await client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_ready_when_everything_is_there(client: httpx.AsyncClient) -> None:
    """All dependencies are named and ready. What is warned of depends on the store that other tests fill."""
    response = await client.get("/health/ready")
    assert response.status_code == 200
    found = response.json()
    assert (found["status"], set(found)) == ("ready", {"status", "dependencies", "warnings"})
    assert found["dependencies"] == [
        {"name": "store", "ready": True, "detail": ""},
        {"name": "embedder", "ready": True, "detail": ""},
        {"name": "backends", "ready": True, "detail": ""},
    ]


async def test_a_full_disk_is_no_reason_to_send_requests_elsewhere(settings: Settings, store: SharedStore) -> None:
    """Searching goes on: it is ready, with a warning."""
    index = msgspec.structs.replace(settings.index, disk_reserve_mb=10**9)
    settings = msgspec.structs.replace(settings, index=index)

    async def open_store() -> VectorStore:
        return store

    services = Services(settings, open_store, GivenEmbedder(HashEmbedder()), lambda _services: ScriptedAnswerer())
    async with local_client(create_app(settings, services)) as client:
        response = await client.get("/health/ready")
    assert response.status_code == 200
    [warning] = response.json()["warnings"]
    assert "is not written to below" in warning


async def test_jobs_of_a_newer_version_are_left_alone(settings: Settings, services: Services) -> None:
    """Nothing is written or deleted then, as its request is refused; readiness says why, and what is there is found."""
    async with local_client(create_app(settings, services)) as client:
        documents = {"collection": "newer", "documents": [{"id": "d", "text": "dental cover"}]}
        assert (await client.post("/documents", json=documents)).status_code == 200
    await services.jobs.close()
    with closing(sqlite3.connect(settings.index.home / JOBS_FILE)) as db:
        db.execute("PRAGMA user_version=99")
    services.jobs = Jobs(settings.index.home, services.documents, services.disk)
    async with local_client(create_app(settings, services)) as client:
        changed = {"collection": "newer", "documents": [{"id": "d", "text": "another text"}]}
        refused = [await client.post("/documents", json=changed), await client.delete("/documents/d?collection=newer")]
        assert [response.status_code for response in refused] == [503, 503]
        assert (await client.get("/documents/d?collection=newer")).json()["text"] == "dental cover"
        [warning] = (await client.get("/health/ready")).json()["warnings"]
    assert "was written by a newer Winnow" in warning


async def test_not_ready_names_what_is_missing(settings: Settings) -> None:
    """A store that is held and a model that is missing are told apart, each with its reason."""

    async def busy() -> VectorStore:
        raise IndexBusy("another process holds the index")

    failing = GivenEmbedder(HashEmbedder(), failures=(EmbedderUnavailable("install it"),))
    services = Services(settings, busy, failing, lambda _services: ScriptedAnswerer())
    async with local_client(create_app(settings, services)) as client:
        response = await client.get("/health/ready")
    assert response.status_code == 503
    details = {found["name"]: found["detail"] for found in response.json()["dependencies"]}
    assert details == {"store": "another process holds the index", "embedder": "install it", "backends": ""}


async def test_version_names_the_product(client: httpx.AsyncClient) -> None:
    """Name and version."""
    found = (await client.get("/version")).json()
    assert found["name"] == "winnow"
    assert re.match(r"\d", found["version"])


async def test_backends_are_listed_with_what_they_can(client: httpx.AsyncClient) -> None:
    """Without a model, `auto` leads to "none"."""
    found = (await client.get("/backends")).json()
    assert (found["default"], found["auto"]) == ("auto", "none")
    assert {backend["name"]: backend["capabilities"] for backend in found["backends"]} == {
        "none": [],
        "extractive": ["answer"],
    }


async def test_collections_tell_what_they_hold(client: httpx.AsyncClient, store: SharedStore) -> None:
    """Counts, the embedder, and whether it is the one that runs."""
    await fill(store, name="elsewhere", fingerprint="another model")
    listed = {found["name"]: found for found in (await client.get("/collections")).json()["collections"]}
    passages = (await store.info("default")).passages  # other tests may have added some
    assert listed["default"]["passages"] == passages > 0
    assert (listed["elsewhere"]["embedder"], listed["elsewhere"]["status"]) == ("another model", "embedder_mismatch")
    assert (await client.get("/collections/default")).json()["passages"] == passages


async def test_an_unknown_collection_is_not_found(client: httpx.AsyncClient) -> None:
    """404, with its name."""
    response = await client.get("/collections/nope")
    assert response.status_code == 404
    assert "nope" in response.json()["detail"]


async def test_the_description_says_what_the_decoder_enforces(client: httpx.AsyncClient) -> None:
    """OpenAPI 3.1 with ranges, closed objects, both forms of an answer, and problems for errors."""
    api = (await client.get("/schema/openapi.json")).json()
    shape = api["components"]["schemas"]["SearchRequest"]
    answered = api["paths"]["/answer"]["post"]["responses"]
    assert api["openapi"].startswith("3.1")
    assert shape["additionalProperties"] is False
    assert shape["properties"]["limit"] == {
        "description": "Results returned.",
        "type": "integer",
        "minimum": 1,
        "maximum": 100,
        "default": 10,
    }
    assert set(answered["200"]["content"]) == {"application/json", "text/event-stream"}
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert answered["400"]["content"] == problem


async def test_every_reference_in_the_description_leads_somewhere(client: httpx.AsyncClient) -> None:
    """No shape is missing."""
    api = (await client.get("/schema/openapi.json")).json()
    names = set(re.findall(r"#/components/schemas/(\w+)", str(api)))
    assert names == set(api["components"]["schemas"])


@pytest.mark.parametrize("path", ["/schema", "/schema/openapi.yaml"])
async def test_the_description_can_be_read(client: httpx.AsyncClient, path: str) -> None:
    """As a page and as YAML, and the page asks nothing of a foreign host."""
    response = await client.get(path)
    assert response.status_code == 200
    assert "group_by_document" in response.text
    assert not re.search(r"""(src|href)=["'](https?:)?//""", response.text)


def test_the_page_escapes_what_it_shows() -> None:
    """A description is text, not markup."""
    from app.api.openapi import ReferencePage

    api: dict[str, Any] = {
        "info": {"title": "<T>", "version": "1", "description": "<script>"},
        "paths": {},
        "components": {"schemas": {"A": {"description": "<b>", "properties": {"x": {"type": "string"}}}}},
    }
    page = ReferencePage(path="/").render(None, api).decode()  # type: ignore[arg-type]
    assert "<script>" not in page
    assert "&lt;b&gt;" in page


async def test_the_reference_shows_code_as_code(client: httpx.AsyncClient) -> None:
    """And no mark of Markdown."""
    page = (await client.get("/schema", headers={"Accept": "text/html"})).text
    assert "<code>X-Request-Id</code>" in page
    assert "`" not in page


async def test_probes_and_warnings_are_asked_for_side_by_side(settings: Settings) -> None:
    """A dependency that waits for as long as a probe may does not hold up the warnings."""
    warned = asyncio.Event()

    async def faults() -> list[str]:
        warned.set()
        return ["look here"]

    services = Services(settings, no_store, GivenEmbedder(HashEmbedder()), lambda _services: ScriptedAnswerer())
    services.warm_up = WarmUp({"slow": warned.wait}, no_work, no_work, services.disk, faults, services.repairs)
    async with local_client(create_app(settings, services)) as client:
        ready = (await client.get("/health/ready")).json()
    assert ready["dependencies"] == [{"name": "slow", "ready": True, "detail": ""}]
    assert "look here" in ready["warnings"]


async def no_store() -> VectorStore:
    raise IndexBusy("held")


async def no_work(*_: object) -> None:
    """Nothing to do."""
