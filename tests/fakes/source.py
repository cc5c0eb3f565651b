"""A source of an embedder, with the ways in which one can fail."""

import asyncio

from indexing.embedding.model import Embedder
from indexing.pipeline.progress import LoadingModel, Report, say_nothing


class GivenEmbedder:
    """Hands out `embedder`; raises `failures` first, one for each call; takes `delay_s` to load."""

    def __init__(
        self,
        embedder: Embedder,
        fingerprint: str = "hash-words",
        failures: tuple[Exception, ...] = (),
        delay_s: float = 0,
    ) -> None:
        self.fingerprint = fingerprint
        self.loads = 0
        self._embedder = embedder
        self._failures = list(failures)
        self._delay_s = delay_s

    async def get(self, report: Report = say_nothing) -> Embedder:
        self.loads += 1
        report(LoadingModel(model=self._embedder.model_id))
        await asyncio.sleep(self._delay_s)
        if self._failures:
            raise self._failures.pop(0)
        return self._embedder
