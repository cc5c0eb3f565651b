"""Repeats what it is asked."""

from collections.abc import AsyncGenerator

from app.backends.base import ChatRequest, Delta, Probed, Reply
from app.backends.settings import BackendSettings
from app.domain import TokenCount


class ToyAdapter:
    """See `app.backends.base.Adapter`."""

    scorer = None
    decider = None
    reranker = None

    def __init__(self, settings: BackendSettings) -> None:
        self._model = settings.model or ""

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        return Reply(
            text=request.messages[-1].content,
            finish_reason="stop",
            tokens=TokenCount(input=3, output=2),
            model=self._model,
        )

    async def stream(self, request: ChatRequest, timeout_s: float) -> AsyncGenerator[Delta, None]:
        yield Delta(text=request.messages[-1].content)
        yield Delta(finish_reason="stop", tokens=TokenCount(input=3, output=2))

    async def probe(self, timeout_s: float) -> Probed:
        return Probed(model=self._model, capabilities=frozenset(("chat",)))

    async def ping(self, timeout_s: float) -> None:
        """It is always there."""

    async def aclose(self) -> None:
        """It has no connections."""
