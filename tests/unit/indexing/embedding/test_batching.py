"""Many callers, one model: `Batches`, and what queries and callers' texts make of it."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from indexing.embedding.batching import Batches, QueryEmbedder, TextEmbedder
from indexing.embedding.model import Lane, Vectors
from indexing.errors import EmbedderUnavailable, Overloaded
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]


class Lengths:
    """Tells the lengths of texts when `gate` opens. `forgets`: not that of the last one."""

    def __init__(self, *, forgets: bool = False) -> None:
        self.gate = asyncio.Event()
        self.begun = asyncio.Semaphore(0)
        self.calls: list[list[str]] = []
        self._forgets = forgets

    async def of(self, texts: Sequence[str]) -> list[int]:
        self.calls.append(list(texts))
        self.begun.release()
        await self.gate.wait()
        return [len(text) for text in texts][: -1 if self._forgets else None]


async def test_a_callers_texts_go_together() -> None:
    """Also when the model is free, and each text once."""
    lengths = Lengths()
    lengths.gate.set()
    batches = Batches(lengths.of, cache=0, batch=10, queue=10)
    assert await batches.values(["a", "bb", "a"]) == [1, 2, 1]
    assert lengths.calls == [["a", "bb"]]


async def test_what_nobody_waits_for_any_more_is_not_worked_on() -> None:
    """A text that two wanted is, as long as one of them does; callers that left make room in the queue."""
    lengths = Lengths()
    batches = Batches(lengths.of, cache=0, batch=10, queue=3)
    staying = asyncio.ensure_future(batches.values(["first"]))
    await lengths.begun.acquire()
    leaving = asyncio.ensure_future(batches.values(["both", "one", "one more"]))
    both = asyncio.ensure_future(batches.values(["both"]))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await batches.values(["both", "too many"])
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    late = asyncio.ensure_future(batches.values(["one", "late"]))
    await asyncio.sleep(0)
    lengths.gate.set()
    assert await asyncio.gather(staying, both, late) == [[5], [4], [3, 4]]
    assert lengths.calls == [["first"], ["both", "one", "late"]]


async def test_a_model_that_forgets_a_text_fails_all_of_its_call() -> None:
    """Nobody waits forever for what never comes, and nobody gets another's value."""
    lengths = Lengths(forgets=True)
    batches = Batches(lengths.of, cache=0, batch=10, queue=10)
    lengths.gate.set()
    asked = [batches.values([text]) for text in ("a", "bb", "ccc")]
    found = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
    assert [type(one) for one in found] == [ValueError] * 3
    await batches.close()


async def until_called(embedder: HashEmbedder) -> None:
    """Wait until the model is being called, which the event loop must allow."""
    assert await asyncio.to_thread(embedder.called.wait, 5)


async def test_a_query_becomes_the_models_vector() -> None:
    """What comes back is what the model says."""
    embedder = HashEmbedder()
    queries = QueryEmbedder(GivenEmbedder(embedder).get)
    assert np.array_equal(await queries.embed("blue sky"), embedder.embed_documents(["blue sky"]))
    await queries.close()


async def test_a_known_query_is_not_embedded_again() -> None:
    """The second time comes from memory."""
    embedder = HashEmbedder()
    queries = QueryEmbedder(GivenEmbedder(embedder).get)
    for _ in range(3):
        await queries.embed("again")
    assert embedder.query_calls == [["again"]]
    await queries.close()


async def test_queries_that_come_together_are_embedded_together() -> None:
    """One call for those that are not known yet, in order; one that comes twice is embedded once."""
    embedder = HashEmbedder()
    queries = QueryEmbedder(GivenEmbedder(embedder).get)
    await queries.embed("known")
    vectors = await queries.embed("new", "known", "new", "newer")
    assert np.array_equal(vectors, embedder.embed_documents(["new", "known", "new", "newer"]))
    assert embedder.query_calls == [["known"], ["new", "newer"]]
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
    assert all(np.array_equal(v, embedder.embed_documents([t])) for t, v in zip(texts, vectors, strict=True))
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
    assert [vector.shape for vector in await queries.embed("a")] == [(64,)]
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

    def embed_queries(self, texts: object, lane: str = "queries") -> np.ndarray:
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
    assert [vector.shape for vector in await stayer] == [(64,)]
    assert embedder.query_calls == [["a"]]
    await queries.close()


async def test_sentences_are_remembered_apart_from_queries() -> None:
    """A known sentence, or a known query among them, is not embedded again; one row each, repeated ones too."""
    embedder = HashEmbedder()
    queries = QueryEmbedder(GivenEmbedder(embedder).get)
    await queries.embed("question")
    vectors = await queries.embed_sentences(["question", "a", "b", "a"])
    assert np.array_equal(vectors, embedder.embed_documents(["question", "a", "b", "a"]))
    await queries.embed_sentences(["another question", "b", "c"])
    assert embedder.query_calls == [["question"], ["a", "b"], ["another question", "c"]]
    assert embedder.lanes == ["queries", "sentences", "sentences"]
    await queries.close()


async def test_a_query_does_not_wait_for_sentences() -> None:
    """While the model reads sentences, a query is embedded."""
    embedder = SlowSentences()
    queries = QueryEmbedder(GivenEmbedder(embedder).get)
    sentences = asyncio.ensure_future(queries.embed_sentences(["a", "b"]))
    await until_called(embedder)
    assert len(await queries.embed("question")) == 1
    assert not sentences.done()
    embedder.release.set()
    await sentences
    await queries.close()


class SlowSentences(HashEmbedder):
    """Reads sentences until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def embed_queries(self, texts: Sequence[str], lane: Lane = "queries") -> Vectors:
        vectors = super().embed_queries(texts, lane)
        if lane == "sentences":
            self.release.wait(timeout=60)
        return vectors


async def test_a_remembered_vector_keeps_no_batch_alive() -> None:
    """It owns its numbers."""
    queries = QueryEmbedder(GivenEmbedder(HashEmbedder()).get)
    (vector,) = await queries.embed("a")
    assert vector.base is None
    await queries.close()


async def test_too_many_sentences_are_refused() -> None:
    """They are bounded like the queries."""
    gate = threading.Event()
    embedder = HashEmbedder(gate=gate)
    queries = QueryEmbedder(GivenEmbedder(embedder).get, queue=1)
    running = asyncio.ensure_future(queries.embed_sentences(["a"]))
    await until_called(embedder)
    with pytest.raises(Overloaded):
        await queries.embed_sentences(["b", "c"])
    gate.set()
    await running
    await queries.close()


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
    assert embedder.document_calls == 5  # the first alone, then 32 at a time
    await texts.close()


async def test_callers_with_many_texts_take_turns_with_others() -> None:
    """Whoever comes later with one text waits for a slice of the many, not for all of them."""
    embedder = HashEmbedder()
    texts = TextEmbedder(GivenEmbedder(embedder).get, batch=4)
    many = asyncio.ensure_future(texts.embed([f"text {number}" for number in range(40)]))
    await asyncio.sleep(0)
    await texts.embed(["one"])
    assert not many.done()
    await many
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
