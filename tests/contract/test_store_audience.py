"""No store shows anybody what is not theirs, whatever they ask for."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexing.documents import EVERYTHING, Audience, document_key, passage_id, split_key, to_payload
from indexing.errors import CollectionNotFound
from indexing.filters import OfVersions, parse_filter
from indexing.store.base import Point, Retrieval, SparseVector, VectorStore
from tests.contract.test_store_filters import corpus, filters
from tests.fakes.filter_oracle import matches
from tests.fakes.points import SPEC, everything, passage, vector

pytestmark = pytest.mark.anyio

TENANTS = ["", "a", "b", "A", "a\u0301", "ab"]
GROUPS = ["hr", "HR", "legal", "hr legal"]
WORDS = SparseVector([1, 2], [1.0, 1.0])


def owned(document_id: str, tenant: str, allowed: tuple[str, ...] = (), **fields: Any) -> Point:
    """A passage of a document that may belong to a tenant; every one has the same words and the same vector."""
    version = fields.pop("version", "v1")
    made = passage(document_id, version=version, tenant=tenant, allowed=allowed, **fields)
    made = msgspec.structs.replace(made, id=passage_id(made.key, version, made.ordinal))
    return Point(passage=made, dense=vector(1.0), sparse=WORDS)


async def seen(store: VectorStore, audience: Audience, raw: dict[str, Any] | None = None) -> set[tuple[str, str]]:
    """(tenant, text) of what each side of a search finds; both sides are the same."""
    condition = parse_filter(raw or {})
    retrieval = Retrieval(dense=vector(1.0), sparse=WORDS, limit=1000, filter=condition)
    retrieved = await store.retrieve("docs", retrieval, audience)
    sides = [{(c.passage.tenant, c.passage.text) for c in side} for side in (retrieved.dense, retrieved.sparse)]
    assert sides[0] == sides[1]
    return sides[0]


@pytest.fixture
async def shared(store: VectorStore) -> VectorStore:
    """Two tenants and nobody have a document of the same id; some are for groups only."""
    await store.create("docs", SPEC)
    documents = [("d1", "", ()), ("d1", "a", ()), ("d1", "b", ()), ("d2", "a", ("hr",)), ("d3", "a", ("hr", "legal"))]
    await store.upsert("docs", [owned(name, tenant, allowed, text=name) for name, tenant, allowed in documents])
    return store


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        (EVERYTHING, {("", "d1"), ("a", "d1"), ("b", "d1"), ("a", "d2"), ("a", "d3")}),
        (Audience(), {("", "d1")}),
        (Audience(groups=("hr",)), {("", "d1")}),
        (Audience(tenant="a"), {("a", "d1")}),
        (Audience(tenant="a", groups=("legal",)), {("a", "d1"), ("a", "d3")}),
        (Audience(tenant="a", groups=("x", "hr")), {("a", "d1"), ("a", "d2"), ("a", "d3")}),
        (Audience(tenant="b", groups=("hr", "legal")), {("b", "d1")}),
        (Audience(tenant="c"), set()),
    ],
)
async def test_everybody_reads_their_own(
    shared: VectorStore, audience: Audience, expected: set[tuple[str, str]]
) -> None:
    """Searches, single documents, exports and pages hold what the audience may see, and all of it."""
    assert await seen(shared, audience) == expected
    keys = sorted({one.key for one in await everything(shared, "docs")})
    read = [one for key in keys for one in await shared.passages("docs", key, audience)]
    exported = [one.passage for one in await shared.points("docs", keys, audience)]
    paged, cursor = await shared.page("docs", None, 2, audience)
    while cursor is not None:
        more, cursor = await shared.page("docs", cursor, 2, audience)
        paged += more
    for passages in (read, exported, paged):
        assert {(one.tenant, one.text) for one in passages} == expected
        assert len(passages) == len(expected)


@pytest.mark.parametrize(
    "raw",
    [
        {"tenant": "b"},
        {"tenant": {"ne": "a"}},
        {"allowed": {"exists": False}},
        {"not": {"document_id": "none"}},
        {"or": [{"document_id": "d1"}, {"not": {"document_id": "d1"}}]},
        {"not": {"and": [{"tenant": "a"}, {"allowed": "hr"}]}},
    ],
)
async def test_a_filter_cannot_name_another_tenant(shared: VectorStore, raw: dict[str, Any]) -> None:
    """`tenant` and `allowed` are metadata in a filter, and what is negated is so within one's own."""
    assert await seen(shared, Audience(tenant="a"), raw) <= {("a", "d1")}


async def test_metadata_called_tenant_say_nothing(store: VectorStore) -> None:
    """Documents whose metadata name a tenant or groups belong to whom they belong, and can be filtered by them."""
    await store.create("docs", SPEC)
    await store.upsert("docs", [owned("d1", "a", text="x", metadata={"tenant": "b", "allowed": ["hr"]})])
    assert await seen(store, Audience(tenant="a"), {"tenant": "b", "allowed": "hr"}) == {("a", "x")}
    assert await seen(store, Audience(tenant="b")) == set()


async def test_writing_spares_the_same_id_of_others(shared: VectorStore) -> None:
    """A tenant's document is deleted, or outdated, by itself; a version of one counts for that one alone."""
    await shared.upsert(
        "docs", [owned("d1", "a", text="new", version="v2"), owned("d1", "b", text="new", version="v2")]
    )
    key = document_key("a", "d1")
    hidden = OfVersions(keys=(key,), versions=("v2",))
    retrieval = Retrieval(dense=vector(1.0), limit=100, filter=hidden)
    found = {(c.passage.tenant, c.passage.text) for c in (await shared.retrieve("docs", retrieval, EVERYTHING)).dense}
    assert {("a", "new"), ("b", "d1"), ("b", "new"), ("", "d1")} <= found
    assert ("a", "d1") not in found
    await shared.delete_stale("docs", {key: "v2"})
    assert await seen(shared, Audience(tenant="a")) == {("a", "new")}
    assert await seen(shared, Audience(tenant="b")) == {("b", "d1"), ("b", "new")}
    await shared.delete_documents("docs", [key, "d1"])
    assert await seen(shared, Audience(tenant="a")) == set()
    assert await seen(shared, Audience()) == set()
    assert await seen(shared, Audience(tenant="b")) == {("b", "d1"), ("b", "new")}
    await shared.delete_documents("docs", [])
    assert await seen(shared, Audience(tenant="b")) == {("b", "d1"), ("b", "new")}


async def test_scores_do_not_tell_of_others(store: VectorStore) -> None:
    """How rare a word is, and among how many passages, is counted over what one may see."""
    await store.create("docs", SPEC)
    await store.upsert("docs", [owned(f"d{n}", "a", text=f"{n}") for n in range(3)])
    retrieval = Retrieval(dense=vector(1.0), sparse=WORDS, limit=5)
    before = await store.retrieve("docs", retrieval, Audience(tenant="a"))
    await store.upsert("docs", [owned(f"d{n}", "b", text=f"{n}") for n in range(50)])
    after = await store.retrieve("docs", retrieval, Audience(tenant="a"))
    assert after == before
    assert before.passages == 3
    assert (await store.retrieve("docs", retrieval, EVERYTHING)).passages is None


async def test_what_one_may_see_is_counted_anew_after_each_write(store: VectorStore) -> None:
    """Whether passages come, are replaced or go; however often it was counted before, and for each audience apart."""
    await store.create("docs", SPEC)
    tenant, group = Audience(tenant="a"), Audience(tenant="a", groups=("hr",))

    async def counted() -> list[int | None]:
        retrieval = Retrieval(sparse=WORDS, limit=5)
        twice = [[(await store.retrieve("docs", retrieval, who)).passages for who in (tenant, group)] for _ in range(2)]
        assert twice[0] == twice[1]
        return twice[0]

    assert await counted() == [0, 0]
    await store.upsert("docs", [owned("d1", "a"), owned("d2", "a"), owned("d3", "a", ("hr",)), owned("d1", "b")])
    assert await counted() == [2, 3]
    await store.upsert("docs", [owned("d1", "a", version="v2")])
    assert await counted() == [3, 4]
    await store.delete_stale("docs", {document_key("a", "d1"): "v2"})
    assert await counted() == [2, 3]
    await store.delete_documents("docs", [document_key("a", "d2"), document_key("a", "d3")])
    assert await counted() == [1, 1]


def test_a_key_names_one_document() -> None:
    """No id is taken for that of another tenant: not one that contains the separator, either."""
    assert split_key(document_key("a", "x/y")) == ("a", "x/y")
    assert split_key(document_key("", "x")) == ("", "x")
    forged = document_key("", document_key("a", "x"))
    assert forged != document_key("a", "x")
    assert split_key(forged)[0] == ""


def test_a_collection_outside_is_not_found() -> None:
    """As one that does not exist is."""
    bound = Audience(tenant="a", collections=("docs",))
    bound.check("docs")
    with pytest.raises(CollectionNotFound, match="other"):
        bound.check("other")
    EVERYTHING.check("other")


tenants = st.sampled_from(TENANTS)
audiences = st.builds(
    Audience, tenant=tenants, groups=st.lists(st.sampled_from(GROUPS), unique=True, max_size=2).map(tuple)
)


def owned_corpus() -> list[Point]:
    """Passages with every kind of metadata, of documents that belong to anybody and are for any groups."""
    draw = random.Random(20261129)
    owners = [
        {"tenant": draw.choice(TENANTS), "allowed": tuple(draw.sample(GROUPS, draw.choice([0, 0, 1, 2])))}
        for _ in corpus()
    ]
    return [
        msgspec.structs.replace(one, passage=msgspec.structs.replace(one.passage, **owner))
        for one, owner in zip(corpus(), owners, strict=True)
    ]


@pytest.fixture
async def owned_by_many(store: VectorStore) -> VectorStore:
    await store.create("docs", SPEC)
    await store.upsert("docs", owned_corpus())
    return store


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(audience=audiences, raw=st.one_of(st.just({}), filters))
async def test_nothing_outside_the_audience_under_any_filter(
    owned_by_many: VectorStore, audience: Audience, raw: dict[str, Any]
) -> None:
    """For any audience and filter, a search finds what both let through, no more and no less."""
    condition = parse_filter(raw)
    retrieval = Retrieval(dense=vector(1.0), limit=1000, filter=condition)
    retrieved = await owned_by_many.retrieve("docs", retrieval, audience)
    assert {candidate.passage.ordinal for candidate in retrieved.dense} == {
        passage.ordinal
        for passage in (one.passage for one in owned_corpus())
        if audience.sees(passage.tenant, passage.allowed)
        and (condition is None or matches(condition, to_payload(passage)))
    }
