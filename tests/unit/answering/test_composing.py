import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answering.composing import Composer
from app.answering.shapes import Source
from app.domain import CitationMade, TextDelta
from indexing.sentences import sentence_spans
from tests.fakes.answering import hit

MARKER = re.compile(r"[\[［【〔]\s*(\d+)\s*[\]］】〕]")
INSURANCE = "Dental cover starts on the first day of work. It costs nothing. Ask HR in May 2021."
BERLIN = "Berlin is the capital of Germany. It has 3.7 million people."


def sources(*texts: str) -> list[Source]:
    return [
        Source(number=number, hit=hit(text, number, start=100 * number), sentences=tuple(sentence_spans(text)))
        for number, text in enumerate(texts, start=1)
    ]


def composed(text: str, *passages: str) -> Composer:
    composer = Composer(sources(*passages or (INSURANCE, BERLIN)))
    composer.feed(text)
    composer.finish()
    return composer


LOOK_ALIKES = (
    "[1.1]",
    "[2]",
    "[1.2, 2.1]",
    "[9.9]",
    "[",
    "]",
    "[[",
    "]]",
    "【1.3】",
    "［２．１］",
    "[2019]",
    "[1.1-",
    "–3]",
)
ORDINARY = (
    "3",
    "1",
    ".",
    ". ",
    " ",
    "\n",
    "- ",
    "Cover",
    " starts",
    "。",
    "牙科",
    "مرحبا",
    "؟",
    "Dr.",
    "May",
    ",",
    "(",
    ")",
)
ODD = ("```", "`", "**", '"', "<think>", "</think>", "Answer: ", "\u200d", "\u202e", "\x00", "\ud800")
HOSTILE = st.lists(st.sampled_from(LOOK_ALIKES + ORDINARY + ODD), max_size=30).map("".join)


@given(HOSTILE, st.lists(st.integers(0, 60), max_size=8))
def test_the_pieces_do_not_matter(text: str, cuts: list[int]) -> None:
    """However the text is cut, answer, citations and claims are the same."""
    whole, pieces = composed(text), Composer(sources(INSURANCE, BERLIN))
    for start, end in pairwise(sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})):
        pieces.feed(text[start:end])
    pieces.finish()
    assert (pieces.text, pieces.citations, pieces.claims) == (whole.text, whole.citations, whole.claims)


@given(HOSTILE)
def test_what_is_told_adds_up(text: str) -> None:
    """Concatenated deltas are the answer, and the citations told are all there are."""
    composer = Composer(sources(INSURANCE, BERLIN))
    told = [event for character in text for event in composer.feed(character)] + composer.finish()
    assert "".join(event.text for event in told if isinstance(event, TextDelta)) == composer.text
    assert tuple(event.citation for event in told if isinstance(event, CitationMade)) == composer.citations


@given(HOSTILE)
def test_only_our_markers_are_in_the_answer(text: str) -> None:
    """Whatever looks like a marker is one of ours, and each of ours has a citation."""
    composer = composed(text)
    shown = {int(number) for number in re.findall(r"\[(\d+)\]", composer.text)}
    assert shown == {citation.marker for citation in composer.citations}


@given(HOSTILE)
def test_quotes_are_verbatim(text: str) -> None:
    """A quote is the stored text at its offsets."""
    by_id = {source.hit.id: source.hit for source in sources(INSURANCE, BERLIN)}
    for citation in composed(text).citations:
        found = by_id[citation.result_id]
        assert citation.quote == (found.text or "")[citation.start - found.start : citation.end - found.start] != ""


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Cover starts. [1.1] It costs nothing [1.2].", "Cover starts [1]. It costs nothing [2]."),
        ("[1.1] Cover starts. [1.2] It is free.", "Cover starts [1]. It is free [2]."),
    ],
)
def test_markers_stand_before_the_full_stop(said: str, shown: str) -> None:
    """Wherever the model writes its marker, ours closes the sentence."""
    assert composed(said).text == shown
