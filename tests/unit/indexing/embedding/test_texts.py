"""Callers' texts on their way to the embedding model."""

import asyncio

import numpy as np
import pytest

from indexing.embedding.batching import TextEmbedder
from indexing.errors import EmbedderUnavailable, Overloaded
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder

pytestmark = pytest.mark.anyio


async def test_each_text_gets_its_vector_and_its_tokens() -> None:
    """In order, repeated ones too; what is longer than the model reads is counted as far as it reads, and said."""
    embedder = HashEmbedder()
    texts = TextEmbedder(GivenEmbedder(embedder).get)
    given = ["a b", "c", "a b", "d " * 300, ""]
    found = await texts.embed(given)
    assert np.array_equal([one.vector for one in found], embedder.embed_documents(given))
    assert [one.tokens for one in found] == [2, 1, 2, 256, 0]
    assert [one.truncated for one in found] == [False, False, False, True, False]
    await texts.close()


async def test_what_no_model_can_reach_is_not_even_counted() -> None:
    """A text of megabytes costs no more than the model's limit."""
    embedder = HashEmbedder()
    texts = TextEmbedder(GivenEmbedder(embedder).get)
    (found,) = await texts.embed(["x" * 1_000_000])
    assert found.truncated
    assert len(embedder.embedded[0]) == 64 * embedder.max_tokens
    await texts.close()


async def test_singles_share_a_call() -> None:
    """What arrives during a call goes together in the next."""
    embedder = HashEmbedder()
    texts = TextEmbedder(GivenEmbedder(embedder).get)
    await asyncio.gather(*(texts.embed([f"text {number}"]) for number in range(100)))
    assert embedder.document_calls == 2
    await texts.close()


async def test_queries_are_embedded_as_such() -> None:
    """And apart from documents."""
    embedder = HashEmbedder()
    texts = TextEmbedder(GivenEmbedder(embedder).get)
    await texts.embed(["q"], queries=True)
    assert (embedder.query_calls, embedder.document_calls) == ([["q"]], 0)
    await texts.close()


async def test_a_full_queue_refuses() -> None:
    """Beyond `queue` waiting texts a caller is told to come back; the earlier ones are served."""
    texts = TextEmbedder(GivenEmbedder(HashEmbedder()).get, batch=1, queue=2)
    asked = await asyncio.gather(*(texts.embed([f"{n}"]) for n in range(5)), return_exceptions=True)
    assert [type(one) for one in asked] == [list, list, list, Overloaded, Overloaded]
    await texts.close()


async def test_a_failure_reaches_all_who_wait() -> None:
    """And the next call tries again."""
    embedder = HashEmbedder()
    embedder.failure = EmbedderUnavailable("gone")
    texts = TextEmbedder(GivenEmbedder(embedder).get)
    asked = [texts.embed([text], queries=True) for text in "abc"]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in found] == [EmbedderUnavailable] * 3
    embedder.failure = None
    assert len(await texts.embed(["a"], queries=True)) == 1
    await texts.close()
