"""sentence-transformers' CrossEncoder as a backend: loaded in the background, asked in a thread of its own."""

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from app.backends.base import Probed, Relevance, RerankerOnly, tokens_of_pairs
from app.backends.settings import BackendSettings
from app.errors import UpstreamBadReply, UpstreamRejected, UpstreamUnavailable
from indexing.embedding.sentence_transformer import import_sentence_transformers

BATCH = 16
"""Pairs in one pass. A call that is given up ends after the pass that is under way."""

MOST_TOKENS = 512
"""Of a pair; what is beyond is cut. Attention costs the square of it, and a passage has 256 at most."""


class CrossEncoderAdapter(RerankerOnly):
    """An `Adapter`. One thread loads the model and runs it: two would share the same cores."""

    def __init__(self, name: str, settings: BackendSettings) -> None:
        super().__init__(name)
        self._model, self._device = settings.model or "", settings.device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"cross-encoder-{name}")
        self._loading: asyncio.Future[Any] | None = None

    @property
    def reranker(self) -> "CrossEncoderAdapter":
        """Itself."""
        return self

    async def relevance(self, query: str, texts: Sequence[str], timeout_s: float) -> Relevance:
        """In passes of `BATCH` texts."""
        model = await self._loaded(timeout_s)
        log_odds: list[float] = []
        for start in range(0, len(texts), BATCH):
            pairs = [(query, text) for text in texts[start : start + BATCH]]
            log_odds += await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, model, pairs)
        if not all(map(math.isfinite, log_odds)):
            raise UpstreamBadReply(self._name, f"{self._name} gave a score that is no number")
        return Relevance(log_odds=tuple(log_odds), tokens=tokens_of_pairs(query, texts))

    async def probe(self, timeout_s: float) -> Probed:
        """Load the model. Raises UpstreamTimeout while that takes longer; it goes on in the background."""
        model = await self._loaded(timeout_s)
        return Probed(
            model=self._model,
            capabilities=frozenset(("rerank",)),
            context_tokens=model.max_seq_length,
            server=f"sentence-transformers on {model.device}",
        )

    async def ping(self, timeout_s: float) -> None:
        """Whether the model is loaded."""
        await self._loaded(timeout_s)

    async def aclose(self) -> None:
        """Wait for the pass that is under way."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    async def _loaded(self, timeout_s: float) -> Any:
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._loading = asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        # Not awaited itself: whoever gives up must not end the loading for the others.
        await asyncio.wait((self._loading,), timeout=timeout_s)
        if not self._loading.done():
            raise UpstreamUnavailable(self._name, f"{self._name} is still loading its model", retry_after=5.0)
        return self._loading.result()

    def _load(self) -> Any:
        library = import_sentence_transformers()
        try:
            model = library.CrossEncoder(self._model, device=self._device)
        except (OSError, ValueError, RuntimeError) as exc:
            raise UpstreamRejected(
                self._name,
                f"{self._name} cannot load its model; set `model` in [backends.{self._name}] to the folder or the name "
                "of a cross-encoder, and `device` to one that is there",
            ) from exc
        if model.num_labels != 1:
            raise UpstreamRejected(
                self._name, f"the model of {self._name} has {model.num_labels} labels; a reranker has one"
            )
        model.max_seq_length = min(model.max_seq_length or MOST_TOKENS, MOST_TOKENS)
        return model

    def _predict(self, model: Any, pairs: Sequence[tuple[str, str]]) -> list[float]:
        from torch.nn import Identity

        try:
            scores = model.predict(
                pairs, batch_size=BATCH, show_progress_bar=False, activation_fn=Identity(), convert_to_numpy=True
            )
        except RuntimeError as exc:  # out of memory, above all
            raise UpstreamUnavailable(self._name, f"{self._name} could not run its model") from exc
        return cast("list[float]", [float(score) for score in scores])
