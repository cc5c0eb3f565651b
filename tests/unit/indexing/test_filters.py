"""The filter grammar."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexing.errors import InvalidFilter
from indexing.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    DateRange,
    Exists,
    Filter,
    Group,
    HasText,
    NumberRange,
    OneOf,
    parse_filter,
    payload_path,
    read_moment,
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, None),
        ({"lang": "zh"}, OneOf("lang", ("zh",))),
        ({"ok": True}, OneOf("ok", (True,))),
        ({"lang": ["zh", 1, 2.5]}, OneOf("lang", ("zh", 1, 2.5))),
        ({"lang": {"ne": "en"}}, Group("not", (OneOf("lang", ("en",)),))),
        ({"lang": {"nin": ["en", "de"]}}, Group("not", (OneOf("lang", ("en", "de")),))),
        ({"year": {"gte": 2020, "lt": 2026.5}}, NumberRange("year", gte=2020.0, lt=2026.5)),
        ({"when": {"gt": "2024-01-31"}}, DateRange("when", gt="2024-01-31T00:00:00Z")),
        ({"title": {"text": "dental"}}, HasText("title", "dental")),
        ({"page": {"exists": False}}, Exists("page", False)),
        ({"a": 1, "b": 2}, Group("and", (OneOf("a", (1,)), OneOf("b", (2,))))),
        ({"n": {"gt": 1, "ne": 3}}, Group("and", (NumberRange("n", gt=1.0), Group("not", (OneOf("n", (3,)),))))),
        ({"or": [{"a": 1}, {"b": 2}]}, Group("or", (OneOf("a", (1,)), OneOf("b", (2,))))),
        ({"and": [{"a": 1}]}, OneOf("a", (1,))),
        ({"not": {"a": 1}}, Group("not", (OneOf("a", (1,)),))),
    ],
    ids=str,
)
def test_grammar(raw: Any, expected: Filter | None) -> None:
    """Every form of the grammar becomes its condition."""
    assert parse_filter(raw) == expected


@pytest.mark.parametrize(
    ("raw", "pointer", "detail"),
    [
        (None, "", "JSON object"),
        ([], "", "JSON object"),
        ({"lang": None}, "/lang", "exists"),
        ({"lang": []}, "/lang", "at least one"),
        ({"lang": ["a", {}]}, "/lang/1", "a value is"),
        ({"lang": {}}, "/lang", "ne, nin, gt, gte, lt, lte, text, exists"),
        ({"lang": {"like": "z"}}, "/lang/like", "unknown operator 'like'; known are ne, nin, gt, gte"),
        ({"a/b~c": {"x/y": 1}}, "/a~1b~0c/x~1y", "unknown operator"),
        ({"lang": {"nin": "en"}}, "/lang/nin", "list"),
        ({"lang": {"nin": []}}, "/lang/nin", "at least one"),
        ({"lang": {"ne": ["en"]}}, "/lang/ne", "a value is"),
        ({"year": {"gte": "2020-01-01", "lt": 3}}, "/year/gte", "all numbers or all dates"),
        ({"year": {"gte": True}}, "/year/gte", "numbers"),
        ({"year": {"gte": None}}, "/year/gte", "numbers"),
        ({"year": {"gte": float("nan")}}, "/year/gte", "finite"),
        ({"year": {"gte": 10**400}}, "/year/gte", "too large"),
        ({"year": float("inf")}, "/year", "finite"),
        ({"year": 2**63}, "/year", "64 bits"),
        ({"when": {"gt": "yesterday"}}, "/when/gt", "RFC 3339"),
        ({"when": {"gt": "2024-02-30"}}, "/when/gt", "RFC 3339"),
        ({"when": {"gt": "0001-01-01T00:00:00+01:00"}}, "/when/gt", "RFC 3339"),
        ({"title": {"text": "?!"}}, "/title/text", "word"),
        ({"title": {"text": 3}}, "/title/text", "word"),
        ({"page": {"exists": 1}}, "/page/exists", "true or false"),
        ({"": 1}, "/", "keys"),
        ({"a..b": 1}, "/a..b", "keys"),
        ({r"a\b": 1}, r"/a\b", "backslashes"),
        ({"year": {"lt": 2**53}}, "/year/lt", "below 2^53"),
        ({"year": {"gt": -(2.0**53)}}, "/year/gt", "below 2^53"),
        ({'a"b': 1}, '/a"b', "quotes"),
        ({"a": "\ud800"}, "/a", "surrogates"),
        ({"and": {}}, "/and", "list"),
        ({"or": []}, "/or", "at least one"),
        ({"and": [{"a": 1}, {}]}, "/and/1", "empty"),
        ({"not": []}, "/not", "JSON object"),
        ({"or": [{"a": 1}, {"not": {"b": {"zz": 1}}}]}, "/or/1/not/b/zz", "unknown operator 'zz'"),
        ({"a": list(range(1025))}, "/a", "at most 1024"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_errors_point_at_the_bad_part(raw: Any, pointer: str, detail: str) -> None:
    """What the grammar does not know is refused with the place and the reason."""
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(raw)
    assert caught.value.pointer == pointer
    assert detail in caught.value.detail


def nested(depth: int) -> dict[str, Any]:
    raw: dict[str, Any] = {"a": 1}
    for _ in range(depth - 1):
        raw = {"not": raw}
    return raw


def test_depth_is_limited() -> None:
    """The greatest depth is accepted, one more is refused, and ten thousand more do not overflow anything."""
    assert parse_filter(nested(MAX_DEPTH)) is not None
    for depth in (MAX_DEPTH + 1, 10_000):
        with pytest.raises(InvalidFilter, match="nested at most 8"):
            parse_filter(nested(depth))


def test_conditions_are_limited() -> None:
    """The greatest number of conditions is accepted wherever they stand, one more is refused."""
    half = [{"a": n} for n in range(MAX_CONDITIONS // 2)]
    assert parse_filter({"and": [{"or": half}, {"or": half}]}) is not None
    with pytest.raises(InvalidFilter, match="at most 256 conditions"):
        parse_filter({"and": [{"or": half}, {"or": half}, {"b": 1}]})


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-03-01", "2024-03-01T00:00:00Z"),
        ("2024-03-01T01:02:03Z", "2024-03-01T01:02:03Z"),
        ("2024-03-01t01:02:03z", "2024-03-01T01:02:03Z"),
        ("2024-03-01 01:02:03", "2024-03-01T01:02:03Z"),
        ("2024-03-01T00:30:00.25+01:00", "2024-02-29T23:30:00.250000Z"),
        ("2024-3-1", None),
        ("20240301", None),
        ("2024-W10-5", None),
        ("2024-03-01T24:01:00Z", None),
        ("٢٠٢٤-٠٣-٠١", None),
    ],
)
def test_moments(text: str, moment: str | None) -> None:
    """Dates and date-times are read into one spelling in UTC; nothing else is a date."""
    assert read_moment(text) == moment


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("title", "title"),
        ("document_id", "document_id"),
        ("lang", "metadata.lang"),
        ("a.b-c", "metadata.a.b-c"),
        ("语言.a b", 'metadata."语言"."a b"'),
        ("x[0]", 'metadata."x[0]"'),
        ("title.x", "metadata.title.x"),
        (r"a\.b.c", 'metadata."a.b".c'),
        (r"\.", 'metadata."."'),
    ],
)
def test_payload_path(field: str, path: str) -> None:
    """Built-in fields lie at the top, all others in the metadata; unusual keys are quoted."""
    assert payload_path(field) == path


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["2024-01-01"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)
near_grammar = st.recursive(
    st.dictionaries(st.sampled_from(["a", "a.b", "page"]), json_values, min_size=1, max_size=2)
    | st.dictionaries(
        st.just("a"),
        st.dictionaries(st.sampled_from(["ne", "nin", "gt", "lte", "text", "exists", "x"]), json_values, max_size=2),
    ),
    lambda inner: st.fixed_dictionaries({"and": st.lists(inner, max_size=3)}) | st.fixed_dictionaries({"not": inner}),
    max_leaves=6,
)


@given(raw=json_values | near_grammar)
def test_any_value_becomes_a_filter_or_is_refused(raw: Any) -> None:
    """Whatever comes is a filter, or InvalidFilter with a pointer and a reason; all of it can be written as UTF-8."""
    parsed, refused = parsed_or_refused(raw)
    if refused is not None:
        assert refused.pointer == "" or refused.pointer.startswith("/")
        assert msgspec.json.encode((refused.pointer, refused.detail))
    else:
        assert parsed is None or msgspec.json.encode(parsed)


def parsed_or_refused(raw: Any) -> tuple[Filter | None, InvalidFilter | None]:
    try:
        return parse_filter(raw), None
    except InvalidFilter as exc:
        return None, exc
