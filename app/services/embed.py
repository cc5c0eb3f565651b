"""Use case: embed texts that the caller sends."""

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

MAX_INPUTS = 2_048

Inputs = Sequence[str | Sequence[int]]
"""Texts, or token ids of OpenAI's models."""


class EmbeddedTexts(msgspec.Struct, frozen=True, kw_only=True):
    """Unit vectors in the order of the inputs, the tokens that were read, and the inputs that were truncated."""

    vectors: Sequence[Vector]
    tokens: int
    truncated: tuple[int, ...]


class Embeddings:
    """Embeds with the model of the index; `sizes` are the dimensions to which its vectors may be cut."""

    def __init__(
        self, texts: TextEmbedder, embedder: Callable[[], Awaitable[Embedder]], names: ModelNames, sizes: Sequence[int]
    ) -> None:
        self._texts, self._embedder, self._names, self._sizes = texts, embedder, names, sizes

    async def embed(
        self, model: str, inputs: Inputs, *, dimensions: int | None = None, queries: bool = False
    ) -> EmbeddedTexts:
        """Embed `inputs`, as documents or as `queries`.

        Raises InvalidRequest, TooLarge, NotFound (the model), EmbedderUnavailable, Overloaded.
        """
        if not self._names.embeds(model):
            raise NotFound(f"embedding model {model[:100]!r} not found; use {EMBED!r}")
        if len(inputs) > MAX_INPUTS:
            raise TooLarge(f"a request may have at most {MAX_INPUTS} inputs, not {len(inputs)}")
        if not inputs:
            raise pointing_at("/input", "there is nothing to embed")
        size = await self._size(dimensions)
        embedded = await self._texts.embed(await _texts(inputs), queries=queries)
        return EmbeddedTexts(
            vectors=[_cut(one, size) for one in embedded],
            tokens=sum(one.tokens for one in embedded),
            truncated=tuple(index for index, one in enumerate(embedded) if one.truncated),
        )

    async def _size(self, dimensions: int | None) -> int | None:
        """The requested size of the vectors, if it is one of the model's; None for the full size."""
        if dimensions is None:
            return None
        full = (await self._embedder()).dimension
        if dimensions != full and dimensions not in self._sizes:
            sizes = ", ".join(map(str, sorted({full, *self._sizes})))
            raise pointing_at(
                "/dimensions", f"this model has vectors of {sizes} dimensions; add others under [embedding] sizes"
            )
        return dimensions


async def _texts(inputs: Inputs) -> list[str]:
    if all(isinstance(one, str) for one in inputs):
        return [clean(str(one)) for one in inputs]
    return await asyncio.to_thread(_decoded, inputs)


def _decoded(inputs: Inputs) -> list[str]:
    try:
        return [clean(one if isinstance(one, str) else decode_tokens(one)) for one in inputs]
    except InvalidRequest as exc:
        raise pointing_at("/input", str(exc)) from exc


def _cut(embedded: Embedded, size: int | None) -> Vector:
    """The first `size` components (Matryoshka), scaled to a unit vector again."""
    if size is None or size == len(embedded.vector):
        return embedded.vector
    head = embedded.vector[:size]
    return np.asarray(head / max(float(np.linalg.norm(head)), 1e-12), dtype=np.float32)
