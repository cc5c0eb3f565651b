"""The lifetime of the application."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from app.config.settings import IndexSection, Settings
from app.main import create_app
from app.wiring import Services

pytestmark = pytest.mark.anyio


class Stuck:
    """Services whose closing waits for a thread that cannot be stopped."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()

    async def start(self, samples: Path | None) -> None:
        """There is nothing to start."""

    async def close(self) -> None:
        self.closing.set()
        await asyncio.Event().wait()


async def test_an_end_that_is_not_waited_for_is_no_failure(tmp_path: Path) -> None:
    """When the event loop ends while services close, the application says that it has ended, without a traceback."""
    stuck, told, sent = Stuck(), asyncio.Queue[str](), asyncio.Queue[dict[str, Any]]()
    app = create_app(Settings(index=IndexSection(home=tmp_path)), cast("Services", stuck))

    async def receive() -> Any:
        return {"type": await told.get()}

    async def send(message: Any) -> None:
        sent.put_nowait(message)

    running = asyncio.create_task(app(cast("Any", {"type": "lifespan", "state": {}}), receive, send))
    told.put_nowait("lifespan.startup")
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    told.put_nowait("lifespan.shutdown")
    await stuck.closing.wait()
    running.cancel()
    await running
    assert await sent.get() == {"type": "lifespan.shutdown.complete"}
