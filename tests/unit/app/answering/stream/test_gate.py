"""What is let out of a model's text, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answering.prompts import pack
from app.answering.stream.composer import AnswerPiece, Composer
from app.answering.stream.gate import AnswerGate
from app.answering.stream.markers import DECLINE
from app.domain import CitationMade, TextDelta
from tests.fakes.answering import hit

SOURCES = pack([hit("Dental cover starts on day one. It is free.")], 1000)
GOOD = "Dental cover starts on day one [1.1]."


def release(*pieces: str) -> tuple[list[list[AnswerPiece]], AnswerGate]:
    """What each piece let out, and what the end did."""
    ours = AnswerGate(Composer(SOURCES))
    return [*(ours.feed(piece) for piece in pieces), ours.finish()], ours


def text_of(let_out: list[list[AnswerPiece]]) -> str:
    return "".join(piece.text for some in let_out for piece in some if isinstance(piece, TextDelta))


def test_nothing_is_said_before_it_stands_on_something() -> None:
    """The first citation lets out what was held; then text goes as it comes."""
    let_out, ours = release("Dental cover starts ", "on day one", " [1.1]. And ", "it is ", "free [1.2].")
    assert [bool(some) for some in let_out[:2]] == [False, False]
    assert any(isinstance(piece, CitationMade) for some in let_out[2:4] for piece in some)
    assert text_of(let_out) == "Dental cover starts on day one [1]. And it is free [2]."
    assert ours.abstain_reason is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (DECLINE, "model_declined"),
        ("  no_answer.", "model_declined"),
        ("**No answer**", "model_declined"),
        (f"> {DECLINE}\n\n{GOOD}", "model_declined"),
        ("No-answer: it is not said.", "model_declined"),
        (f"I am sorry. {DECLINE}", "model_declined"),
        ("", "model_declined"),
        ("...", "model_declined"),
        ("It is far.", "unsupported"),
        ("No answerable person knows.", "unsupported"),
        (f"{GOOD} {DECLINE}", None),
        (f"No answer is needed, as it says: {GOOD}", None),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_why_there_is_no_answer(text: str, reason: str | None, size: int) -> None:
    """The word at the beginning or alone, or nothing at all, is declining; talk without support is none."""
    let_out, ours = release(*(text[start : start + size] for start in range(0, len(text), size)))
    assert ours.abstain_reason == reason
    assert (text_of(let_out) != "") == (reason is None)
    assert DECLINE not in text_of(let_out)


PIECES = st.lists(
    st.sampled_from([*"NO_ANSWER", DECLINE, "NO_", "Dental cover starts on day one", " [1.1]", ". ", "\n", "It"])
)


@given(PIECES)
def test_the_pieces_do_not_matter(pieces: list[str]) -> None:
    """What comes letter by letter and what comes at once is the same answer, or the same lack of one."""
    text = "".join(pieces)
    whole, one = release(text)
    split, other = release(*text)
    assert (text_of(whole), one.abstain_reason) == (text_of(split), other.abstain_reason)
    assert (one.abstain_reason is None) == (text_of(whole) != "")


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("fence", ["mxkqzvbw", "MXKQZVBW"])
def test_a_reply_ends_where_it_copies_the_fence(fence: str, size: int) -> None:
    """Nothing of it or after it goes out, in whatever case and pieces it comes."""
    ours, text, let_out = AnswerGate(Composer(SOURCES), "mxkqzvbw"), f"{GOOD}\n{fence} passage 2\nIt is free.", ""
    for start in range(0, len(text), size):
        let_out += text_of([ours.feed(text[start : start + size])])
    let_out += text_of([ours.finish()])
    assert let_out == "Dental cover starts on day one [1]."
    assert ours.over


def test_a_reply_of_white_space_is_silent() -> None:
    """As is one of a model that has spent its tokens on thoughts."""
    ours = AnswerGate(Composer(SOURCES))
    ours.feed(" \n")
    assert ours.is_silent
    ours.feed("It")
    assert not ours.is_silent
