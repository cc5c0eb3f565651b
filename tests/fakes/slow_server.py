"""`python -m tests.fakes.slow_server HOME`: the real server over an embedder that takes 20 ms for each passage."""

import asyncio
import sys
from pathlib import Path

from app.config.settings import IndexSection, ServiceSettings, Settings
from app.main import serve
from app.wiring import Services, open_store
from tests.fakes.answerer import ScriptedAnswerer
from tests.fakes.indexer import SlowEmbedder
from tests.fakes.source import GivenEmbedder

SECONDS_A_PASSAGE = 0.02


def main(home: Path) -> None:
    """Serve until told to stop."""
    settings = Settings(service=ServiceSettings(port=0), index=IndexSection(home=home))
    embedder = GivenEmbedder(SlowEmbedder(SECONDS_A_PASSAGE))
    services = Services(
        settings, lambda: asyncio.to_thread(open_store, settings), embedder, lambda _services: ScriptedAnswerer()
    )
    serve(settings, services)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
