"""Queries on their way to the embedding model."""

import asyncio
import threading

import numpy as np
import pytest

from indexing.embedding.batching import QueryEmbedder
from indexing.errors import EmbedderUnavailable, Overloaded
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder

pytestmark = pytest.mark.anyio


async def until_called(embedder: HashEmbedder) -> None:
    """Wait until the model is being called, which the event loop must allow."""
    assert await asyncio.to_thread(embedder.called.wait, 5)


async def test_a_query_becomes_the_models_vector() -> None:
    """What comes back is what the model says."""
    embedder = HashEmbedder()
    queries = QueryEmbedder(GivenEmbedder(embedder).get)
    assert np.array_equal(await queries.embed("blue sky"), embedder.embed_documents(["blue sky"])[0])
    await queries.close()


async def test_a_known_query_is_not_embedded_again() -> None:
    """The second time comes from memory."""
    embedder = HashEmbedder()
    queries = QueryEmbedder(GivenEmbedder(embedder).get)
    for _ in range(3):
        await queries.embed("again")
    assert embedder.query_calls == [["again"]]
    await queries.close()


async def test_the_memory_forgets_what_was_used_longest_ago() -> None:
    """The cache holds `cache` vectors, the latest used."""
    embedder = HashEmbedder()
    queries = QueryEmbedder(GivenEmbedder(embedder).get, cache=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await queries.embed(text)
    assert embedder.query_calls == [["a"], ["b"], ["c"], ["b"]]
    await queries.close()


async def test_no_memory_when_told_so() -> None:
    """With `cache` 0 every query is embedded."""
    embedder = HashEmbedder()
    queries = QueryEmbedder(GivenEmbedder(embedder).get, cache=0)
    await queries.embed("a")
    await queries.embed("a")
    assert len(embedder.query_calls) == 2
    await queries.close()


async def test_what_arrives_while_the_model_is_busy_goes_together() -> None:
    """Concurrent queries share a call, up to `batch`, and one text is embedded once; everyone gets the right vector."""
    gate = threading.Event()
    embedder = HashEmbedder(gate=gate)
    queries = QueryEmbedder(GivenEmbedder(embedder).get, batch=3)
    first = asyncio.ensure_future(queries.embed("first"))
    await until_called(embedder)
    texts = ["a", "b", "a", "c", "d"]
    others = [asyncio.ensure_future(queries.embed(text)) for text in texts]
    await asyncio.sleep(0)
    gate.set()
    vectors = await asyncio.gather(*others)
    await first
    assert embedder.query_calls == [["first"], ["a", "b", "c"], ["d"]]
    assert all(np.array_equal(v, embedder.embed_documents([t])[0]) for t, v in zip(texts, vectors, strict=True))
    await queries.close()


async def test_the_event_loop_stays_free() -> None:
    """A model call blocks its thread and nobody else."""
    gate = threading.Event()
    embedder = HashEmbedder(gate=gate)
    queries = QueryEmbedder(GivenEmbedder(embedder).get)
    call = asyncio.ensure_future(queries.embed("slow"))
    await until_called(embedder)
    gate.set()
    await call
    await queries.close()


async def test_a_full_queue_is_refused() -> None:
    """More than `queue` waiting texts are Overloaded, and those that wait are still served."""
    gate = threading.Event()
    embedder = HashEmbedder(gate=gate)
    queries = QueryEmbedder(GivenEmbedder(embedder).get, queue=1)
    running = asyncio.ensure_future(queries.embed("running"))
    await until_called(embedder)
    waiting = asyncio.ensure_future(queries.embed("waiting"))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await queries.embed("too many")
    gate.set()
    await asyncio.gather(running, waiting)
    await queries.close()


async def test_a_failed_call_fails_its_queries_and_no_others() -> None:
    """Everyone of the batch hears of it; the next query is tried anew."""
    embedder = HashEmbedder()
    queries = QueryEmbedder(GivenEmbedder(embedder).get)
    embedder.failure = RuntimeError("out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        await queries.embed("a")
    embedder.failure = None
    assert (await queries.embed("a")).shape == (64,)
    await queries.close()


async def test_a_vector_that_is_not_finite_is_an_error() -> None:
    """NaN never reaches the store, and is not remembered."""
    embedder = BrokenEmbedder()
    queries = QueryEmbedder(GivenEmbedder(embedder).get)
    for _ in range(2):
        with pytest.raises(EmbedderUnavailable, match="not finite"):
            await queries.embed("a")
    await queries.close()


class BrokenEmbedder(HashEmbedder):
    """A model whose numbers ran over."""

    def embed_queries(self, texts: object) -> np.ndarray:
        return np.full((1, 64), np.nan, dtype=np.float32)


async def test_a_caller_who_leaves_does_not_take_the_vector_along() -> None:
    """Cancelling one of two callers of a text leaves the other served, and the result remembered."""
    gate = threading.Event()
    embedder = HashEmbedder(gate=gate)
    queries = QueryEmbedder(GivenEmbedder(embedder).get)
    leaver, stayer = (asyncio.ensure_future(queries.embed("a")) for _ in range(2))
    await until_called(embedder)
    leaver.cancel()
    gate.set()
    assert (await stayer).shape == (64,)
    assert embedder.query_calls == [["a"]]
    await queries.close()


async def test_texts_to_compare_go_in_one_call() -> None:
    """`embed_together` makes one call, a row for each text, and leaves the memory alone."""
    embedder = HashEmbedder()
    queries = QueryEmbedder(GivenEmbedder(embedder).get)
    vectors = await queries.embed_together(["a", "b"])
    assert vectors.shape == (2, 64)
    assert embedder.query_calls == [["a", "b"]]
    await queries.embed("a")
    assert len(embedder.query_calls) == 2
    await queries.close()


async def test_too_many_comparisons_are_refused() -> None:
    """`embed_together` is bounded like the queries."""
    gate = threading.Event()
    embedder = HashEmbedder(gate=gate)
    queries = QueryEmbedder(GivenEmbedder(embedder).get, queue=1)
    running = asyncio.ensure_future(queries.embed_together(["a"]))
    await until_called(embedder)
    with pytest.raises(Overloaded):
        await queries.embed_together(["b"])
    gate.set()
    await running
    await queries.close()
