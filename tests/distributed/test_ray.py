"""Indexing on a real Ray cluster of two workers on this machine, into a Qdrant server, from folders and from S3."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from indexing.distributed.cluster import ClusterFailed, RayReading
from indexing.documents import EVERYTHING
from indexing.embedding.loading import load_embedder
from indexing.pipeline.context import PipelineContext, index_fingerprint
from indexing.pipeline.progress import Advanced, Event, Summary, SyncRequest
from indexing.pipeline.sync import sync
from indexing.readers.limits import ReadLimits
from indexing.settings import EmbeddingSettings, StoreSettings
from indexing.store.base import Point
from indexing.store.server import ServerStore
from tests.fakes.library import content, records, workbench
from tests.fakes.qdrant_server.server import running

pytestmark = [pytest.mark.ray, pytest.mark.anyio, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

EMBEDDING = EmbeddingSettings(exports=Path.home() / ".cache" / "winnow" / "models")


class Workers:
    """A cluster whose head does nothing but keep it together."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.address: str = self._cluster.address
        self._nodes: list[Any] = []
        for _ in range(2):
            self.add()

    def add(self) -> None:
        self._nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=200_000_000))

    def kill_one(self) -> None:
        """As when a machine loses its power."""
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Workers have the credentials of a server that speaks S3's protocol, as this process has."""
    from moto.server import ThreadedMotoServer

    bucket_server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    bucket_server.start()
    host, port = bucket_server.get_host_and_port()
    os.environ |= {
        "RAY_gcs_server_port_wait_time_s": "120",  # 30 are too few for a start on a busy machine
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500",
    }
    cluster = Workers()
    yield cluster
    cluster.close()
    bucket_server.stop()


@pytest.fixture
async def benches(tmp_path: Path) -> AsyncIterator[list[PipelineContext]]:
    """Two, each with a Qdrant server and a manifest of its own, and one embedding model."""
    embedder = await asyncio.to_thread(load_embedder, EMBEDDING)
    async with AsyncExitStack() as stack:
        made = []
        for name in ("here", "there"):
            home = tmp_path / name
            home.mkdir()
            server = stack.enter_context(running(home / "qdrant"))
            store = ServerStore.connect(StoreSettings(url=server.url, grpc_port=server.grpc_port))
            stack.push_async_callback(store.close)
            bench = workbench(store, home, embedder, index_fingerprint(EMBEDDING))
            stack.push_async_callback(bench.manifest.close)
            made.append(bench)
        yield made


def written(folder: Path, files: int, paragraphs: int = 6) -> Path:
    """Files of several formats, one of them broken, one of records."""
    folder.mkdir()
    for number in range(files):
        lines = [
            f"Machine {number} has part {number * 7 + part}, which is checked every {part + 3} weeks by the foreman "
            f"of hall {number % 9}, who writes into book {part} what was found and who was told about it. " * 3
            for part in range(paragraphs)
        ]
        (folder / f"manual-{number:03}.md").write_text(f"# Manual {number}\n\n" + "\n\n".join(lines))
    (folder / "table.csv").write_text("part,weeks\n" + "".join(f"axle {n},{n}\n" for n in range(40)))
    (folder / "rows.jsonl").write_text("".join(f'{{"id": "r{n}", "text": "Row {n} of the book."}}\n' for n in range(9)))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 cut short")
    return folder


async def here(bench: PipelineContext, *inputs: str) -> Summary:
    return await sync(bench, SyncRequest(inputs=inputs, cwd="/"))


async def there(bench: PipelineContext, workers: Workers, *inputs: str, report: Any = lambda _: None) -> Summary:
    reading = RayReading(workers.address, ReadLimits(), EMBEDDING)
    return await sync(bench, SyncRequest(inputs=inputs, cwd="/", ray=workers.address), report, reading)


async def points(bench: PipelineContext) -> list[Point]:
    """Everything in the store, by id."""
    lineage = (await bench.store.info("default")).spec.lineage
    documents = await bench.manifest.documents(lineage, EVERYTHING, limit=100_000)
    found = await bench.store.points("default", [document.id for document in documents], EVERYTHING)
    return sorted(found, key=lambda point: point.passage.id)


def counts(summary: Summary) -> tuple[Any, ...]:
    refused = sorted((one.source, one.reason) for one in summary.refused)
    return summary.created, summary.updated, summary.deleted, summary.total_passages, refused


async def assert_alike(one: PipelineContext, other: PipelineContext) -> None:
    """The same passages, payloads and words' vectors; dense ones but for the rounding of another batch, in bfloat16."""
    assert await content(one) == await content(other)
    assert await records(one) == await records(other)
    pairs = list(zip(await points(one), await points(other), strict=True))
    assert pairs
    for left, right in pairs:
        assert (left.passage, left.sparse) == (right.passage, right.sparse)
        assert left.dense @ right.dense > 0.9999


async def test_the_points_are_those_of_one_machine(
    benches: list[PipelineContext], workers: Workers, tmp_path: Path
) -> None:
    """A first run, then one over a changed, a new and a deleted file, which embeds only what has changed."""
    folder = written(tmp_path / "docs", 30)
    first = [await here(benches[0], str(folder)), await there(benches[1], workers, str(folder))]
    assert counts(first[0]) == counts(first[1])
    assert first[1].refused[0].reason == "corrupt"
    await assert_alike(*benches)
    (folder / "manual-001.md").write_text("# Manual 1\n\nIt is out of date.")
    rows = ('{"id": "r1", "text": "Row 1, written anew."}', '{"id": "r2", "text": "Row 2 of the book."}')
    (folder / "rows.jsonl").write_text("\n".join(rows))
    (folder / "new.txt").write_text("A new file.")
    (folder / "manual-002.md").unlink()
    second = [await here(benches[0], str(folder)), await there(benches[1], workers, str(folder))]
    assert counts(second[0]) == counts(second[1])
    assert second[1].updated == 2
    assert second[1].passages == second[0].passages < 5
    await assert_alike(*benches)


async def test_a_worker_that_is_lost_costs_time_and_nothing_else(
    benches: list[PipelineContext], workers: Workers, tmp_path: Path
) -> None:
    """Its machine goes in the middle of the run; the other one does what it had in hand."""
    folder = written(tmp_path / "docs", 60)
    killed: list[float] = []

    def kill(event: Event) -> None:
        if isinstance(event, Advanced) and event.passages and not killed:
            killed.append(time.monotonic())
            workers.kill_one()

    summary = await there(benches[1], workers, str(folder), report=kill)
    workers.add()
    assert killed
    assert counts(summary) == counts(await here(benches[0], str(folder)))
    await assert_alike(*benches)


async def test_a_bucket_of_s3_is_read_by_the_workers(
    benches: list[PipelineContext], workers: Workers, tmp_path: Path
) -> None:
    """From a server that speaks S3's protocol; the documents are those of a folder with the same files."""
    import boto3  # moto brings it

    folder = written(tmp_path / "docs", 8)
    client = boto3.client("s3")
    client.create_bucket(Bucket="acme")
    for file in folder.iterdir():
        client.upload_file(str(file), "acme", f"docs/{file.name}")
    local = await here(benches[0], str(folder))
    remote = await there(benches[1], workers, "s3://acme/docs")
    assert counts(local) == counts(remote)
    texts = [sorted(str(one["text"]) for one in await content(bench)) for bench in benches]
    assert texts[0] == texts[1]
    again = await there(benches[1], workers, "s3://acme/docs")
    assert (again.passages, again.unchanged) == (0, remote.created)


async def test_a_cluster_that_is_not_there_is_an_error_in_plain_words(
    benches: list[PipelineContext], tmp_path: Path
) -> None:
    """Without the words of Ray; what could be planned is not lost."""
    (tmp_path / "a.txt").write_text("One.")
    reading = RayReading("127.0.0.1:1", ReadLimits(), EMBEDDING)
    with pytest.raises(ClusterFailed, match="no Ray cluster answers at"):
        await sync(benches[1], SyncRequest(inputs=(str(tmp_path / "a.txt"),), cwd="/"), reading=reading)
