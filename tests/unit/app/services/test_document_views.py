"""The text of a document, put together from its passages."""

from app.services.document_views import text_of
from indexing.documents import Passage


def passage(start: int, text: str) -> Passage:
    return Passage(
        id="p", document_id="d", version="v", ordinal=0, start=start, end=start + len(text), text=text, source="s"
    )


def test_every_passage_stands_where_its_offsets_say() -> None:
    """With line feeds for the white space between them, and what two of them share once."""
    passages = [passage(2, "one two"), passage(6, "two three"), passage(17, "four")]
    text = text_of(passages)
    assert text == "\n\none two three\n\nfour"
    assert all(text[one.start : one.end] == one.text for one in passages)


def test_no_passages_are_no_text() -> None:
    """An empty string, not an error."""
    assert text_of([]) == ""
