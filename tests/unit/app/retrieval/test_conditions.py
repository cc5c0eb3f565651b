"""Conditions in the words of RAGFlow and Dify."""

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain import Condition, Conditions, Operator
from app.retrieval.conditions import meets, narrowing
from indexing.documents import Passage
from indexing.store.payload import encode
from tests.fakes import condition_oracle as oracle
from tests.fakes.corpus import passage
from tests.fakes.filter_oracle import matches

OPERATORS = get_args(Operator)
TEXTS = [
    "Bob",
    "BOB",
    "bob marley",
    "Straße",
    "STRASSE",
    "",
    "été",
    "e\u0301te\u0301",
    "e\u0301t",
    "2024",
    "2024.0",
    "1706659200",
    "true",
    "牙科保险",
    "?!",
]
NUMBERS = [0, 3, 3.5, -2, 2024, 2024.0, 1706659200, 1706695200.5]
DATES = ["2024-01-31", "2024-01-31T10:00:00Z", "2024-02-01", "2023-12-31"]
scalars = st.sampled_from([*TEXTS, *NUMBERS, *DATES, "1706659200", True, False])
stored = st.one_of(
    scalars,
    st.none(),
    st.lists(st.sampled_from([*TEXTS, *DATES]), max_size=3),
    st.lists(st.sampled_from(NUMBERS), max_size=3),
)
values = st.one_of(scalars, st.lists(scalars, min_size=1, max_size=3))


def condition(operator: str, value: Any = None, *fields: str) -> Condition:
    given = () if value is None else tuple(value) if isinstance(value, list) else (value,)
    return Condition(fields=fields or ("f",), operator=operator, values=given)  # type: ignore[arg-type]


def holder(value: Any) -> Passage:
    return passage("d", "text", {} if value is None else {"f": value})


@pytest.mark.parametrize(
    ("stored", "operator", "value", "expected"),
    [
        ("Bob", "=", "bob", True),
        ("Bob", "≠", "BOB", False),
        (None, "≠", "bob", False),
        (2024, "=", "2024", True),
        ("2024", "≥", 2024, True),
        ("10", ">", "9", True),
        ("b", ">", "a", True),
        ("new", ">", "9", False),
        (2024, ">", 10**400, False),
        (2024, "<", 10**400, True),
        ("2024-01-31", "<", "2024-02-01", True),
        ("2024-01-31T10:00:00+01:00", "<", "2024-01-31T09:30:00Z", True),
        ("yesterday", "<", "2024-02-01", False),
        (1706659200, ">", 1706659199, True),
        ("2024-01-31", "=", 1706659200, True),
        ("2024-01-31", ">", "1706659199", True),
        ("2024-01-31", "<", 1706659200.0, False),
        ("2024-01-31", "≠", 1706659200, False),
        ("2024-01-31", ">", 2023, False),
        (1706659200, "<", "2024-02-01", True),
        (2024, "<", "2024-02-01", False),
        (["soon", "2024-01-31"], "≥", 1706659200, True),
        (["red", "Blue"], "=", "blue", True),
        (["red", "Blue"], "≠", "blue", False),
        (["red", "blue"], "contains", "LU", True),
        (["red", "blue"], "not contains", "green", True),
        (None, "not contains", "green", False),
        ("report.PDF", "end with", ".pdf", True),
        ("Report.pdf", "start with", "rep", True),
        ("b", "in", ["a", "B"], True),
        (3, "in", ["3", "4"], True),
        ("c", "not in", ["a", "b"], True),
        (None, "empty", None, True),
        ("", "empty", None, True),
        ([], "not empty", None, False),
        (0, "empty", None, False),
        (False, "not empty", None, True),
        (True, "=", "TRUE", True),
        ({"a": 1}, "not empty", None, True),
        ({"a": 1}, "=", "a", False),
        ("caf\u00e9", "=", "CAFE\u0301", True),
        ("cafe\u0301", "in", ["caf\u00e9"], True),
        ("cafe\u0301.pdf", "start with", "caf\u00e9", True),
        ("cafe\u0301", "contains", "cafe", False),
        ("cafe\u0301", "≠", "caf\u00e9", False),
    ],
)
def test_each_operator(stored: Any, operator: str, value: Any, expected: bool) -> None:
    """Case and composition do not count, numbers may be spelt, dates are moments, lists count by items."""
    assert meets(Conditions(conditions=(condition(operator, value),)), holder(stored)) is expected


@given(stored=stored, operator=st.sampled_from(OPERATORS), value=values)
def test_they_agree_with_the_oracle(stored: Any, operator: str, value: Any) -> None:
    """Any operator over any value means what the oracle says."""
    asked = Conditions(conditions=(condition(operator, value),))
    assert meets(asked, holder(stored)) is oracle.meets({"f": stored}, "f", operator, value)


@settings(max_examples=400)
@given(
    stored=st.one_of(stored, st.lists(scalars, max_size=3)),
    other=stored,
    asked=st.lists(st.tuples(st.sampled_from(OPERATORS), values, st.sampled_from([("f",), ("f", "g")])), min_size=1),
    every=st.booleans(),
)
def test_a_narrowing_loses_nothing(stored: Any, other: Any, asked: list[Any], every: bool) -> None:
    """The filter for the store lets through whatever meets the conditions."""
    conditions = tuple(condition(operator, value, *fields) for operator, value, fields in asked)
    found = passage("d", "text", {"f": stored, "g": other})
    wanted = Conditions(conditions=conditions, every=every)
    if meets(wanted, found):
        narrowed = narrowing(wanted)
        assert narrowed is None or matches(narrowed, encode(found))


@pytest.mark.parametrize(
    ("field", "operator", "value"),
    [
        ("lang", "=", "EN"),
        ("year", ">", 2022),
        ("year", "=", "2024"),
        ("lang", "in", ["en", "fr"]),
        ("x", "empty", None),
        ("public", "=", "True"),
    ],
)
def test_a_narrowing_spares_the_store(field: str, operator: str, value: Any) -> None:
    """What a store can check of a condition, it is asked to check."""
    narrowed = narrowing(Conditions(conditions=(condition(operator, value, field),)))
    assert narrowed is not None
    assert not matches(narrowed, encode(passage("d", "text", {"lang": "de", "year": 2020, "x": 1, "public": False})))


def test_any_of_the_conditions_or_of_the_fields_may_do() -> None:
    """`every` false is "or"; of several names in one condition one must meet it."""
    found = passage("d", "text", {"f": "a", "g": "b"})
    missed, met = condition("=", "x"), condition("=", "b", "f", "g")
    assert meets(Conditions(conditions=(missed, met), every=False), found)
    assert not meets(Conditions(conditions=(missed, met)), found)


@pytest.mark.parametrize(
    ("field", "value"), [("title", "manual"), ("source", "Manual.txt"), ("document_id", "manual"), ("inner.deep", 7)]
)
def test_fields_are_those_of_filters(field: str, value: Any) -> None:
    """Built-in fields are known by name, and dots reach into objects."""
    found = passage("manual", "text", {"inner": {"deep": 7}})
    assert meets(Conditions(conditions=(condition("=", value, field),)), found)


@pytest.mark.parametrize("field", ["a..b", 'say "x"', "back\\slash"])
def test_names_that_no_filter_may_have_are_looked_for_all_the_same(field: str) -> None:
    """The store is not asked what it cannot be asked; the passage is."""
    assert narrowing(Conditions(conditions=(condition("=", "x", field),))) is None
    found = passage("d", "text", {field: "x"})
    assert meets(Conditions(conditions=(condition("=", "x", field),)), found) is (field != "a..b")
