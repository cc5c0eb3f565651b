import random
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answering.stream.composer import Composer, Fate
from app.answering.stream.markers import MAX_MARKER_LENGTH, Reference
from app.domain import CitationMade, TextDelta
from tests.fakes.answering import hit, source

INSURANCE = "Dental cover starts on the first day of work. It costs nothing. Ask HR in May 2021."
BERLIN = "Berlin is the capital of Germany. It has 3.7 million people."
SOURCES = (source(INSURANCE, 1), source(BERLIN, 2))
FIRST, SECOND, THIRD = "Dental cover starts on the first day of work.", "It costs nothing.", "Ask HR in May 2021."

LOOK_ALIKES = ("[1.1]", "[2]", "[1.2, 2.1]", "[9.9]", "[", "]", "[[", "]]", "【1.3】", "［２．１］", "[2019]", "[1.1-")
MORE_MARKS = ("–3]", "[1]", "[1.2]-[1.3]", "[²]", "[١.٢]", "[^1]", "[1†a]", "[passage 1, sentence 2]", "[-1, 1]")
ORDINARY = (
    "3",
    "1",
    ".",
    ". ",
    " ",
    "\n",
    "- ",
    "1. ",
    "Cover",
    " starts",
    "。",
    "牙科",
    "مرحبا",
    "؟",
    "Dr.",
    "May",
    ",",
)
ODD = ("(", ")", "```", "`", "**", '"', "<think>", "</think>", "Answer: ", "\u200d", "\u202e", "\x00", "\ud800", "\r\n")
PIECES = LOOK_ALIKES + MORE_MARKS + ORDINARY + ODD
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
FAKE = re.compile(r"[\[［【〔][\u200c\u200d\ufe0f]*(\d+)[\u200c\u200d\ufe0f]*[\]］】〕]")


class Everything(Composer):
    """Keeps what cites nothing, too, to show what becomes of texts and markers; so has nothing said again."""

    def _fate(self, *_: object, **__: object) -> Fate:
        return "kept"

    def _own_references(self, *_: object) -> list[Reference]:
        return []


def composed(text: str, kind: type[Composer] = Everything) -> Composer:
    composer = kind(SOURCES)
    composer.feed(text)
    composer.finish()
    return composer


def quotes(text: str) -> list[str]:
    return [citation.quote for citation in composed(text).citations]


def check_truth(composer: Composer) -> None:
    """Only our markers, all of them with citations; quotes verbatim; claims one after the other."""
    shown = set(FAKE.findall(composer.text))
    assert shown == {str(citation.marker) for citation in composer.citations}
    assert all(f"[{number}]" in composer.text for number in shown)
    found = {one.hit.id: one.hit for one in SOURCES}
    for citation in composer.citations:
        passage = found[citation.result_id]
        assert citation.quote == (passage.text or "")[citation.start - passage.start : citation.end - passage.start]
        assert citation.quote
        assert 0 <= citation.answer_start < citation.answer_end <= len(composer.text)
    edges = [edge for claim in composer.claims for edge in (claim.start, claim.end)]
    assert edges == sorted(edges)


@given(HOSTILE, st.lists(st.integers(0, 200), max_size=8))
def test_the_pieces_do_not_matter(text: str, cuts: list[int]) -> None:
    """However the text is cut, answer, citations and claims are the same."""
    whole, pieces = composed(text, Composer), Composer(SOURCES)
    for start, end in pairwise(sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})):
        pieces.feed(text[start:end])
    pieces.finish()
    assert (pieces.text, pieces.citations, pieces.claims) == (whole.text, whole.citations, whole.claims)
    assert (pieces.unknown_references, pieces.unsupported) == (whole.unknown_references, whole.unsupported)


@given(HOSTILE)
def test_what_is_told_adds_up(text: str) -> None:
    """Concatenated deltas are the answer, and the citations told are all there are, each after its marker."""
    composer, told = Composer(SOURCES), ""
    events = [event for character in text for event in composer.feed(character)] + composer.finish()
    cited = []
    for event in events:
        if isinstance(event, TextDelta):
            assert event.text
            told += event.text
        else:
            assert f"[{event.citation.marker}]" in told
            cited.append(event.citation)
    assert told == composer.text
    assert tuple(cited) == composer.citations


@given(HOSTILE)
def test_citations_are_true_whatever_the_model_writes(text: str) -> None:
    """Whatever looks like a marker is one of ours and has a citation, whose quote is verbatim."""
    check_truth(composed(text))


def test_hundreds_of_hostile_replies_are_survived() -> None:
    """No text makes it fail, or lie."""
    draw = random.Random(5)
    for _ in range(400):
        check_truth(composed("".join(draw.choice(PIECES) for _ in range(draw.randint(0, 60)))))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Cover starts [1.1].", "Cover starts [1]."),
        ("Cover starts. [1.1] It costs nothing. [1.2]", "Cover starts [1]. It costs nothing [2]."),
        ("Cover starts.[1.1]\nIt costs nothing.[1.2]\n", "Cover starts [1].\nIt costs nothing [2]."),
        ("Cover starts.\n[1.1]\nMore.", "Cover starts [1].\nMore."),
        ("Cover starts[1.1].", "Cover starts [1]."),
        ("Cover starts [1.1] .", "Cover starts [1]."),
        ("[1.1] Cover starts. [1.2] It costs nothing.", "Cover starts [1]. It costs nothing [2]."),
        ("- [1.1] Cover starts\n- [1.2] It costs nothing.", "- Cover starts [1]\n- It costs nothing [2]."),
        ("Cover starts. [1.1]\n[1.2] It costs nothing.", "Cover starts [1].\nIt costs nothing [2]."),
        ("Cover starts.\n\n[1.1]\n[1.2]\n\nMore.", "Cover starts [1].\n\nMore."),
        ("1. [1.1] Cover starts.", "1. Cover starts [1]."),
        ("保险从第一天开始【1.1】。它免费。[1.2]", "保险从第一天开始 [1]。它免费 [2]。"),
        ('He said "no." [1.1] Then he left.', 'He said "no." [1] Then he left.'),
        ("It is so ([1.1]).", "It is so ([1])."),
        ("Am 3. [1.1] Mai endet es.", "Am 3. [1] Mai endet es."),
        ("Berlin [2.1] is large [2.2].", "Berlin [1] is large [2]."),
    ],
)
def test_a_marker_stands_after_its_words_and_before_their_stop(said: str, shown: str) -> None:
    """Wherever the model writes it: after the stop, on a line of its own, or before the sentence."""
    assert composed(said).text == shown


@pytest.mark.parametrize(
    ("marker", "cited"),
    [
        ("[1.2]", [SECOND]),
        ("[ 1.2 ]", [SECOND]),
        ("【1.2】", [SECOND]),
        ("［１．２］", [SECOND]),
        ("[١.٢]", [SECOND]),
        ("[[1.2]]", [SECOND]),
        ("[1:2]", [SECOND]),
        ("[passage 1.2]", [SECOND]),
        ("[Passage 1, sentence 2]", [SECOND]),
        ("[#1.2]", [SECOND]),
        ("[1.2†source]", [SECOND]),
        ("[1.2, 2.1]", [SECOND, "Berlin is the capital of Germany."]),
        ("[1.2][2.1]", [SECOND, "Berlin is the capital of Germany."]),
        ("[1.2; 1.2]", [SECOND]),
        ("[1.1][1.3]", [FIRST, THIRD]),
        ("[1.2][1.3]", [f"{SECOND} {THIRD}"]),
        ("[1.2-1.3]", [f"{SECOND} {THIRD}"]),
        ("[1.2–3]", [f"{SECOND} {THIRD}"]),
        ("[1.2 to 1.3]", [f"{SECOND} {THIRD}"]),
        ("[1.2-1.9]", [f"{SECOND} {THIRD}"]),
        ("[1]", [FIRST]),
        ("[1-2]", [FIRST, BERLIN]),
    ],
)
def test_many_spellings_of_a_marker_are_understood(marker: str, cited: list[str]) -> None:
    """Neighbouring sentences are one quotation; a passage without a sentence is that which is closest to the claim."""
    assert quotes(f"Dental cover starts on the first day {marker}.") == cited


@pytest.mark.parametrize(
    ("said", "shown", "unknown"),
    [
        ("It rains [9.9] today.", "It rains today.", 1),
        ("It rains [1.9].", "It rains.", 1),
        ("It rains [7][8.1].", "It rains.", 2),
        ("It rains [9]today.", "It rains today.", 1),
        ("A rule [2019] holds.", "A rule (2019) holds.", 0),
        ("Between [-1, 1] and [0, 2].", "Between (-1, 1) and (0, 2).", 0),
        ("See [1.2.3] there.", "See (1.2.3) there.", 0),
        ("It costs (2.1) euros.", "It costs (2.1) euros.", 0),
        ("A word [sic] and a [link](https://example.org).", "A word [sic] and a [link].", 0),
        ("Never closed [1.1", "Never closed [1.1", 0),
        ("[[9]4] nested", "[4) nested", 1),
        ("```\nx[1] = [2.1]\n```", "```\nx[ 1 ] = [2.1]\n```", 0),
        ("So `x[1]` works.", "So `x[ 1 ]` works.", 0),
        ("[1.1]", "", 0),
    ],
)
def test_what_is_no_marker_of_ours_does_not_look_like_one(said: str, shown: str, unknown: int) -> None:
    """Markers of nothing go and are counted, numbers lose their brackets, indices in code get spaces."""
    composer = composed(said)
    assert (composer.text, composer.unknown_references, composer.citations) == (shown, unknown, ())


def test_a_marker_counts_the_quotations() -> None:
    """The same quotation keeps its number, and has a citation for every sentence that it stands for."""
    composer = composed("Cover starts on day one [1.1]. It costs nothing [1.2]. The first day counts [1.1].")
    assert composer.text == "Cover starts on day one [1]. It costs nothing [2]. The first day counts [1]."
    assert [(c.marker, composer.text[c.answer_start : c.answer_end]) for c in composer.citations] == [
        (1, "Cover starts on day one"),
        (2, "It costs nothing"),
        (1, "The first day counts"),
    ]
    assert [claim.citations for claim in composer.claims] == [(0,), (1,), (2,)]


def test_claims_are_the_sentences_without_their_markers() -> None:
    """Questions, greetings, headings, announcements and code state nothing."""
    said = (
        "Sure! Here is what I found:\n\n## Cover\n- Berlin [2.1] has 3.7 million people [2.2].\n"
        "Is it free? Yes. It costs nothing.\n```\nrun it\n```\n**Costs**\nDr. Smith knows. I hope this helps!"
    )
    claims = composed(said).claims
    assert [claim.text for claim in claims if claim.factual] == [
        "Berlin has 3.7 million people.",
        "It costs nothing.",
        "Dr. Smith knows.",
    ]
    assert "Is it free?" in [claim.text for claim in claims]


def test_statements_without_a_verified_citation_are_told() -> None:
    """A wrong number, a missing citation: both are unsupported; what is supported is not."""
    composer = composed("Berlin has 3.7 million people [2.2]. It has 4.9 million people [2.2]. It is old.")
    unsupported = [composer.text[span.start : span.end] for span in composer.unsupported]
    assert [citation.verified for citation in composer.citations] == [True, False]
    assert unsupported == ["It has 4.9 million people", "It is old."]
    assert composer.is_supported


def test_nothing_is_supported_without_citations() -> None:
    """An answer from the model's own memory is known as such."""
    composer = composed("Paris is in France.")
    assert not composer.is_supported
    assert len(composer.unsupported) == 1


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("<think>Maybe [1.1]?</think>\n\nIt is free.", "It is free."),
        ("<think>a</think><think>b</think>It is free.", "It is free."),
        ("<think>never ends", ""),
        ("Answer: It is free.", "It is free."),
        ("**Antwort:** Kostenlos.", "Kostenlos."),
        ("答案：免费。", "免费。"),
        ("Answers differ.", "Answers differ."),
        ("I <think> so.", "I < think> so."),
    ],
)
def test_thoughts_and_labels_before_the_answer_are_left_out(said: str, shown: str) -> None:
    """At the very beginning only."""
    assert composed(said).text == shown


def test_an_open_bracket_is_not_held_for_ever() -> None:
    """What cannot become a marker any more is a part of its sentence."""
    composer = Everything(SOURCES)
    composer.feed("A long enough beginning [1.")
    composer.feed("x" * 2 * MAX_MARKER_LENGTH + ". It")
    assert composer.feed(" is ")[0] == TextDelta("A long enough beginning [1." + "x" * 2 * MAX_MARKER_LENGTH + ".")


def test_a_sentence_goes_out_when_it_has_ended() -> None:
    """With its citation, as soon as the next word shows that it has."""
    composer = Composer(SOURCES)
    assert composer.feed("Dental cover for everybody starts on day one [1.1]. It") == []
    text, citation = composer.feed(" is ")
    assert (text, citation) == (
        TextDelta("Dental cover for everybody starts on day one [1]."),
        CitationMade(composer.citations[0]),
    )


@pytest.mark.parametrize(
    ("said", "shown", "left_out"),
    [
        ("Paris is in France. Cover starts on day one [1.1].", "Cover starts on day one [1].", 1),
        (
            "Cover starts on day one [1.1]. Paris is in France. Berlin [2.1] is old.",
            "Cover starts on day one [1]. Berlin [2] is old.",
            1,
        ),
        ("Cover starts on day one [1.1]. I hope this helps!", "Cover starts on day one [1].", 0),
        ("## Cover\n- Paris is in France.\n- Cover starts [1.1]", "## Cover\n- Cover starts [1]", 1),
        (
            "## Cover\n\nParis is in France.\n\n## Costs\nCover starts [1.1]",
            "## Cover\n\n## Costs\nCover starts [1]",
            1,
        ),
        ("Is it free? Paris is in France.", "", 1),
        ("| A | B |\n|---|---|\n| Cover | day one [1.1] |", "| A | B |\n|---|---|\n| Cover | day one [1] |", 0),
        ("| Cover | day one [1.1] |\n| Paris | France |", "| Cover | day one [1] |", 1),
        ("Berlin [2.1] is so:\n```\nIt costs nothing\n```", "Berlin [1] is so:\n```\nIt costs nothing\n```", 0),
        ("Berlin [2.1] is so:\n```\nrm -rf\n```", "Berlin [1] is so:", 1),
    ],
)
def test_a_statement_that_cites_nothing_is_left_out(said: str, shown: str, left_out: int) -> None:
    """A heading waits for what it heads, a courtesy for nothing; code is that of a passage."""
    composer = composed(said, Composer)
    assert (composer.text, composer.left_out) == (shown, left_out)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("It costs nothing.", "It costs nothing [1]."),
        ("- It costs nothing", "- It costs nothing [1]"),
        ("So dental cover starts on the first day of work!", "So dental cover starts on the first day of work [1]!"),
        ("Dental cover starts on the first day.", "Dental cover starts on the first day [1]."),
        ("Berlin has 4.9 million people.", ""),
        ("Dental cover for a dog starts whenever a day of work ends.", ""),
    ],
)
def test_what_the_passages_say_is_cited(said: str, shown: str) -> None:
    """A sentence without a marker that stands in the listing, or nearly so, cites it; a changed number does not."""
    composer = composed(said, Composer)
    assert composer.text == shown
    assert composer.is_supported == bool(shown)


def test_labels_and_repetitions_are_left_out() -> None:
    """As small models write them, wherever they stand; who says the same of another sentence has said more."""
    looping = f"The passage is:\n\n[1.1] {FIRST}\n\nThe answer is:\n\n{FIRST}\n\nThe answer is:\n\n{FIRST} {SECOND}"
    composer = composed(looping, Composer)
    assert composer.text == f"{FIRST[:-1]} [1]. {SECOND[:-1]} [2]."
    assert composer.left_out == 0
    check_truth(composer)
    twice = composed(f"{SECOND[:-1]} [1.2]. {SECOND[:-1]} [1.1].", Composer)
    assert [citation.marker for citation in twice.citations] == [1, 2]


def test_what_is_said_of_the_passages_needs_a_marker() -> None:
    """It is about what the model was shown: a resemblance to one of them is no support. The same words are."""
    told = "The passage of the dental cover starts on the first day of work."
    assert composed("The passage on dental cover starts on the first day of work.", Composer).text == ""
    composer = Composer((source(told, 1),))
    composer.feed(told)
    composer.finish()
    assert composer.text == f"{told[:-1]} [1]."


@pytest.mark.parametrize(
    "said", ["## Dental cover starts [1.1]", "**Dental cover** [1.1]", "Does dental cover start [1.1]?"]
)
def test_a_heading_supports_nothing(said: str) -> None:
    """It states nothing that could be wrong."""
    assert not composed(said, Composer).is_supported


@pytest.mark.parametrize("said", ["[1.1] Dental cover starts on the first", "Dental cover starts on the first day of"])
def test_a_fragment_supports_nothing(said: str) -> None:
    """What was cut in mid-sentence is left out; a sentence whose stop or marker came is whole."""
    for text, supported in ((said, False), (f"{said} day [1.1]", True)):
        composer = Composer(SOURCES)
        composer.feed(text)
        composer.finish(cut=True)
        assert (composer.is_supported, bool(composer.text)) == (supported, supported)


@given(HOSTILE, st.booleans())
def test_no_uncited_statement_goes_out(text: str, cut: bool) -> None:
    """Whatever a model writes; and what went out in pieces is the answer."""
    composer, pieces = Composer(SOURCES), []
    for character in text:
        pieces += composer.feed(character)
    pieces += composer.finish(cut=cut)
    assert "".join(piece.text for piece in pieces if isinstance(piece, TextDelta)) == composer.text
    assert all(claim.citations for claim in composer.claims if claim.factual)
    check_truth(composer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece", ["[", "[1", "a. ", "[1.1]", "a [2] ", "“a", "`[1]", "一", "1,", "a[1.1]\n", "a", "a.b", "www1", "!", "](a"]
)
def test_long_replies_take_no_more_than_linear_time(piece: str) -> None:
    """32,000 characters of the same are no burden; quadratic time would run into the suite's limit."""
    composed(piece * (32_000 // len(piece)) + " end [1.1].")


def test_passages_without_sentences_cannot_be_cited() -> None:
    """A blank passage is as good as none."""
    composer = Everything([source(" \n", 1)])
    composer.feed("It rains [1]. It pours [1.1].")
    composer.finish()
    assert (composer.text, composer.unknown_references) == ("It rains. It pours.", 2)


def test_offsets_are_those_of_the_document() -> None:
    """A passage from the middle of a document counts from the document's start."""
    [citation] = composed("It costs nothing [1.2].").citations
    assert citation.start == hit(INSURANCE, 1, start=100).start + INSURANCE.index(SECOND)
    assert (citation.document_id, citation.source, citation.support) == ("d1", "1.txt", "structural")
