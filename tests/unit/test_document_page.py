"""The page on which people read a document."""

import re
from html import unescape

from app.api.document_page import page_of
from indexing.documents import Passage


def passage(start: int, text: str, page: int | None = None) -> Passage:
    return Passage(
        id=str(start), document_id="d", version="v", ordinal=0, start=start, end=start + len(text), text=text, page=page
    )


def shown(*passages: Passage, quote: tuple[int, int] = (0, 0)) -> str:
    return page_of("T", "t.pdf", passages, quote).partition("<main>")[2].partition("</main>")[0]


def marks(page: str) -> list[str]:
    return [unescape(found) for found in re.findall(r"<mark[^>]*>(.*?)</mark>", page)]


def test_what_two_passages_share_is_said_once() -> None:
    """Passages overlap: the later ones add what is new."""
    assert shown(passage(0, "one two "), passage(4, "two three"), passage(4, "two")) == "one two three"


def test_what_stands_apart_stays_apart() -> None:
    """What was blank between passages is blank between them."""
    assert shown(passage(0, "one"), passage(5, "two")) == "one\n\ntwo"


def test_pages_begin_with_their_number() -> None:
    """Where a passage is on another page than the one before."""
    page = shown(passage(0, "one", 1), passage(4, "two", 1), passage(8, "three", 2))
    assert page == "<h2>p. 1</h2>one\n\ntwo<h2>p. 2</h2>three"


def test_a_quote_over_two_passages_is_marked_in_both() -> None:
    """Under one name, which is the first one's."""
    page = shown(passage(0, "one & two"), passage(9, " three"), quote=(4, 12))
    assert marks(page) == ["& two", " th"]
    assert page.count('id="char=4,12"') == 1


def test_a_quote_beyond_the_text_marks_nothing() -> None:
    """Nor does one of no length, or from back to front: the document is there all the same."""
    for quote in ((90, 95), (2, 2), (3, 1)):
        assert shown(passage(0, "one two"), quote=quote) == "one two"
