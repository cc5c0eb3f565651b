"""`python -m tests.fakes.indexer HOME FOLDER SECONDS [rebuild]`: a run of the real pipeline, in a process to be killed.

The embedder takes SECONDS for a text. Says "begun" when the run begins.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from indexing.embedding.model import Lane, Vectors
from indexing.store.embedded import EmbeddedStore
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import index, workbench


class SlowEmbedder(HashEmbedder):
    """Takes its time for every text."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        time.sleep(self._seconds * len(texts))
        return super().embed_documents(texts, lane)


async def main(home: Path, folder: Path, seconds: float, *, rebuild: bool) -> None:
    """One run."""
    store = EmbeddedStore(home / "index", wait=10)
    bench = workbench(store, home, SlowEmbedder(seconds))
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    await index(bench, folder, rebuild=rebuild)
    await bench.manifest.close()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), rebuild="rebuild" in sys.argv))
