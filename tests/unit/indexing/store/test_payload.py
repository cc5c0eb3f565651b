"""Words, dates and indexable fields of payloads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexing.documents import from_payload
from indexing.filters import parse_filter
from indexing.store.payload import declared_paths, encode, filtered_paths, sought_words, wanted_indexes, words
from tests.fakes.points import passage


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dental PLANS, dental", ["dental", "plans"]),
        ("Café Zoë naïve", ["cafe", "zoe", "naive"]),
        ("Straße", ["strasse"]),
        ("牙科x", ["牙", "科", "牙科", "x"]),
        ("ガス", ["ガ", "ス", "ガス"]),
        ("한국", ["한", "국", "한국"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("C-3 v2.0", ["c", "3", "v2", "0"]),
        ("—!?", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    """Words lose case and Latin accents; runs without spaces become characters and pairs; marks stay in words."""
    assert words(text) == expected


@given(field=st.text(), before=st.text(), after=st.text())
def test_text_contains_its_own_parts(field: str, before: str, after: str) -> None:
    """What a text consists of is sought among its words and found."""
    assert set(sought_words(field)) <= set(words(f"{before} {field} {after}"))


def test_mirrors_do_not_change_the_passage() -> None:
    """A payload with its mirrors decodes to the passage that it was made from; text and ids of fields are mirrored."""
    original = passage("d1", title="Été", metadata={"when": "2024-01-01T00:30:00+01:00", "n": 3, "tags": ["A b", 4]})
    payload = encode(original)
    assert from_payload(original.id, payload) == original
    assert payload["words"]["title"] == ["ete"]
    assert payload["words"]["metadata"]["tags"] == ["a", "b"]
    assert payload["dates"] == {"metadata": {"when": ["2023-12-31T23:30:00Z"]}}


def test_a_passage_of_before_later_pages_is_read() -> None:
    """What an earlier version wrote says where the passage begins, and no more; so does a passage on one page."""
    payload = encode(passage("d1", page=3))
    assert "later_pages" not in payload
    assert from_payload("d1", payload).later_pages == ()


def test_wanted_indexes() -> None:
    """Of the paths asked for those that have a value, with the kind of the first one; dates and texts have more."""
    metadata = {"s": "x", "n": 1, "f": [2.5], "b": True, "o": {"in": "y"}, "d": "2024-01-01", "no": None, "e": []}
    payloads = [{}, {"metadata": metadata}, {"metadata": {"s": 1, "a.b": 1, 'q"': 1, "": 1, "l": [{"x": 1}]}}]
    asked = declared_paths([*metadata, "o.in", r"a\.b", "absent"])
    assert wanted_indexes(asked, payloads) == {
        "metadata.s": "keyword",
        "metadata.n": "number",
        "metadata.f": "number",
        "metadata.b": "flag",
        "metadata.o.in": "keyword",
        "metadata.d": "keyword",
        'metadata."a.b"': "number",
        "dates.metadata.d": "date",
        "words.metadata.s": "keyword",
        "words.metadata.b": "keyword",
        "words.metadata.o.in": "keyword",
        "words.metadata.d": "keyword",
    }
    assert wanted_indexes({"metadata.s"}, payloads) == {"metadata.s": "keyword"}


def test_filtered_paths() -> None:
    """What a filter reads of the metadata, by kind of condition; built-in fields have their indexes from the start."""
    raw = {"page": 3, "or": [{"a": 1}, {"not": {"b": {"text": "x"}}}], "c": {"gte": "2024-01-01"}, r"d\.e": {"ne": 1}}
    expected = {"metadata.a", "words.metadata.b", "dates.metadata.c", 'metadata."d.e"'}
    assert filtered_paths(parse_filter(raw)) == expected
    assert filtered_paths(None) == set()
