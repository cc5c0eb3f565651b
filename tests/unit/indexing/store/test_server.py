"""What the server store makes of servers that fail, and how it cuts its requests. No Qdrant server needed."""

import asyncio
import socket
from typing import Any

import msgspec
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models

from indexing.documents import EVERYTHING
from indexing.errors import StoreBusy, StoreUnavailable
from indexing.filters import parse_filter
from indexing.settings import StoreSettings
from indexing.store.base import Retrieval, SparseVector
from indexing.store.payload import BUILT_IN_INDEXES, MAX_INDEXES
from indexing.store.server import ServerStore
from indexing.store.server_requests import batches, sides
from tests.fakes.http_server import answering
from tests.fakes.points import SPEC, point, vector

pytestmark = pytest.mark.anyio

QUERY = Retrieval(dense=vector(1.0))


def over_rest(url: str) -> ServerStore:
    """A store that waits for a second."""
    return ServerStore.connect(StoreSettings(url=url, grpc_port=0, timeout_s=1))


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, b'{"status":{"error":"Invalid API key"}}', "QDRANT_API_KEY"),
        (403, b"forbidden", "read and write"),
        (400, b'{"status":{"error":"Wrong input"}}', "refuses: 400"),
        (500, b"<html>oops</html>", "refuses: 500"),
        (503, b"", "does not answer"),
        (504, b"", "in time"),
        (404, b"<html>not found</html>", "address of a Qdrant server"),
        (200, b"<html>a login page</html>", "does not answer"),
        (200, b'{"result":"of another kind"}', "does not answer"),
        (429, b'{"status":{"error":"Too many requests"}}', "is busy"),
    ],
)
async def test_refusals_become_store_unavailable(status: int, body: bytes, message: str) -> None:
    """Whatever a server or a proxy answers instead of a result is StoreUnavailable, saying what came."""
    with answering(status, body, headers={"Retry-After": "1"}) as url:
        store = over_rest(url)
        for call in (
            store.retrieve("docs", QUERY, EVERYTHING),
            store.collections(),
            store.upsert("docs", [point("d1")]),
        ):
            with pytest.raises(StoreUnavailable, match=message):
                await call
        await store.close()


@pytest.mark.parametrize(("said", "wait"), [({"Retry-After": "7"}, 7), ({}, 1), ({"Retry-After": "tomorrow"}, 1)])
async def test_a_busy_server_is_asked_again_when_it_says(said: dict[str, str], wait: float) -> None:
    """A 429 may be repeated after the seconds that the server names, or after one."""
    with answering(429, b'{"status":{"error":"Too many requests"}}', headers=said) as url:
        store = over_rest(url)
        with pytest.raises(StoreBusy, match="rate limits") as caught:
            await store.retrieve("docs", QUERY, EVERYTHING)
        await store.close()
    assert (caught.value.retryable, caught.value.retry_after) == (True, wait)


async def test_the_servers_own_text_is_logged_only(caplog: pytest.LogCaptureFixture) -> None:
    """The error names the status; what the server wrote is in the log."""
    with answering(400, b'{"status":{"error":"SECRET"}}') as url:
        store = over_rest(url)
        with pytest.raises(StoreUnavailable) as caught:
            await store.collections()
        await store.close()
    assert str(caught.value) == "the vector store refuses: 400"
    assert "SECRET" in caplog.text


async def test_a_server_of_another_kind() -> None:
    """A 404 for what every Qdrant server has is no missing collection."""
    with answering(404, b"<html>nothing here</html>") as url:
        store = over_rest(url)
        for call in (store.retrieve("docs", QUERY, EVERYTHING), store.collections()):
            with pytest.raises(StoreUnavailable, match="address of a Qdrant server"):
                await call
        await store.close()


async def test_slow_server_is_given_up() -> None:
    """A server that does not answer within the timeout is StoreUnavailable."""
    with answering(200, delay=1.5) as url:
        store = over_rest(url)
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await store.collections()
        await store.close()


@pytest.mark.parametrize("over_grpc", [True, False])
async def test_nobody_listens(over_grpc: bool) -> None:
    """A port where nobody listens is StoreUnavailable, by either protocol."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        store = ServerStore.connect(StoreSettings(url=url, grpc_port=port if over_grpc else 0, timeout_s=1))
        with pytest.raises(StoreUnavailable):
            await store.retrieve("docs", QUERY, EVERYTHING)
        await store.close()


def test_batches_stay_below_the_request_limit() -> None:
    """Large passages are sent in several requests, each far below 32 MB; all are sent, in order."""
    points = [point(f"d{i}", text="牙" * 400_000) for i in range(20)]
    sizes, sent = [], []
    for batch in batches(points):
        sizes.append(sum(len(msgspec.json.encode(payload)) for _, payload in batch))
        sent += [payload["document_id"] for _, payload in batch]
    assert sent == [f"d{i}" for i in range(20)]
    assert len(sizes) > 1
    assert max(sizes) < 16 * 2**20


def test_batches_are_limited_by_number() -> None:
    """Small passages come 512 to a request; none at all make no request."""
    assert [len(batch) for batch in batches([point(f"d{i}") for i in range(1100)])] == [512, 512, 76]
    assert list(batches([])) == []


def test_both_sides_go_out_in_one_batch() -> None:
    """Each side of a retrieval is one query with the same limit and filter, and neither brings mirrors back."""
    retrieval = Retrieval(
        dense=np.ones(4, dtype=np.float32), sparse=SparseVector([3], [2.0]), limit=7, filter=parse_filter({"page": 1})
    )
    queries = sides(retrieval, EVERYTHING)
    assert [(query.using, query.limit) for query in queries.values()] == [("dense", 7), ("sparse", 7)]
    assert queries["dense"].filter == queries["sparse"].filter is not None
    assert all(query.with_payload.exclude == ["words", "dates"] for query in queries.values())  # type: ignore[union-attr]


class IndexingClient(AsyncQdrantClient):
    """The client's emulation, which remembers the payload indexes that it is asked for, by collection or alias."""

    def __init__(self) -> None:
        super().__init__(location=":memory:")
        self.schema: dict[str, models.PayloadIndexInfo] = {}
        self.created: list[str] = []

    async def create_payload_index(self, collection_name: str, field_name: str, **asked: Any) -> models.UpdateResult:
        self.created.append(field_name)
        kind = asked["field_schema"]
        self.schema[field_name] = models.PayloadIndexInfo(data_type=getattr(kind, "type", kind), points=0)
        return models.UpdateResult(status=models.UpdateStatus.COMPLETED)

    async def get_collection(self, collection_name: str, **kwargs: Any) -> models.CollectionInfo:
        info = await super().get_collection(collection_name, **kwargs)
        return info.model_copy(update={"payload_schema": dict(self.schema)})


async def test_indexes_are_asked_for_once_a_filter_reads_a_field() -> None:
    """Writing asks for those of built-in and declared fields only; a search that found something asks for its own."""
    client = IndexingClient()
    first, second = ServerStore(client, StoreSettings(), declared=["lang"]), ServerStore(client, StoreSettings())
    await first.create("docs", SPEC)
    assert set(client.created) == {*BUILT_IN_INDEXES, "version"}
    client.created.clear()
    for store in (first, second, first):
        await store.upsert("docs", [point("d1", metadata={"code": "x", "n": 1, "lang": "en"})])
    assert client.created == ["metadata.lang", "words.metadata.lang"]
    client.created.clear()
    for raw in ({"code": "y"}, {"code": "x"}, {"code": "x", "n": {"gte": 1}}, {"n": 1}):
        await second.retrieve("docs", msgspec.structs.replace(QUERY, filter=parse_filter(raw)), EVERYTHING)
        await asyncio.gather(*second._indexing.values())
    assert client.created == ["metadata.code", "metadata.n"]
    await first.close()


async def test_ever_new_keys_are_indexed_up_to_a_limit() -> None:
    """However many fields are filtered by and however often the service is started, the indexes are limited."""
    client = IndexingClient()
    await ServerStore(client, StoreSettings()).create("docs", SPEC)
    for start in (0, 500):
        metadata = {f"key{number}": "x" for number in range(start, start + 500)}
        await ServerStore(client, StoreSettings(), declared=metadata).upsert("docs", [point("d1", metadata=metadata)])
    assert len(client.schema) == MAX_INDEXES
    await client.close()
