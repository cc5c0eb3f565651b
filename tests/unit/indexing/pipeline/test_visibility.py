from collections.abc import Callable, Sequence

import pytest

from indexing.documents import EVERYTHING, Audience, Candidate, Document, Passage
from indexing.filters import Filter
from indexing.pipeline.context import PipelineContext, ensure_collection, show_what_counts
from indexing.pipeline.manifest import DocumentRecord
from indexing.pipeline.visibility import Counting, Visibility, retrieve_counting
from indexing.pipeline.write_stage import Prepared, Writer, prepare
from indexing.retrieval.bm25 import Lexical
from indexing.store.base import Retrieval, Retrieved
from tests.fakes.embedder import HashEmbedder
from tests.fakes.filter_oracle import matches
from tests.fakes.library import texts
from tests.fakes.library import workbench as reopened

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]

LIMIT = 3
QUERY = Retrieval(sparse=Lexical().query("pear"), limit=LIMIT)


def passage(document_id: str, version: str, ordinal: int = 0) -> Passage:
    return Passage(
        id=f"{document_id}-{version}-{ordinal}",
        document_id=document_id,
        version=version,
        ordinal=ordinal,
        start=0,
        end=1,
        text="x",
    )


class Shelf:
    """A store that holds these passages in order of their rank; `meanwhile` happens after each look."""

    def __init__(self, *passages: Passage, meanwhile: Sequence[Callable[[], None]] = ()) -> None:
        self.passages = list(passages)
        self.meanwhile = list(meanwhile)
        self.looks: list[Filter | None] = []

    async def retrieve(self, name: str, retrieval: Retrieval, audience: Audience) -> Retrieved:
        self.looks.append(retrieval.filter)
        payloads = [(p, {"document_id": p.document_id, "version": p.version}) for p in self.passages]
        found = [p for p, payload in payloads if retrieval.filter is None or matches(retrieval.filter, payload)]
        if self.meanwhile:
            self.meanwhile.pop(0)()
        return Retrieved(sparse=[Candidate(p, 1.0) for p in found[: retrieval.limit]])


async def seen(shelf: Shelf, visibility: Visibility) -> list[tuple[str, str]]:
    retrieved = await retrieve_counting(shelf, "docs", QUERY, EVERYTHING, lambda: visibility.counting("L"))  # type: ignore[arg-type]
    return [(c.passage.document_id, c.passage.version) for c in retrieved.sparse]


def showing(versions: Counting) -> Visibility:
    visibility = Visibility()
    visibility.show("L", versions)
    return visibility


async def test_nothing_in_flux_costs_nothing() -> None:
    """The store is asked once, and its answer passed on."""
    shelf = Shelf(passage("a", "1"), passage("b", "1"))
    assert await seen(shelf, Visibility()) == [("a", "1"), ("b", "1")]
    assert shelf.looks == [None]


@pytest.mark.parametrize(("counts", "expected"), [("1", ["1"]), ("2", ["2"]), (None, [])])
async def test_one_version_of_a_document_in_flux_is_seen(counts: str | None, expected: list[str]) -> None:
    """That which counts; other documents are not concerned."""
    shelf = Shelf(passage("a", "1"), passage("a", "2"))
    assert await seen(shelf, showing({"a": counts})) == [("a", version) for version in expected]
    assert await seen(shelf, showing({"other": None})) == [("a", "1"), ("a", "2")]


async def test_what_does_not_count_takes_no_places() -> None:
    """Where passages that do not count fill a side, the store is asked again without them."""
    shelf = Shelf(
        *[passage("big", "2", n) for n in range(10)], passage("big", "1"), passage("a", "1"), passage("b", "1")
    )
    assert await seen(shelf, showing({"big": "1"})) == [("big", "1"), ("a", "1"), ("b", "1")]
    assert await seen(shelf, showing({"big": None, "a": "1"})) == [("a", "1"), ("b", "1")]


async def test_a_commit_meanwhile_hides_nothing() -> None:
    """What was read before it and judged after it is read again."""
    visibility = showing({"a": "1"})
    shelf = Shelf(passage("a", "1"))

    def commit() -> None:
        shelf.passages = [passage("a", "2")]
        visibility.show("L", {"a": "2"})

    shelf.meanwhile = [commit]
    assert await seen(shelf, visibility) == [("a", "2")]


async def test_a_write_that_comes_and_goes_meanwhile_shows_one_version() -> None:
    """Two versions were found although nothing is in flux before or after: it is read again."""
    visibility = Visibility()
    shelf = Shelf(passage("a", "1"), passage("a", "2"))

    def settle() -> None:
        visibility.show("L", {"a": "2", "b": None})
        visibility.settled("L", ["a"])
        shelf.passages = [passage("a", "2")]

    shelf.meanwhile = [settle]
    assert await seen(shelf, visibility) == [("a", "2")]


async def test_what_changes_with_every_look_still_shows_one_version() -> None:
    """A search ends, and shows something of the document."""
    visibility = showing({"a": "1"})
    shelf = Shelf(passage("a", "1"), passage("a", "2"))
    turns = ["2", "1", "2", "1"]
    shelf.meanwhile = [lambda: visibility.show("L", {"a": turns.pop(0)}) for _ in range(4)]
    assert len(await seen(shelf, visibility)) == 1


def made(text: str) -> Prepared:
    document = Document(text=text)
    record = DocumentRecord(
        id="x", path=None, source="", title="", version=document.content_hash(), passages=0, body=document
    )
    return prepare(document, record, HashEmbedder())


class Interrupted(Exception):
    """What a kill is like for the writer."""


async def test_the_earlier_version_is_served_until_the_next_is_whole(
    bench: PipelineContext,
) -> None:
    """Also by a process that starts after a kill; the leftovers of the next one are hidden, and go when it settles."""
    lineage = (await ensure_collection(bench, "default")).spec.lineage
    writer = Writer(bench, "default", lineage)
    await writer.add(made("an old pear"))
    await writer.flush()
    assert not bench.visibility.counting(lineage)

    async def found(context: PipelineContext) -> list[str]:
        retrieved = await retrieve_counting(
            context.store, "default", QUERY, EVERYTHING, lambda: context.visibility.counting(lineage)
        )
        return [candidate.passage.text for candidate in retrieved.sparse]

    upsert = bench.store.upsert

    async def upsert_and_die(name: str, points: Sequence[object]) -> None:
        await upsert(name, points)  # type: ignore[arg-type]
        raise Interrupted

    bench.store.upsert = upsert_and_die  # type: ignore[method-assign, assignment]
    await writer.add(made("a new pear"))
    with pytest.raises(Interrupted):
        await writer.flush()
    bench.store.upsert = upsert  # type: ignore[method-assign]
    assert await texts(bench) == ["a new pear", "an old pear"]
    assert await found(bench) == ["an old pear"]

    later = reopened(bench.store, bench.manifest._file.path.parent)
    await show_what_counts(later)
    assert await found(later) == ["an old pear"]
    await Writer(later, "default", lineage).settle(await later.manifest.unfinished(lineage))
    assert (await found(later), await texts(later)) == (["an old pear"], ["an old pear"])
    assert not later.visibility.counting(lineage)
    await later.manifest.close()
