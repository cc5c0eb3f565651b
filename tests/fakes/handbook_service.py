"""`python -m tests.fakes.handbook_service HOME BACKENDS`: the real service over a few passages, on a free port.

BACKENDS is a JSON object of `[backends.NAME]` sections.
"""

import sys
from pathlib import Path

import msgspec

from app.backend_settings import BackendSettings
from app.main import serve
from app.settings import IndexSection, ServiceSettings, Settings
from app.wiring import Services
from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from tests.fakes.corpus import fill
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder


def main(home: Path, told: str) -> None:
    """Serve until told to stop."""

    async def open_store() -> VectorStore:
        store = EmbeddedStore(home / "index")
        await fill(store)
        return store

    settings = Settings(
        service=ServiceSettings(port=0, ping_s=0.2),
        index=IndexSection(home=home),
        backends=msgspec.json.decode(told, type=dict[str, BackendSettings]),
    )
    serve(settings, Services(settings, open_store, GivenEmbedder(HashEmbedder())))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
