"""Proper names of questions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answering.extractive.evidence import split
from app.answering.extractive.names import about_names, named, topic
from app.answering.questions import parse_question
from tests.fakes.answering import hit

FOUNDERS = "Corvane Instruments was founded by Edith Marsh. It makes tide gauges."
BRIDGES = "The Harrow Bridge is 312 metres long. It is green. The Alder Tunnel cost 48 million dollars."
DAMS = "Die Talsperre Eibenbach fasst viel Wasser. Der Bau der Talsperre Rotenfels kostete 63 Millionen Euro."
COMPANIES = "蓝湾仪器公司由陈立创办。公司有45名员工。北斗仪器公司由李明创办。"


def kept(question: str, *texts: str) -> list[str]:
    """The sentences that may be about the question."""
    hits = [hit(text, number) for number, text in enumerate(texts)]
    return [sentence.text for sentence in about_names(parse_question(question), split(hits), texts)]


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("Who founded Tessera Instruments?", ["tessera", "instruments"]),
        ("How long is the Harrow Bridge?", ["harrow", "bridge"]),
        ("When did it open? What is Nagoya?", ["nagoya"]),
        ("What does the EU do?", []),
        ("Wie viele Mitarbeiter gibt es in Kamenz?", ["kamenz"]),
        ("Was kostet die Miete in Bezug auf den Saal Spree?", ["spree"]),
        ("Wie hoch ist die Miete?", []),
    ],
)
def test_names_are_told_by_their_capitals(question: str, names: list[str]) -> None:
    """In German, where all nouns have them, by what is before them; not acronyms, nor what begins a sentence."""
    assert [name.word for name in named(question)] == names


def test_a_name_that_no_passage_has_is_nowhere_answered() -> None:
    """However near the passages are; another spelling of it counts."""
    assert kept("Who founded Tessera Instruments?", FOUNDERS) == []
    assert kept("Who founded Corvanne Instruments?", FOUNDERS)
    assert kept("Wie viele Plätze hat der Saal Spree?", "Der Saal Mulde hat 45 Plätze.") == []
    assert kept("桦林仪器公司由谁创办？", COMPANIES) == []


def test_nothing_is_known_of_passages_in_another_language() -> None:
    """There the name may be another one."""
    assert kept("Wie groß ist die Stadt in Warschau?", "The capital of Poland is a large city on the river.")
    assert kept("华沙的人口是多少？", "The capital of Poland is a large city on the river.")


def test_a_sentence_with_a_rival_in_the_names_place_is_about_something_else() -> None:
    """And those after it, up to one with the name."""
    assert kept("Was kostete der Bau der Talsperre Eibenbach?", DAMS) == ["Die Talsperre Eibenbach fasst viel Wasser."]
    assert kept("Who founded Tessera Instruments?", FOUNDERS, "Tessera Instruments is old. Rita founded it.") == [
        "Tessera Instruments is old.",
        "Rita founded it.",
    ]
    assert kept("北斗仪器公司由谁创办？", COMPANIES) == ["北斗仪器公司由李明创办。"]


def test_a_number_is_not_told_of_another_subject() -> None:
    """A person who is asked for may be the subject."""
    assert kept("How much did the Harrow Bridge cost?", BRIDGES)[-1] == "It is green."
    assert kept("Who sang at the Super Bowl?", "The Super Bowl was loud. Lady Gaga sang.")[-1] == "Lady Gaga sang."


@pytest.mark.parametrize(
    ("question", "begins"),
    [
        ("济南有多少员工？", "济南"),
        ("北方有限公司由谁创办？", "北方有限公司"),
        ("青石水库的大坝有多高？", "青石水库"),
        ("自从那时以来？", ""),
        ("Wer war es?", ""),
    ],
)
def test_a_chinese_question_begins_with_its_topic(question: str, begins: str) -> None:
    """Up to a function word."""
    assert topic(question) == begins


@given(
    st.text(alphabet="AbcÄ '’-.?蓝湾北斗仪器的 ", max_size=40),
    st.text(alphabet="AbcÄ '’-.?蓝湾北斗仪器的 ", max_size=40),
)
def test_whatever_is_asked_the_rest_keeps_its_order(question: str, text: str) -> None:
    """Nothing fails, and nothing is added."""
    sentences = split([hit(text)])
    found = about_names(parse_question(question), sentences, [text])
    assert [sentence for sentence in sentences if sentence in found] == found
