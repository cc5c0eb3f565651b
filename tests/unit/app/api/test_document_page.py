"""The page on which people read a document."""

import re
from html import unescape

from app.api.routes.documents import page_of
from indexing.documents import PageStart, Passage


def passage(start: int, text: str, page: int | None = None, *later: PageStart) -> Passage:
    end = start + len(text)
    return Passage(
        id="p", document_id="d", version="v", ordinal=0, start=start, end=end, text=text, page=page, later_pages=later
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


def test_pages_begin_inside_a_passage() -> None:
    """Each where it does, and a quote over them is marked on both; one without text is passed over."""
    later = PageStart(5, 2), PageStart(10, 3), PageStart(10, 4)
    page = shown(passage(0, "one\n\ntwo\n\nfour", 1, *later), passage(16, "and on", 4), quote=(5, 14))
    assert page.replace(' id="char=5,14"', "") == (
        "<h2>p. 1</h2>one<h2>p. 2</h2><mark>two</mark><h2>p. 4</h2><mark>four</mark>\n\nand on"
    )


def test_pages_begin_in_a_document_that_begins_with_none() -> None:
    """Nor does a passage that repeats the start of a page say it again."""
    first, second = passage(0, "one\n\ntwo", None, PageStart(5, 1)), passage(5, "two\n\nthree", 1, PageStart(10, 2))
    assert shown(first, second) == "one<h2>p. 1</h2>two<h2>p. 2</h2>three"


def test_a_quote_over_two_passages_is_marked_in_both() -> None:
    """Under one name, which is the first one's."""
    page = shown(passage(0, "one & two"), passage(9, " three"), quote=(4, 12))
    assert marks(page) == ["& two", " th"]
    assert page.count('id="char=4,12"') == 1


def test_a_quote_beyond_the_text_marks_nothing() -> None:
    """Nor does one of no length, or from back to front: the document is there all the same."""
    for quote in ((90, 95), (2, 2), (3, 1)):
        assert shown(passage(0, "one two"), quote=quote) == "one two"
