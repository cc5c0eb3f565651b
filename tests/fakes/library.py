"""Everything that indexing needs, over a real store and a fake embedder; and what then lies in the index."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from indexing.documents import EVERYTHING, Passage, to_payload
from indexing.embedding.model import Embedder
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.manifest import Manifest
from indexing.pipeline.progress import Report, Summary, SyncRequest, say_nothing
from indexing.pipeline.sync import sync
from indexing.readers.limits import ReadLimits
from indexing.retrieval.bm25 import Lexical
from indexing.store.base import VectorStore
from tests.fakes.embedder import HashEmbedder
from tests.fakes.points import everything
from tests.fakes.source import GivenEmbedder


def workbench(
    store: VectorStore, home: Path, embedder: Embedder | None = None, fingerprint: str = "hash-words"
) -> PipelineContext:
    """The real parts around `embedder`."""
    source = GivenEmbedder(embedder or HashEmbedder(), fingerprint)
    manifest = Manifest(home / "manifest.sqlite3")
    return PipelineContext(store=store, manifest=manifest, embedder=source, limits=ReadLimits(), lexical=Lexical())


async def index(
    bench: PipelineContext, folder: Path, *inputs: str, report: Report = say_nothing, **options: Any
) -> Summary:
    """A run over `folder`, or over these inputs in it."""
    return await sync(bench, SyncRequest(inputs=inputs or (".",), cwd=str(folder), **options), report)


async def passages(bench: PipelineContext, name: str = "default") -> list[Passage]:
    """What the store holds, sorted."""
    return sorted(await everything(bench.store, name), key=lambda p: (p.document_id, p.version, p.ordinal))


async def content(bench: PipelineContext, name: str = "default") -> list[Mapping[str, Any]]:
    """Everything that a fresh index of the same files must have in common with this one."""
    return [to_payload(passage) for passage in await passages(bench, name)]


async def texts(bench: PipelineContext, name: str = "default") -> list[str]:
    """The texts of all passages, sorted."""
    return sorted(passage.text for passage in await passages(bench, name))


async def records(bench: PipelineContext, name: str = "default") -> tuple[Any, ...]:
    """What the manifest says of the collection, but for times: its sources, its documents, and what is unfinished."""
    lineage = (await bench.store.info(name)).spec.lineage
    documents = await bench.manifest.documents(lineage, EVERYTHING, limit=100_000)
    timeless = [msgspec.structs.replace(document, indexed_at=0.0) for document in documents]
    return await bench.manifest.sources(lineage), timeless, await bench.manifest.unfinished(lineage)
