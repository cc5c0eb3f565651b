"""Sentences into an answer with markers, and the citations that the markers stand for. Pure."""

import re
from collections.abc import Iterator, Sequence

import msgspec

from app.answering.evidence import Sentence
from app.answering.links import without_images
from app.domain import Citation, Hit
from indexing.documents import Span

_JOINERS = r"[\s\u200c\u200d\ufe0f]*"
_FOOTNOTE = re.compile(rf"\s?[\[［【〔]{_JOINERS}\d{{1,3}}(?:\s?[,;–-]\s?\d{{1,3}})*{_JOINERS}[\]］】〕]")
_MARKER = re.compile(rf"[\[［【〔]{_JOINERS}(\d[\d\s,;–-]*){_JOINERS}[\]］】〕]")
INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
STOPS = ".!?。！？؟।…"


class Piece(msgspec.Struct, frozen=True):
    """The next part of an answer: `text`, and after it the citation of the marker that `text` ends with."""

    text: str
    citation: Citation


def cite(hits: Sequence[Hit], sentences: Sequence[Sentence]) -> Iterator[Piece]:
    """One piece per sentence, markers counted from 1. The pieces' texts, concatenated, are the answer."""
    offset = 0
    for marker, sentence in enumerate(sentences, start=1):
        gap = " " if offset else ""
        body, stop = _before_stop(readable(sentence.text))
        start = offset + len(gap)
        text = f"{gap}{body} [{marker}]{stop}"
        yield Piece(
            text,
            citation_of(marker, hits[sentence.hit], Span(sentence.start, sentence.end), Span(start, start + len(body))),
        )
        offset += len(text)


def readable(sentence: str) -> str:
    """The sentence on one line, without footnote numbers, invisible characters, images, tags and look-alike markers."""
    text = " ".join(INVISIBLE.sub("", sentence).split())
    while (shorter := _FOOTNOTE.sub("", text)) != text:
        text = shorter
    return without_images(_MARKER.sub(r"(\1)", text)).strip()


def _before_stop(text: str) -> tuple[str, str]:
    """The sentence and its full stop, for the marker to go between; the stop is "" where there is none to split off."""
    body = text.rstrip(STOPS)
    return (body, text[len(body) :]) if body else (text, "")


def citation_of(marker: int, hit: Hit, cited: Span, stated: Span) -> Citation:
    """`cited` are offsets in the passage's text, `stated` in the answer's. The quote is cut from the passage.

    Its page is the passage's: writers know no other, and `app.answer` sets the quote's.
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
