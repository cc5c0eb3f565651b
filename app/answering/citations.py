"""Sentences into an answer with markers, and the citations that the markers stand for. Pure."""

import re

from app.answering.link_filter import without_images
from app.domain import Citation, Hit
from indexing.documents import Span

_JOINERS = r"[\s\u200c\u200d\ufe0f]*"
_FOOTNOTE = re.compile(rf"\s?[\[［【〔]{_JOINERS}\d{{1,3}}(?:\s?[,;–-]\s?\d{{1,3}})*{_JOINERS}[\]］】〕]")
_MARKER = re.compile(rf"[\[［【〔]{_JOINERS}(\d[\d\s,;–-]*){_JOINERS}[\]］】〕]")
INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
STOPS = ".!?。！？؟।…"


def readable(sentence: str) -> str:
    """The sentence on one line, without footnote numbers, invisible characters, images, tags and look-alike markers."""
    text = " ".join(INVISIBLE.sub("", sentence).split())
    while (shorter := _FOOTNOTE.sub("", text)) != text:
        text = shorter
    return without_images(_MARKER.sub(r"(\1)", text)).strip()


def citation_of(marker: int, hit: Hit, cited: Span, stated: Span) -> Citation:
    """`cited` are offsets in the passage's text, `stated` in the answer's. The quote is cut from the passage.

    Its page is the passage's: writers know no other, and `app.services.answer` sets the quote's.
    """
    return Citation(
        marker=marker,
        result_id=hit.id,
        document_id=hit.document_id,
        source=hit.source,
        page=hit.page,
        start=hit.start + cited.start,
        end=hit.start + cited.end,
        quote=(hit.text or "")[cited.start : cited.end],
        answer_start=stated.start,
        answer_end=stated.end,
    )
