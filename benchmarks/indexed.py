"""What the quality benchmarks share: an index of our own over a folder, in a home that goes away."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.config.validation import load_settings
from app.wiring import Services, build_services
from indexing.pipeline.progress import Summary, SyncRequest


@asynccontextmanager
async def services_at(home: Path | None) -> AsyncIterator[Services]:
    """The service's use cases on a home directory; None: on a temporary one. Of the environment the embedder counts."""
    folder = home or Path(tempfile.mkdtemp(prefix="winnow-benchmark-"))
    variables = {name: value for name, value in os.environ.items() if name.startswith("WINNOW_EMBEDDING_")}
    variables["WINNOW_HOME"] = str(await asyncio.to_thread(folder.resolve))
    services = build_services(load_settings(variables, Path.cwd()))
    try:
        yield services
    finally:
        await services.close()
        if home is None:
            shutil.rmtree(folder, ignore_errors=True)


async def index_folder(services: Services, folder: Path, collection: str = "default") -> Summary:
    """`winnow index FOLDER --no-delete`."""
    absolute = str(await asyncio.to_thread(folder.resolve))
    return await services.documents.sync(
        SyncRequest(inputs=(absolute,), cwd=absolute, collection=collection, delete=False)
    )
