"""A source of an embedder, with the ways in which one can fail."""

import asyncio
from collections.abc import Callable

from indexing.embedding.batching import LazyEmbedder
from indexing.embedding.model import Embedder
from indexing.settings import EmbeddingSettings


class GivenEmbedder(LazyEmbedder):
    """Hands out `embedder`; raises `failures` first, one for each call; takes `delay_s` to load."""

    def __init__(
        self,
        embedder: Embedder,
        fingerprint: str = "hash-words",
        failures: tuple[Exception, ...] = (),
        delay_s: float = 0,
    ) -> None:
        super().__init__(EmbeddingSettings(model=embedder.model_id), fingerprint)
        self.loads = 0
        self._given = embedder
        self._failures = list(failures)
        self._delay_s = delay_s

    async def get(self, before_loading: Callable[[str], None] = lambda _: None) -> Embedder:
        self.loads += 1
        before_loading(self._given.model_id)
        await asyncio.sleep(self._delay_s)
        if self._failures:
            raise self._failures.pop(0)
        return self._given
