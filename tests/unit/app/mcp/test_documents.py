"""The ids under which agents know documents."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import Citation
from app.errors import NotFound
from app.mcp.documents import LEAD_CHARACTERS, Place, place_before, place_of

IDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)
TENANTS = st.sampled_from(["", "a", "tenant-1", "A.b_c"])


@given(document_id=IDS, tenant=TENANTS, start=st.integers(0, 10**12 - 1))
def test_an_id_and_its_uri_lead_back(document_id: str, tenant: str, start: int) -> None:
    """Whatever is in the document's name; the URI is ASCII without blanks, and the id keeps letters of all scripts."""
    place = Place(collection="hand_book.2", document_id=document_id, tenant=tenant, start=start)
    assert place_of(place.id()) == place_of(place.uri()) == place
    assert place.uri().isascii()
    assert not any(character.isspace() for character in place.uri())


def test_an_id_is_readable() -> None:
    """A model has to repeat it."""
    place = Place(collection="default", document_id="https://例え.jp/年報 2025.pdf?a=1", start=1200)
    assert place.id() == "winnow://default/https://例え.jp/年報%202025.pdf%3Fa=1#char=1200"


def test_reading_begins_before_what_was_found() -> None:
    """So that a quote has what leads to it; at most at the document's beginning."""
    place = {"document_id": "d", "source": "", "page": None, "quote": "x", "answer_start": 0, "answer_end": 1}
    quotes = [Citation(marker=1, result_id="r", start=start, end=start + 1, **place) for start in (5000, 7)]
    assert [place_before("c", quote, "").start for quote in quotes] == [5000 - LEAD_CHARACTERS, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "dental",
        "winnow://",
        "winnow://default",
        "winnow://default/",
        "http://x/y",
        "winnow://a/b#char=x",
        "x" * 9000,
    ],
)
def test_what_is_no_id_is_not_found(wrong: str) -> None:
    """With a hint where ids come from, and no more of it than a line."""
    with pytest.raises(NotFound, match="send one of a result of search") as caught:
        place_of(wrong)
    assert len(str(caught.value)) < 400
