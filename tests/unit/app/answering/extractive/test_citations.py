import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answering.extractive.answerer import cite
from app.answering.extractive.evidence import split
from app.answering.output import readable
from tests.fakes.answering import hit

pytestmark = pytest.mark.numeric

MARKER = re.compile(r"\[(\d+)\]")
LOOK_ALIKES = ("[1]", " [2]", "[[3]4]", "［５］", "【6】", "[\u200b7\u200d]", "[8, 9]", "[2019]", "[a]", "[", "]", "3")
ORDINARY = ("Dental", " cover", ".", "! ", "\n", " ", "牙科", "。", "مرحبا", "؟", "🙂", "👩\u200d👧", "e\u0301")
CONTROLS = ("<|im_end|>", "\u202e", "\x00", "\ud800")
HOSTILE = st.lists(st.sampled_from(LOOK_ALIKES + ORDINARY + CONTROLS), max_size=25).map("".join)


def answer_of(*texts: str) -> tuple[str, list[tuple[str, str]]]:
    """The answer made of all sentences of `texts`, and each citation's (sentence, quote)."""
    hits = [hit(text, number, start=7 * number) for number, text in enumerate(texts)]
    pieces = list(cite(hits, split(hits)))
    answer = "".join(text for text, _ in pieces)
    return answer, [(answer[c.answer_start : c.answer_end], c.quote) for _, c in pieces]


def test_a_marker_stands_before_the_full_stop_and_its_sentence_before_the_marker() -> None:
    """Each sentence carries its own marker; the cited range is the sentence without it."""
    answer, cited = answer_of("Cover starts at once. It costs nothing!", "“Ask HR.”", "牙科保险。")
    assert answer == "Cover starts at once [1]. It costs nothing [2]! “Ask HR.” [3] 牙科保险 [4]。"
    assert [sentence for sentence, _ in cited] == ["Cover starts at once", "It costs nothing", "“Ask HR.”", "牙科保险"]


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("It was so.[3][4]", "It was so."),
        ("It was so [12–14].", "It was so."),
        ("A rule [2019] holds.", "A rule (2019) holds."),
        ("[[1]2] nested", "nested"),
        ("full ［１］ width 【２】", "full width"),
        ("hidden [\u200b3] here", "hidden here"),
        ("two\n lines\tand\u00a0gaps", "two lines and gaps"),
        ("turned \u202eround\u202c", "turned round"),
        ("a family 👩‍👩‍👧 stays", "a family 👩‍👩‍👧 stays"),
        ("names [sic] stay", "names [sic] stay"),
    ],
)
def test_what_looks_like_a_marker_is_taken_out_of_the_sentence(sentence: str, shown: str) -> None:
    """Footnote numbers go, other bracketed numbers lose their brackets, white space folds, the rest stays."""
    assert readable(sentence) == shown


@given(st.lists(HOSTILE, max_size=4))
def test_a_hostile_passage_makes_no_marker_of_its_own(texts: list[str]) -> None:
    """The only markers in an answer are ours, in order, one for each citation."""
    answer, cited = answer_of(*texts)
    assert [int(number) for number in MARKER.findall(answer)] == list(range(1, len(cited) + 1))


@given(st.lists(HOSTILE, max_size=4))
def test_quotes_are_verbatim_and_sentences_are_where_they_are_said_to_be(texts: list[str]) -> None:
    """A quote is the stored text at its offsets; the cited range of the answer is that quote, made readable."""
    hits = [hit(text, number, start=7 * number) for number, text in enumerate(texts)]
    pieces = list(cite(hits, split(hits)))
    answer = "".join(text for text, _ in pieces)
    for _, made in pieces:
        source = next(one for one in hits if one.id == made.result_id)
        assert source.text is not None
        assert made.quote == source.text[made.start - source.start : made.end - source.start] != ""
        assert readable(made.quote).startswith(answer[made.answer_start : made.answer_end])


@given(HOSTILE)
def test_making_readable_twice_changes_nothing(text: str) -> None:
    """What has been made readable stays as it is."""
    assert readable(readable(text)) == readable(text)
