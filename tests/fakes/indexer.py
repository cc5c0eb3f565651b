"""`python -m tests.fakes.indexer HOME FOLDER SECONDS [rebuild | put]`: the real pipeline, in a process to be killed.

A run over FOLDER; with "put" updates of `SUBMITTED` documents, one round after the other, as over HTTP. The embedder
takes SECONDS for a text. Says "begun" when it begins.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from indexing.documents import EVERYTHING, Document
from indexing.embedding.model import Lane, Vectors
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import SubmittedDocument, put_documents
from indexing.store.embedded import EmbeddedStore
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import index, workbench

SUBMITTED = [f"note-{n}" for n in range(4)]
PASSAGES = 3


class SlowEmbedder(HashEmbedder):
    """Takes its time for every text."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        time.sleep(self._seconds * len(texts))
        return super().embed_documents(texts, lane)


def submitted(key: str, round_: int) -> SubmittedDocument:
    """A version of a document: it says in each of its passages which one it is."""
    paragraph = f"{key} of round {round_} " + "word " * 140
    return SubmittedDocument(writer=EVERYTHING, id=key, document=Document(text="\n\n".join([paragraph] * PASSAGES)))


async def put_rounds(bench: PipelineContext, first: int) -> None:
    """Each document in its own request, all at the same time."""
    for round_ in range(first, first + 1000):
        await asyncio.gather(*(put_documents(bench, "default", [submitted(key, round_)]) for key in SUBMITTED))


async def main(home: Path, folder: Path, seconds: float, how: str) -> None:
    """One run."""
    store = EmbeddedStore(home / "index", wait=10)
    bench = workbench(store, home, SlowEmbedder(seconds))
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    if how.startswith("put"):
        await put_rounds(bench, int(how.removeprefix("put")))
    else:
        await index(bench, folder, rebuild=how == "rebuild")
    await bench.manifest.close()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), "".join(sys.argv[4:])))
