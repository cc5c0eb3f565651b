"""All configured backends at work: their lines, who chooses among them, and who looks after them."""

import asyncio
from collections.abc import Mapping

from app.backends.base import Adapter
from app.backends.call_context import Meter
from app.backends.client import Line
from app.backends.router import Router
from app.backends.supervisor import Supervisor
from app.config.backends import BackendSettings, RoutingSettings


class Fleet:
    """Owns the adapters and their connections. To be made in the event loop that uses it; `close` at the end."""

    def __init__(self, backends: Mapping[str, BackendSettings], routing: RoutingSettings, meter: Meter) -> None:
        self._adapters = {name: open_adapter(name, told) for name, told in backends.items()}
        lines = [Line(name, told, self._adapters[name], meter, routing) for name, told in backends.items()]
        self.router = Router(lines, routing)
        self._supervisor = Supervisor(lines)

    def start(self) -> None:
        """Find out, in the background, who is there and what it can do."""
        self._supervisor.start()

    async def close(self) -> None:
        """Let go of everything."""
        await self._supervisor.close()
        await asyncio.gather(*(adapter.aclose() for adapter in self._adapters.values()), return_exceptions=True)


def open_adapter(name: str, told: BackendSettings) -> Adapter:
    """The adapter of its kind."""
    if told.kind == "gemini":
        from app.backends.gemini import open_gemini

        return open_gemini(name, told)
    from app.backends.openai_compatible.adapter import open_openai_compatible

    return open_openai_compatible(name, told)


def import_sdks(backends: Mapping[str, BackendSettings]) -> None:
    """The SDKs of these, which takes some 0.5 s each: for a thread, before a Fleet is made."""
    kinds = {told.kind for told in backends.values()}
    if "gemini" in kinds:
        import app.backends.gemini
    if kinds - {"gemini"}:
        import app.backends.openai_compatible  # noqa: F401
