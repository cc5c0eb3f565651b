"""Where citations lead."""

from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import pytest

from app.api.compat.citations import Links
from tests.api.test_answer import CITATION
from tests.fakes.answering import hit


def links() -> Links:
    made = Links("http://rag.example:8000", "hand book")
    made.learn([hit("Yes", 0, title="The Handbook")])
    return made


def test_a_local_document_is_shown_by_this_service() -> None:
    """The link is GET /documents/{id}, encoded, with its collection and where the quote is, for us and the browser."""
    made = msgspec.structs.replace(CITATION, document_id="a/b c", start=5, end=9)
    url = urlsplit(links().annotation(made)["url_citation"]["url"])
    assert (url.netloc, url.path) == ("rag.example:8000", "/documents/a%2Fb%20c")
    assert (parse_qs(url.query), url.fragment) == ({"collection": ["hand book"], "quote": ["5,9"]}, "char=5,9")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("https://site.example/page", "https://site.example/page#:~:text=Pre%2Dtax%2C%20yes"),
        ("http://site.example/page#top", "http://site.example/page#top:~:text=Pre%2Dtax%2C%20yes"),
    ],
)
def test_a_web_page_is_opened_at_the_quote(source: str, expected: str) -> None:
    """A source that is a web address is the link, with a text directive that browsers scroll to."""
    made = msgspec.structs.replace(CITATION, source=source, quote="Pre-tax,\n yes")
    assert links().annotation(made)["url_citation"]["url"] == expected


def test_a_long_quote_is_found_by_its_ends() -> None:
    """A text directive holds the first and the last words of a long quote."""
    quote = " ".join(f"w{number}" for number in range(100))
    made = msgspec.structs.replace(CITATION, source="https://site.example/", quote=quote)
    directive = links().annotation(made)["url_citation"]["url"].partition("text=")[2]
    assert [unquote(end) for end in directive.split(",")] == ["w0 w1 w2 w3 w4", "w95 w96 w97 w98 w99"]


@pytest.mark.parametrize(
    "source", ["ftp://site.example/x", "http://", "http://[", "notes.txt", "javascript:alert(1)", ""]
)
def test_what_is_no_web_page_is_no_link(source: str) -> None:
    """Only http and https addresses with a host are linked to."""
    made = msgspec.structs.replace(CITATION, source=source)
    assert links().annotation(made)["url_citation"]["url"].startswith("http://rag.example:8000/documents/d?")


def test_the_title_is_the_documents_with_the_page() -> None:
    """The title of the passage's document; of one without, its source."""
    titled = msgspec.structs.replace(CITATION, result_id="p0", page=3)
    untitled = msgspec.structs.replace(CITATION, result_id="elsewhere")
    titles = [links().annotation(made)["url_citation"]["title"] for made in (titled, untitled)]
    assert titles == ["The Handbook, p. 3", "d.txt"]
