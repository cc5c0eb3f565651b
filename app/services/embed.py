"""Use case: vectors of texts that the caller brings along."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import numpy as np

from app.errors import InvalidRequest, NotFound, TooLarge, pointing_at
from app.services.model_ids import EMBED, ModelNames
from app.text.fencing import clean
from indexing.embedding.batching import Embedded, TextEmbedder
from indexing.embedding.model import Embedder
from indexing.embedding.token_ids import decode_tokens
from indexing.store.base import Vector

MOST_TEXTS = 2_048


class TextsToEmbed(msgspec.Struct, frozen=True, kw_only=True):
    """`inputs` are texts, or token ids of OpenAI's models. `queries`: they look for something, rather than being it."""

    model: str
    inputs: Sequence[str | Sequence[int]]
    dimensions: int | None = None
    queries: bool = False


class EmbeddedTexts(msgspec.Struct, frozen=True, kw_only=True):
    """Unit vectors in the order of the inputs; the tokens that the model read; which inputs it read only in part."""

    vectors: Sequence[Vector]
    tokens: int
    truncated: tuple[int, ...]


class Embeddings:
    """Embeds with the one model that the index uses, too; `sizes` are those to which its vectors may be cut."""

    def __init__(
        self, texts: TextEmbedder, embedder: Callable[[], Awaitable[Embedder]], names: ModelNames, sizes: Sequence[int]
    ) -> None:
        self._texts, self._embedder, self._names, self._sizes = texts, embedder, names, sizes

    async def embed(self, task: TextsToEmbed) -> EmbeddedTexts:
        """Raises InvalidRequest, TooLarge, NotFound (the model), EmbedderUnavailable, Overloaded."""
        if not self._names.embeds(task.model):
            raise NotFound(f"there is no embedding model {task.model[:100]!r} here; ask for {EMBED!r}")
        if len(task.inputs) > MOST_TEXTS:
            raise TooLarge(f"{len(task.inputs)} inputs are more than {MOST_TEXTS}, the most that one request may have")
        if not task.inputs:
            raise pointing_at("/input", "there is nothing to embed")
        size = await self._size(task.dimensions)
        texts = await _texts(task.inputs)
        found = await self._texts.embed(texts, queries=task.queries)
        return EmbeddedTexts(
            vectors=[_cut(one, size) for one in found],
            tokens=sum(one.tokens for one in found),
            truncated=tuple(index for index, one in enumerate(found) if one.truncated),
        )

    async def _size(self, wanted: int | None) -> int | None:
        """None: all of it."""
        if wanted is None:
            return None
        full = (await self._embedder()).dimension
        if wanted != full and wanted not in self._sizes:
            known = ", ".join(map(str, sorted({full, *self._sizes})))
            raise pointing_at(
                "/dimensions",
                f"this model has vectors of {known}; [embedding] sizes tells those to which they may be cut",
            )
        return wanted


async def _texts(inputs: Sequence[str | Sequence[int]]) -> list[str]:
    if all(isinstance(one, str) for one in inputs):
        return [clean(str(one)) for one in inputs]
    return await asyncio.to_thread(_spelt_out, inputs)


def _spelt_out(inputs: Sequence[str | Sequence[int]]) -> list[str]:
    try:
        return [clean(one if isinstance(one, str) else decode_tokens(one)) for one in inputs]
    except InvalidRequest as exc:
        raise pointing_at("/input", str(exc)) from exc


def _cut(found: Embedded, size: int | None) -> Vector:
    """A vector cut short (Matryoshka) is no unit vector any more, and is made one."""
    if size is None or size == len(found.vector):
        return found.vector
    head = found.vector[:size]
    return np.asarray(head / max(float(np.linalg.norm(head)), 1e-12), dtype=np.float32)
