"""Sentence boundaries: what a reader of each language expects, and offsets that hold for any text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexing.chunking.sentences import sentence_spans


def sentences(text: str) -> list[str]:
    return [text[span.start : span.end] for span in sentence_spans(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. Smith went to the U.S. in 3.5 hours.", "He liked it, e.g. the food.", "Then left!", "What?!", "Yes."],
        ["See https://a.example/b.html?x=1.", "Mr. J. R. Tolkien said hello.", "Prices rose 3.2%."],
        ["Das ist z. B. gut.", "Siehe Nr. 5 und Abs. 3.", "Am 3. Mai kam Dr. Müller.", '"Wirklich?" fragte er.'],
        ["这是第一句。", "真的吗？", "是的！", "数字是3.5元。"],
        ["他说：“你好。”", "然后走了。"],
        ["「そうですか。」と彼は言った。", "はい！", "本当？"],
        ["هل هذا صحيح؟", "نعم.", "قال د. أحمد مرحبا.", "ثم ذهب!"],
        ["revenue was $3.5 million in 2017.", "the company inc. had losses.", "it grew."],
        ["Он пришёл.", "Она ушла?", "Да!"],
        ["मैं यहाँ हूँ।", "वह वहाँ है।"],
    ],
)
def test_splits_where_a_reader_would(expected: list[str]) -> None:
    """Abbreviations, decimals, addresses and closing quotes do not end a sentence; its punctuation does."""
    joined = " " if expected[0].isascii() or expected[0][-1] in ".؟।" else ""
    assert sentences(joined.join(expected)) == expected


def test_lines_of_a_list_are_sentences_of_their_own() -> None:
    """List items, table rows and headings need no full stop; a wrapped paragraph stays whole."""
    text = "# Head\nBody wraps\nhere. More.\n\n- one\n- two\n1. First thing\n2) Second\n| a | b |\n| c | d |\nEnd"
    assert sentences(text) == [
        "# Head", "Body wraps\nhere.", "More.", "- one", "- two", "1. First thing", "2) Second",
        "| a | b |", "| c | d |", "End",
    ]  # fmt: skip


def test_windows_line_ends() -> None:
    """CRLF ends lines as LF does and is never part of a sentence's edge."""
    assert sentences("One. Two.\r\n\r\nThree\r\n- a\r\n- b\r\n") == ["One.", "Two.", "Three", "- a", "- b"]


def test_a_long_quotation_is_split_within() -> None:
    """Brackets that are never closed, and quotations of many sentences, do not make one endless sentence."""
    text = "(He said: " + " ".join(f"This is sentence number {n} of many." for n in range(40))
    assert max(map(len, sentences(text))) < 400


def test_blank_texts_have_no_sentences() -> None:
    """Nothing but white space yields nothing."""
    assert sentence_spans("") == sentence_spans(" \r\n\t\n ") == []


def test_one_endless_sentence_stays_one() -> None:
    """A text without any punctuation is a single sentence, however long."""
    assert sentences("word " * 5_000) == [("word " * 5_000).strip()]


TRICKY = st.text(
    st.one_of(st.sampled_from(list("aB.?!。」”\"')([-|#1 \n\r\t؟د\u0301\u200d😀\ud800")), st.characters()), max_size=80
)


@given(TRICKY)
def test_nothing_but_white_space_is_left_out(text: str) -> None:
    """Spans are in order, trimmed, not empty, and cover every character that is not white space."""
    position = 0
    for span in sentence_spans(text):
        piece = text[span.start : span.end]
        assert piece
        assert piece == piece.strip()
        assert not text[position : span.start].strip()
        assert span.start >= position
        position = span.end
    assert not text[position:].strip()


@pytest.mark.parametrize("unit", ["汉字。", "x", "汉", '"a. ', "(a.) ", "\n", ". ", "1. ", "| a", "“Ä. ", "- b\n"])
def test_takes_linear_time(unit: str) -> None:
    """200,000 characters of anything take well under a few seconds."""
    started = time.process_time()
    sentence_spans(unit * (200_000 // len(unit)))
    assert time.process_time() - started < 3
