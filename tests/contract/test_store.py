"""What every vector store promises (`indexing.store.base`)."""

import asyncio
from itertools import pairwise
from math import cos, sin

import msgspec
import numpy as np
import pytest

from indexing.documents import EVERYTHING, PageStart
from indexing.errors import CollectionNotFound, Conflict, InvalidName, StoreUnavailable
from indexing.filters import OfVersions, parse_filter
from indexing.store.base import CollectionInfo, CollectionSpec, Point, Retrieval, Retrieved, SparseVector, VectorStore
from tests.fakes.points import SPEC, everything, passage, point, vector

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]

SEED = 1872
"""No score that it makes lies near the middle of two that are told apart, whatever an engine's last digits are."""

NEAREST = Retrieval(dense=vector(1.0), limit=1000)


def documents(retrieved: Retrieved) -> list[str]:
    return [candidate.passage.document_id for candidate in retrieved.dense]


async def found(store: VectorStore, name: str = "docs") -> set[tuple[str, str]]:
    """(document, version) of everything that a search reaches."""
    retrieved = await store.retrieve(name, NEAREST, EVERYTHING)
    return {(candidate.passage.document_id, candidate.passage.version) for candidate in retrieved.dense}


class TestCollections:
    async def test_created_collection_is_empty_and_listed(self, store: VectorStore) -> None:
        """A new collection has its spec, no passages, and a place in the list."""
        created = await store.create("docs", SPEC)
        assert (created.name, created.spec, created.passages) == ("docs", SPEC, 0)
        assert created.generation
        assert [info.name for info in await store.collections()] == ["docs"]
        assert (await store.retrieve("docs", NEAREST, EVERYTHING)).dense == []

    async def test_created_by_two_at_once_it_is_one(self, store: VectorStore) -> None:
        """Whoever comes first gives the spec, and both are told the same."""

        async def create(n: int) -> CollectionInfo:
            await asyncio.sleep(0.001 * n)
            return await store.create("docs", msgspec.structs.replace(SPEC, lineage=f"lineage {n}"))

        created = await asyncio.gather(*(create(n) for n in range(12)))
        assert len({(info.generation, info.spec.lineage) for info in created}) == 1

    async def test_list_is_sorted_by_name(self, store: VectorStore) -> None:
        """Collections come by name, whatever the order of their creation."""
        for name in ("b", "a.x", "C"):
            await store.create(name, SPEC)
        assert [info.name for info in await store.collections()] == ["C", "a.x", "b"]

    async def test_creating_again_keeps_what_is_there(self, store: VectorStore) -> None:
        """The same shape again returns the existing collection with its own spec and passages."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [point("d1")])
        again = await store.create("docs", CollectionSpec(dimension=4, embedder="another"))
        assert again.spec.embedder == "model-a"
        assert again.passages == 1

    @pytest.mark.parametrize(
        "other",
        [CollectionSpec(dimension=5, embedder="model-a"), CollectionSpec(dimension=4, embedder="x", distance="dot")],
    )
    async def test_another_shape_conflicts(self, store: VectorStore, other: CollectionSpec) -> None:
        """Another dimension or distance is refused, and the message names both."""
        await store.create("docs", SPEC)
        with pytest.raises(Conflict, match=f"4 dimensions by cosine, not of {other.dimension}"):
            await store.create("docs", other)

    @pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b", "é", "x" * 65, "docs--0123456789ab"])
    async def test_bad_names_are_refused(self, store: VectorStore, name: str) -> None:
        """A name that cannot be a directory, or that looks like a generation, is refused before anything is made."""
        with pytest.raises(InvalidName):
            await store.create(name, SPEC)
        with pytest.raises(InvalidName):
            await store.begin_rebuild(name, SPEC)
        assert await store.collections() == []

    async def test_notes_are_kept(self, store: VectorStore) -> None:
        """Whatever JSON can hold comes back."""
        notes = {"old": {"a": 1}, "n": 2.5, "list": [1, "zwei", None]}
        await store.create("docs", CollectionSpec(dimension=4, embedder="model-a", notes=notes))
        assert (await store.info("docs")).spec.notes == notes

    async def test_dropped_collection_is_gone(self, store: VectorStore) -> None:
        """After a drop every call says that there is no such collection, and the name is free for another shape."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [point("d1")])
        await store.drop("docs")
        assert await store.collections() == []
        await _raises_not_found_everywhere(store, "docs")
        other = CollectionSpec(dimension=7, embedder="model-b", distance="dot")
        assert (await store.create("docs", other)).spec == other

    async def test_unknown_collection_is_not_found(self, store: VectorStore) -> None:
        """Every call on a collection that never was says so by its name."""
        await _raises_not_found_everywhere(store, "nothing")

    async def test_closed_store_refuses(self, store: VectorStore) -> None:
        """A closed store answers with StoreUnavailable; closing twice is harmless."""
        await store.create("docs", SPEC)
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.retrieve("docs", NEAREST, EVERYTHING)
        with pytest.raises(StoreUnavailable):
            await store.collections()


async def _raises_not_found_everywhere(store: VectorStore, name: str) -> None:
    calls = [
        store.info(name),
        store.drop(name),
        store.upsert(name, [point("d1")]),
        store.delete_documents(name, ["d1"]),
        store.delete_stale(name, {"d1": "v1"}),
        store.retrieve(name, NEAREST, EVERYTHING),
        store.retrieve(name, Retrieval(), EVERYTHING),
        store.passages(name, "d1", EVERYTHING),
        store.points(name, ["d1"], EVERYTHING),
        store.page(name, None, 10, EVERYTHING),
        store.optimize(name),
    ]
    for call in calls:
        with pytest.raises(CollectionNotFound, match=name):
            await call


class TestPassages:
    async def test_passage_survives_the_store(self, store: VectorStore) -> None:
        """Every field of a passage comes back equal: other scripts, empty fields, nested metadata, large numbers."""
        full = point(
            "d1",
            text="牙科保险 🦷 first\nday",
            title="Café",
            source="a/b c.pdf",
            page=3,
            later_pages=(PageStart(5, 4), PageStart(2**40, 6)),
            heading=("A", "B"),
            metadata={
                "lang": "zh",
                "n": 2**53 + 1,
                "x": 1.5,
                "tags": ["a", "b"],
                "deep": {"er": {"y": True}},
                "no": None,
            },
        )
        await store.create("docs", SPEC)
        await store.upsert("docs", [full, point("d2")])
        assert await store.passages("docs", "d1", EVERYTHING) == [full.passage]
        assert await store.passages("docs", "d2", EVERYTHING) == [passage("d2")]
        by_id = {c.passage.document_id: c.passage for c in (await store.retrieve("docs", NEAREST, EVERYTHING)).dense}
        assert by_id == {"d1": full.passage, "d2": passage("d2")}

    async def test_upsert_replaces_by_id(self, store: VectorStore) -> None:
        """A passage written twice is there once, with the last text, vector and sparse side."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [point("d1", text="old", dense=vector(1.0), sparse={1: 1.0})])
        await store.upsert("docs", [point("d1", text="new", dense=vector(0.0, 1.0))])
        assert (await store.info("docs")).passages == 1
        retrieved = await store.retrieve(
            "docs", Retrieval(dense=vector(0.0, 1.0), sparse=SparseVector([1], [1.0])), EVERYTHING
        )
        assert [(c.passage.text, c.score) for c in retrieved.dense] == [("new", pytest.approx(1.0))]
        assert retrieved.sparse == []

    async def test_a_passage_that_was_found_is_found_as_it_was_replaced(self, store: VectorStore) -> None:
        """A search shows what a passage is now, also where an earlier search has read it, and not what was deleted."""
        await store.create("docs", SPEC)
        before = point("d1")
        await store.upsert("docs", [before])
        assert (await store.retrieve("docs", NEAREST, EVERYTHING)).dense[0].passage == before.passage
        after = msgspec.structs.replace(before, passage=msgspec.structs.replace(before.passage, title="Another"))
        await store.upsert("docs", [after])
        for _ in range(2):
            assert (await store.retrieve("docs", NEAREST, EVERYTHING)).dense[0].passage == after.passage
        await store.delete_documents("docs", ["d1"])
        assert (await store.retrieve("docs", NEAREST, EVERYTHING)).dense == []

    async def test_empty_upsert_is_harmless(self, store: VectorStore) -> None:
        """Writing no points writes nothing."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [])
        assert (await store.info("docs")).passages == 0

    async def test_passages_come_by_ordinal(self, store: VectorStore) -> None:
        """All passages of a document, more than a page of them, in their order; none for an unknown document."""
        await store.create("docs", SPEC)
        ordinals = [*range(1, 600, 2), *range(0, 600, 2)]
        await store.upsert("docs", [point("d1", ordinal=ordinal) for ordinal in ordinals])
        await store.upsert("docs", [point("d2")])
        assert [found.ordinal for found in await store.passages("docs", "d1", EVERYTHING)] == list(range(600))
        assert await store.passages("docs", "d3", EVERYTHING) == []


class TestDeleting:
    async def test_deletes_all_passages_of_the_documents(self, store: VectorStore) -> None:
        """Deleted documents leave no passage in searches; others stay; unknown ids and none at all are harmless."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [point(f"d{i}", ordinal=n, sparse={1: 1.0}) for i in range(4) for n in range(3)])
        await store.delete_documents("docs", ["d1", "d3", "unknown"])
        await store.delete_documents("docs", [])
        assert await found(store) == {("d0", "v1"), ("d2", "v1")}
        sparse = (await store.retrieve("docs", Retrieval(sparse=SparseVector([1], [1.0])), EVERYTHING)).sparse
        assert {candidate.passage.document_id for candidate in sparse} == {"d0", "d2"}
        assert (await store.info("docs")).passages == 6

    @pytest.mark.slow
    async def test_deletes_thousands_of_documents(self, store: VectorStore) -> None:
        """A list longer than any one request is worked through."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [point(f"d{i}") for i in range(2500)])
        await store.delete_documents("docs", [f"d{i}" for i in range(1, 2500)])
        assert await found(store) == {("d0", "v1")}

    async def test_stale_versions_go(self, store: VectorStore) -> None:
        """Of the documents named only the given version stays, even where another's current version is equal to it."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [point(f"d{i}", version=version) for i in range(3) for version in ("v1", "v2")])
        await store.delete_stale("docs", {"d0": "v1", "d1": "v2", "unknown": "v9"})
        await store.delete_stale("docs", {})
        assert await found(store) == {("d0", "v1"), ("d1", "v2"), ("d2", "v1"), ("d2", "v2")}

    @pytest.mark.slow
    async def test_versions_are_left_out_of_a_search(self, store: VectorStore) -> None:
        """Of the documents named only the given versions are found, of others everything; without one, none of them."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [point(f"d{i}", version=version) for i in range(3) for version in ("v1", "v2")])
        one = msgspec.structs.replace(NEAREST, filter=OfVersions(keys=("d0", "d1"), versions=("v1",)))
        others = {("d2", "v1"), ("d2", "v2")}
        retrieved = await store.retrieve("docs", one, EVERYTHING)
        assert {(c.passage.document_id, c.passage.version) for c in retrieved.dense} == {
            ("d0", "v1"),
            ("d1", "v1"),
            *others,
        }
        none = msgspec.structs.replace(NEAREST, filter=OfVersions(keys=("d0", "d1"), versions=()))
        retrieved = await store.retrieve("docs", none, EVERYTHING)
        assert {(c.passage.document_id, c.passage.version) for c in retrieved.dense} == others

    async def test_stale_versions_of_many_documents_go(self, store: VectorStore) -> None:
        """More documents than one request holds, with several passages each."""
        await store.create("docs", SPEC)
        points = [point(f"d{i}", version=v, ordinal=n) for i in range(1100) for v in ("v1", "v2") for n in range(2)]
        await store.upsert("docs", points)
        await store.delete_stale("docs", {f"d{i}": f"v{i % 2 + 1}" for i in range(1100)})
        assert await found(store) <= {(f"d{i}", f"v{i % 2 + 1}") for i in range(1100)}
        assert (await store.info("docs")).passages == 2200


class TestRetrieving:
    async def test_dense_side_is_cosine_similarity(self, store: VectorStore) -> None:
        """Dense candidates come by cosine similarity, whatever the length of the vectors."""
        await store.create("docs", SPEC)
        vectors = {"same": vector(5.0), "near": vector(1.0, 1.0), "far": vector(0.0, 3.0), "opposite": vector(-1.0)}
        await store.upsert("docs", [point(name, dense=dense) for name, dense in vectors.items()])
        retrieved = await store.retrieve("docs", Retrieval(dense=vector(2.0)), EVERYTHING)
        assert documents(retrieved) == ["same", "near", "far", "opposite"]
        assert [c.score for c in retrieved.dense] == pytest.approx([1.0, 0.5**0.5, 0.0, -1.0], abs=2e-5)
        assert retrieved.sparse == []

    @pytest.mark.parametrize(("distance", "scores"), [("dot", [6.0, 4.0, 0.0]), ("euclid", [-1.0, 0.0, -2.0])])
    async def test_other_distances_rank_the_nearest_first(
        self, store: VectorStore, distance: str, scores: list[float]
    ) -> None:
        """With every distance a larger score is nearer: the product itself, or the Euclidean distance negated."""
        spec = CollectionSpec(dimension=4, embedder="model-a", distance=distance)  # type: ignore[arg-type]
        await store.create("docs", spec)
        await store.upsert("docs", [point(f"d{n}", dense=vector(n)) for n in (3.0, 2.0, 0.0)])
        retrieved = await store.retrieve("docs", Retrieval(dense=vector(2.0)), EVERYTHING)
        assert [c.score for c in retrieved.dense] == pytest.approx(sorted(scores, reverse=True))

    async def test_sparse_side_weighs_rare_tokens_more(self, store: VectorStore) -> None:
        """Sparse scores are products of weights times idf; a passage that shares no token is no candidate.

        idf = ln(1 + (N - n + 0.5) / (n + 0.5)), n of the N passages with a sparse side having the token.
        """
        await store.create("docs", SPEC)
        await store.upsert("docs", [point(f"d{i}", sparse={7: 1.0}) for i in range(9)])
        await store.upsert(
            "docs", [point("rare", sparse={8: 1.5, 7: 1.0}), point("none"), point("other", sparse={9: 1.0})]
        )
        sparse = (await store.retrieve("docs", Retrieval(sparse=SparseVector([8, 7], [1.0, 2.0])), EVERYTHING)).sparse
        assert sparse[0].passage.document_id == "rare"
        assert {c.passage.document_id for c in sparse} == {"rare", *(f"d{i}" for i in range(9))}
        idf = [np.log(1 + (11 - n + 0.5) / (n + 0.5)) for n in (1, 10)]
        assert sparse[0].score == pytest.approx(1.5 * idf[0] + 2.0 * idf[1], rel=2e-5)
        assert sparse[1].score == pytest.approx(2.0 * idf[1], rel=2e-5)

    async def test_both_sides_share_limit_and_filter(self, store: VectorStore) -> None:
        """Limit counts each side's candidates, and the filter holds for both."""
        await store.create("docs", SPEC)
        points = [point(f"d{i}", dense=vector(1.0, i / 50), sparse={1: i + 1.0}, page=i) for i in range(20)]
        await store.upsert("docs", points)
        condition = parse_filter({"page": {"gte": 5}})
        sparse = SparseVector([1], [1.0])
        retrieved = await store.retrieve(
            "docs", Retrieval(dense=vector(1.0), sparse=sparse, limit=3, filter=condition), EVERYTHING
        )
        assert documents(retrieved) == ["d5", "d6", "d7"]
        assert [c.passage.document_id for c in retrieved.sparse] == ["d19", "d18", "d17"]

    async def test_ties_are_broken_by_id(self, store: VectorStore) -> None:
        """Equal scores are ordered by passage id on both sides."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [point(f"d{i}", sparse={1: 1.0}) for i in range(30)])
        retrieved = await store.retrieve(
            "docs", Retrieval(dense=vector(1.0), sparse=SparseVector([1], [1.0])), EVERYTHING
        )
        for side in (retrieved.dense, retrieved.sparse):
            assert len(side) == 30
            assert all(a.passage.id < b.passage.id for a, b in pairwise(side))

    async def test_the_order_of_writing_changes_no_score(self, store: VectorStore) -> None:
        """Two collections with the same points, written in other orders, give the same results to the last digit."""
        rng = np.random.default_rng(SEED)
        terms = [dict(zip(rng.permutation(30)[:8].tolist(), rng.uniform(0.5, 2.2, 8), strict=True)) for _ in range(400)]
        points = [point(f"d{i}", sparse=one) for i, one in enumerate(terms)]
        for name, written in (("docs", points), ("again", points[::-1])):
            await store.create(name, SPEC)
            await store.upsert(name, written)
        for _ in range(12):
            sparse = SparseVector(sorted(rng.permutation(30)[:7].tolist()), [1.0] * 7)
            first, second = [
                (await store.retrieve(name, Retrieval(sparse=sparse, limit=8), EVERYTHING)).sparse
                for name in ("docs", "again")
            ]
            assert [(c.passage.id, c.score) for c in first] == [(c.passage.id, c.score) for c in second]

    async def test_neither_side_finds_nothing(self, store: VectorStore) -> None:
        """A retrieval without a side is empty."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [point("d1")])
        assert await store.retrieve("docs", Retrieval(), EVERYTHING) == Retrieved()

    async def test_optimizing_changes_no_result(self, store: VectorStore) -> None:
        """After optimising the same search finds the same passages, and writes go on."""
        rng = np.random.default_rng(7)
        await store.create("docs", SPEC)
        rows = rng.standard_normal((300, 4)).astype(np.float32)
        await store.upsert("docs", [point(f"d{i}", dense=row, sparse={i % 5: 1.0}) for i, row in enumerate(rows)])
        query = Retrieval(dense=rows[0], sparse=SparseVector([3], [1.0]), limit=10)
        before = await store.retrieve("docs", query, EVERYTHING)
        await store.optimize("docs")
        after = await store.retrieve("docs", query, EVERYTHING)
        assert documents(after) == documents(before)
        assert len(after.sparse) == 10
        await store.upsert("docs", [point("late", dense=rows[0])])
        assert "late" in documents(await store.retrieve("docs", query, EVERYTHING))
        assert (await store.info("docs")).passages == 301


class TestRebuilding:
    async def test_generation_is_apart_until_it_is_finished(self, store: VectorStore) -> None:
        """Readers see the old passages until the switch and only the new ones, under the new spec, after it."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [point("old")])
        other = CollectionSpec(dimension=2, embedder="model-b", distance="dot", notes={"measured": 1})
        generation = await store.begin_rebuild("docs", other)
        new = Point(passage=passage("new"), dense=np.array([1.0, 0.0], dtype=np.float32), sparse=None)
        await store.upsert(generation, [new])
        assert await found(store) == {("old", "v1")}
        assert [(info.name, info.passages) for info in await store.collections()] == [("docs", 1)]
        before = await store.info("docs")

        await store.finish_rebuild("docs", generation)
        info = await store.info("docs")
        assert info.spec == other
        assert info.generation != before.generation
        retrieved = await store.retrieve("docs", Retrieval(dense=np.array([1.0, 0.0], dtype=np.float32)), EVERYTHING)
        assert documents(retrieved) == ["new"]
        assert [info.name for info in await store.collections()] == ["docs"]

    async def test_generation_answers_every_call_by_its_name(self, store: VectorStore) -> None:
        """A generation under construction can be written, read, counted and cleaned like a collection."""
        await store.create("docs", SPEC)
        generation = await store.begin_rebuild("docs", SPEC)
        await store.upsert(generation, [point("d1"), point("d2"), point("d2", version="v2")])
        await store.delete_documents(generation, ["d1"])
        await store.delete_stale(generation, {"d2": "v2"})
        await store.optimize(generation)
        assert await found(store, generation) == {("d2", "v2")}
        assert [item.version for item in await everything(store, generation)] == ["v2"]
        assert (await store.info(generation)).passages == 1
        assert await found(store) == set()

    async def test_unfinished_generation_is_discarded(self, store: VectorStore) -> None:
        """A second rebuild throws the first one's passages away; the live ones stay."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [point("old")])
        first = await store.begin_rebuild("docs", SPEC)
        await store.upsert(first, [point("lost")])
        second = await store.begin_rebuild("docs", SPEC)
        assert first != second
        with pytest.raises(CollectionNotFound):
            await store.upsert(first, [point("lost")])
        with pytest.raises(CollectionNotFound):
            await store.finish_rebuild("docs", first)
        assert await found(store) == {("old", "v1")}
        await store.finish_rebuild("docs", second)
        assert await found(store) == set()

    async def test_rebuild_needs_no_predecessor(self, store: VectorStore) -> None:
        """The first generation of a collection may be built in the same way; until then there is no collection."""
        generation = await store.begin_rebuild("docs", SPEC)
        await store.upsert(generation, [point("d1")])
        with pytest.raises(CollectionNotFound):
            await store.info("docs")
        await store.finish_rebuild("docs", generation)
        assert await found(store) == {("d1", "v1")}

    async def test_only_a_generation_of_its_own_can_be_finished(self, store: VectorStore) -> None:
        """Neither the collection itself nor another's generation can be switched to."""
        await store.create("docs", SPEC)
        await store.create("other", SPEC)
        generation = await store.begin_rebuild("other", SPEC)
        for wrong in ("docs", generation, "docs--00000000beef"):
            with pytest.raises(CollectionNotFound):
                await store.finish_rebuild("docs", wrong)
        assert [info.name for info in await store.collections()] == ["docs", "other"]

    async def test_drop_takes_unfinished_generations_along(self, store: VectorStore) -> None:
        """Nothing of a dropped collection can be written to any more."""
        await store.create("docs", SPEC)
        generation = await store.begin_rebuild("docs", SPEC)
        await store.drop("docs")
        with pytest.raises(CollectionNotFound):
            await store.upsert(generation, [point("d1")])


class TestConcurrency:
    async def test_searches_run_during_writes(self, store: VectorStore) -> None:
        """Searches beside writes and deletes succeed and see whole passages."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [point("stays", sparse={1: 1.0})])

        async def write() -> None:
            for turn in range(10):
                await store.upsert("docs", [point(f"d{turn}-{i}", sparse={1: 1.0}) for i in range(20)])
                await store.delete_documents("docs", [f"d{turn}-{i}" for i in range(0, 20, 2)])

        async def search() -> None:
            for _ in range(10):
                retrieved = await store.retrieve(
                    "docs", Retrieval(dense=vector(1.0), sparse=SparseVector([1], [1.0]), limit=1000), EVERYTHING
                )
                assert "stays" in documents(retrieved)

        await asyncio.gather(write(), *(search() for _ in range(4)))
        assert (await store.info("docs")).passages == 101

    @pytest.mark.slow
    async def test_readers_never_see_half_a_rebuild(self, store: VectorStore) -> None:
        """While generations are switched, every search sees exactly one of them, whole."""
        await store.create("docs", SPEC)
        await store.upsert("docs", [point(f"d{i}", version="v0") for i in range(10)])
        done = asyncio.Event()

        async def rebuild() -> None:
            for turn in range(1, 5):
                generation = await store.begin_rebuild("docs", SPEC)
                await store.upsert(generation, [point(f"d{i}", version=f"v{turn}") for i in range(10)])
                await store.finish_rebuild("docs", generation)
            done.set()

        async def search() -> None:
            while not done.is_set():
                seen = await found(store)
                assert len(seen) == 10
                assert len({version for _, version in seen}) == 1

        await asyncio.gather(rebuild(), search(), search())


class TestExport:
    async def test_points_come_back_with_their_vectors(self, store: VectorStore) -> None:
        """What was written of the documents that are named, vectors included, and nothing of others."""
        first = point("d1", dense=vector(0.6, 0.8), sparse={7: 1.5, 4_000_000_000: 0.25}, metadata={"n": 2**53 + 1})
        second = point("d1", ordinal=1, dense=vector(0, 1.0))
        await store.create("docs", SPEC)
        await store.upsert("docs", [first, second, point("d2"), point("d3", sparse={1: 1.0})])
        exported = sorted(
            await store.points("docs", ["d1", "none"], EVERYTHING), key=lambda point: point.passage.ordinal
        )
        assert [point.passage for point in exported] == [first.passage, second.passage]
        assert np.allclose([point.dense for point in exported], [first.dense, second.dense])
        weights = exported[0].sparse
        assert weights is not None
        assert dict(zip(weights.indices, weights.values, strict=True)) == {7: 1.5, 4_000_000_000: 0.25}
        assert exported[1].sparse is None
        assert exported[0].dense.dtype == np.float32

    async def test_exported_points_can_be_written_elsewhere(self, store: VectorStore) -> None:
        """A copy answers every search as the original does."""
        await store.create("docs", SPEC)
        await store.create("copy", SPEC)
        documents = [f"d{n}" for n in range(1200)]
        points = [
            point(d, dense=vector(cos(n / 400), sin(n / 400)), sparse={n % 7 + 1: 1 + n / 100})
            for n, d in enumerate(documents)
        ]
        await store.upsert("docs", points)
        await store.upsert("copy", await store.points("docs", documents, EVERYTHING))
        query = Retrieval(dense=vector(cos(-0.5), sin(-0.5)), sparse=SparseVector([3], [1.0]), limit=20)
        before, after = await store.retrieve("docs", query, EVERYTHING), await store.retrieve("copy", query, EVERYTHING)
        for one, other in ((before.dense, after.dense), (before.sparse, after.sparse)):
            assert [c.passage for c in one] == [c.passage for c in other]
            assert np.allclose([c.score for c in one], [c.score for c in other])

    async def test_pages_cover_the_whole_collection(self, store: VectorStore) -> None:
        """Page after page holds every passage once; an empty collection is one empty page."""
        await store.create("docs", SPEC)
        assert await store.page("docs", None, 10, EVERYTHING) == ([], None)
        await store.upsert("docs", [point(f"d{n}") for n in range(25)])
        pages, cursor = [], None
        while True:
            page, cursor = await store.page("docs", cursor, 10, EVERYTHING)
            pages.append(page)
            if cursor is None:
                break
        assert [len(page) for page in pages] == [10, 10, 5]
        assert sorted(p.document_id for page in pages for p in page) == sorted(f"d{n}" for n in range(25))
