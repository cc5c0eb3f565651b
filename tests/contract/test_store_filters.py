"""Filters mean the same in every store, and what the oracle says that they mean."""

import random
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain import Condition, Conditions, Operator
from app.retrieval.conditions import meets, narrowing
from indexing.documents import EVERYTHING, Passage, to_payload
from indexing.filters import Filter, Group, OneOf, parse_filter
from indexing.store.base import Point, Retrieval, VectorStore
from tests.fakes.filter_oracle import matches
from tests.fakes.points import SPEC, point, vector

pytestmark = pytest.mark.anyio

STRINGS = ["zh", "en", "EN", "", "1", "true", "2020", "a b", "é"]
NUMBERS = [0, 1, 3, 3.0, 3.5, -2, 2020, 2**53 - 1, 2**53, 2**53 + 1, 1e30, -0.0]
DATES = ["2024-01-01", "2024-01-01T00:00:00Z", "2024-01-01T00:30:00+01:00", "2023-12-31T23:59:59.5Z", "2025-06-01"]
TEXTS = [
    "Dental insurance",
    "dental",
    "Café Müller",
    "cafe muller",
    "牙科保险",
    "保险 dental",
    "CAFÉ",
    "muller",
    "Cafe\u0301 Mu\u0308ller",
]
BOUNDS = [number for number in NUMBERS if abs(number) < 2**53 or number > 2**63]
FIELDS = ["lang", "year", "flag", "when", "tags", "obj.inner", "obj.deep.er", "语言", "a b", "x-y_z", r"a\.b", "absent"]
BUILT_IN = ["document_id", "source", "title", "page"]

scalars = st.sampled_from([*STRINGS, *NUMBERS, *DATES, *TEXTS, True, False, "d3", "s1"])
fields = st.sampled_from([*FIELDS, *BUILT_IN])
bounds = st.sampled_from(["gt", "gte", "lt", "lte"])
operators = st.one_of(
    scalars,
    st.lists(scalars, min_size=1, max_size=4),
    st.fixed_dictionaries({"ne": scalars}),
    st.fixed_dictionaries({"nin": st.lists(scalars, min_size=1, max_size=4)}),
    st.dictionaries(bounds, st.sampled_from(BOUNDS), min_size=1),
    st.dictionaries(bounds, st.sampled_from(DATES), min_size=1),
    st.fixed_dictionaries({"text": st.sampled_from(TEXTS)}),
    st.fixed_dictionaries({"exists": st.booleans()}),
)
leaves = st.dictionaries(fields, operators, min_size=1, max_size=2)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=6,
)
conditions = st.builds(
    lambda every, parts: Conditions(every=every, conditions=tuple(parts)),
    every=st.booleans(),
    parts=st.lists(
        st.builds(
            lambda names, operator, values: Condition(fields=tuple(names), operator=operator, values=tuple(values)),
            names=st.lists(fields, min_size=1, max_size=2),
            operator=st.sampled_from(get_args(Operator)),
            values=st.lists(scalars, min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=3,
    ),
)


def corpus() -> list[Point]:
    """Passages whose fields hold every kind of value, of several types in one field."""
    draw = random.Random(20261122)
    values: list[Any] = [*STRINGS, *NUMBERS, *DATES, *TEXTS, True, False, None, []]

    def value() -> Any:
        if draw.random() < 0.25:
            return [item for item in draw.choices(values, k=draw.randint(1, 3)) if item not in (None, [])]
        return draw.choice(values)

    def metadata() -> dict[str, Any]:
        present = {key: value() for key in ["lang", "year", "flag", "when", "tags", "语言", "a b", "x-y_z", "a.b"]}
        kept = {key: item for key, item in present.items() if draw.random() < 0.7}
        return {**kept, "obj": draw.choice([{"inner": value()}, {"deep": {"er": value()}}, value()])}

    return [
        point(
            f"d{i % 7}",
            ordinal=i,
            metadata=metadata(),
            page=draw.choice([None, 1, 3, 2020]),
            title=draw.choice(["", *TEXTS]),
            source=draw.choice(["", "s1", "zh", "e\u0301", "dental.pdf"]),
        )
        for i in range(80)
    ]


@pytest.fixture
async def filled(store: VectorStore) -> VectorStore:
    await store.create("docs", SPEC)
    await store.upsert("docs", corpus()[:40])
    await store.upsert("docs", corpus()[40:])
    return store


async def found(store: VectorStore, condition: Filter | None) -> list[Passage]:
    retrieval = Retrieval(dense=vector(1.0), limit=1000, filter=condition)
    return [candidate.passage for candidate in (await store.retrieve("docs", retrieval, EVERYTHING)).dense]


@pytest.mark.slow
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=filters)
async def test_filters_agree_with_the_oracle(filled: VectorStore, raw: dict[str, Any]) -> None:
    """Any filter selects exactly the passages that the oracle selects, over fields of mixed types."""
    condition = parse_filter(raw)
    assert condition is not None
    expected = {p.passage.ordinal for p in corpus() if matches(condition, to_payload(p.passage))}
    assert {passage.ordinal for passage in await found(filled, condition)} == expected


@pytest.mark.slow
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=conditions)
async def test_no_store_loses_what_meets_conditions(filled: VectorStore, wanted: Conditions) -> None:
    """Under the narrowing of any conditions a store still gives every passage that meets them."""
    expected = {p.passage.ordinal for p in corpus() if meets(wanted, p.passage)}
    narrowed = await found(filled, narrowing(wanted))
    assert {passage.ordinal for passage in narrowed if meets(wanted, passage)} == expected


PASSAGES: dict[str, dict[str, Any]] = {
    "zh": {
        "title": "牙科保险指南",
        "page": 1,
        "metadata": {"lang": "zh", "year": 2020, "tags": ["a", "b"], "ok": True},
    },
    "en": {
        "title": "Dental plans",
        "page": 2,
        "metadata": {"lang": "en", "year": 2021.5, "when": "2024-03-01", "ok": False},
    },
    "fr": {
        "title": "Café Zoé",
        "source": "x/Menu-été.pdf",
        "metadata": {"lang": "fr", "obj": {"n": {"m": 1}}, "tags": []},
    },
    "id": {"metadata": {"big": 2**53 + 1, "year": "2020", "ok": 1, "author's name": "Ann", "gone": None}},
}

CASES: list[tuple[dict[str, Any], str]] = [
    ({"lang": "zh"}, "zh"),
    ({"lang": ["zh", "en", "xx"]}, "zh en"),
    ({"year": {"gte": 2020, "lt": 2021.5}}, "zh"),
    ({"year": 2021.5}, "en"),
    ({"year": 2020.0}, "zh"),
    ({"year": "2020"}, "id"),
    ({"year": [2020, "2020"]}, "zh id"),
    ({"big": 2**53 + 1}, "id"),
    ({"big": 2**53}, ""),
    ({"ok": True}, "zh"),
    ({"ok": False}, "en"),
    ({"ok": 1}, "id"),
    ({"ok": {"ne": True}}, "en fr id"),
    ({"when": {"gte": "2024-02-29T23:00:00-01:00", "lte": "2024-03-01"}}, "en"),
    ({"when": {"gt": "2024-03-01"}}, ""),
    ({"lang": {"ne": "en"}}, "zh fr id"),
    ({"lang": {"nin": ["en", "zh"]}}, "fr id"),
    ({"tags": "b"}, "zh"),
    ({"tags": {"exists": True}}, "zh"),
    ({"gone": {"exists": False}}, "zh en fr id"),
    ({"page": {"exists": True}}, "zh en"),
    ({"page": {"gte": 2}}, "en"),
    ({"page": 1}, "zh"),
    ({"obj.n.m": 1}, "fr"),
    ({"obj.n": {"exists": True}}, "fr"),
    ({"author's name": "Ann"}, "id"),
    ({"title": {"text": "dental"}}, "en"),
    ({"title": {"text": "PLANS dental"}}, "en"),
    ({"title": {"text": "dent"}}, ""),
    ({"title": {"text": "cafe zoe"}}, "fr"),
    ({"title": {"text": "保险"}}, "zh"),
    ({"title": {"text": "险"}}, "zh"),
    ({"title": {"text": "保科"}}, ""),
    ({"source": {"text": "ete menu"}}, "fr"),
    ({"tags": {"text": "B"}}, "zh"),
    ({"author's name": {"text": "ann"}}, "id"),
    ({"document_id": ["zh", "id"]}, "zh id"),
    ({"source": "x/Menu-été.pdf"}, "fr"),
    ({"and": [{"lang": ["zh", "en"]}, {"not": {"page": 1}}]}, "en"),
    ({"or": [{"lang": "zh"}, {"and": [{"year": {"gt": 2021}}, {"ok": False}]}]}, "zh en"),
    ({"not": {"or": [{"lang": "zh"}, {"lang": "en"}]}}, "fr id"),
    ({"not": {"lang": "zh", "page": 2}}, "zh en fr id"),
    ({"lang": "zh", "page": 1}, "zh"),
    ({}, "zh en fr id"),
]


async def test_each_operator(store: VectorStore) -> None:
    """One example of each operator, and of where engines would differ if left alone."""
    await store.create("docs", SPEC)
    await store.upsert("docs", [point(name, **fields) for name, fields in PASSAGES.items()])
    wrong = {}
    for raw, expected in CASES:
        retrieval = Retrieval(dense=vector(1.0), filter=parse_filter(raw))
        found = {
            candidate.passage.document_id for candidate in (await store.retrieve("docs", retrieval, EVERYTHING)).dense
        }
        if found != set(expected.split()):
            wrong[str(raw)] = found
    assert wrong == {}


async def test_names_are_met_in_either_spelling(store: VectorStore) -> None:
    """Composed or decomposed, whoever made the condition; metadata are compared as they are."""
    await store.create("docs", SPEC)
    spellings = {"composed": "caf\u00e9", "decomposed": "cafe\u0301"}
    await store.upsert("docs", [point(name, title=one, metadata={"m": one}) for name, one in spellings.items()])
    for name, one in spellings.items():
        both = OneOf(field="title", values=("x", one))
        neither = Group(op="not", conditions=(OneOf(field="title", values=(one,)),))
        assert {passage.document_id for passage in await found(store, both)} == set(spellings)
        assert await found(store, neither) == []
        assert [passage.document_id for passage in await found(store, OneOf(field="m", values=(one,)))] == [name]


async def test_a_key_with_a_dot_is_not_the_path_through_it(store: VectorStore) -> None:
    """A backslash before the dot says that it belongs to the key, at every level."""
    await store.create("docs", SPEC)
    flat, nested, deep = {"a.b": "x"}, {"a": {"b": "x"}}, {"o": {"v1.2": {"c.d": 3}}}
    await store.upsert("docs", [point(f"d{i}", metadata=one) for i, one in enumerate((flat, nested, deep))])
    for raw, expected in (
        ({r"a\.b": "x"}, ["d0"]),
        ({"a.b": "x"}, ["d1"]),
        ({r"o.v1\.2.c\.d": {"gte": 3}}, ["d2"]),
        ({r"a\.b": {"text": "X"}}, ["d0"]),
        ({r"a\.b": {"exists": True}}, ["d0"]),
    ):
        assert [passage.document_id for passage in await found(store, parse_filter(raw))] == expected


async def test_large_whole_numbers_are_compared_exactly(store: VectorStore) -> None:
    """Neighbours beyond 2^53 are told apart; ranges, which could not, are bounded below it."""
    await store.create("docs", SPEC)
    large = [2**53 - 1, 2**53, 2**53 + 1, 2**62, 2**62 + 1]
    await store.upsert("docs", [point(f"d{i}", metadata={"n": n}) for i, n in enumerate(large)])
    for i, n in enumerate(large):
        assert [passage.document_id for passage in await found(store, parse_filter({"n": n}))] == [f"d{i}"]
    above = await found(store, parse_filter({"n": {"gt": 2**53 - 1}}))
    assert sorted(passage.document_id for passage in above) == ["d1", "d2", "d3", "d4"]
    assert [p.document_id for p in await found(store, parse_filter({"n": {"lte": 2**53 - 1}}))] == ["d0"]
