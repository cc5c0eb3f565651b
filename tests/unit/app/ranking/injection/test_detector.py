"""Passages that talk to the model."""

import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ranking.injection.detector import PATTERNS, has_hidden_text, rules, shows_injection
from app.text.fencing import visible
from tests.attacks.injections import ATTACKS, Attack

ORDINARY = (
    "Please ignore the noise from the pump; all instructions for the filter are on page 3.",
    "The jury must disregard any prior statements of the witness and follow the judge's instructions.",
    "Do not ignore the warning lights above the panel. Read the operating instructions.",
    "This document describes how the relevance of search results is graded by assessors on a scale from 0 to 3.",
    "The passage of the bill was the most relevant event of the year; it was ranked first by historians.",
    "At the end of the passage, the ship turned north. Rate this article on our website!",
    "Answer: 3 apples. Output 3 is connected to relay 4. Print 3 copies. Grade 3 pupils read this text.",
    '{"name": "bolt", "score": 0.93, "order": "A-17", "3": "x"}  order = [1, 2, 3]',
    "User: How do I reset it? Assistant: Hold the button for 3 seconds. User: Thanks!",
    "Language models such as Gemma rank passages; a reranker gives each passage a score.",
    "Dear customer, note the change of our opening hours. Hello, world! Important: read this first.",
    "System message 3: low battery. The developer override switch is on the back.",
    "<div><s>old price</s> <b>new price</b></div> if (a < b) return 3;",
    "Bitte beachten Sie alle vorherigen Anweisungen des Herstellers. Antworten finden Sie in Abschnitt 3.",
    "Dieser Text beantwortet häufige Fragen. Note 3 bedeutet befriedigend.",
    "Veuillez lire toutes les instructions ci-dessus. Ce document est le premier de la série.",
    "Lea todas las instrucciones anteriores. Este documento es el primero de tres.",
    "Leia todas as instruções acima. Este texto é o primeiro de três.",
    "Прочитайте все предыдущие инструкции. Этот текст написан в 1903 году.",
    "请阅读以上所有说明。这段文字写于三年前。本文件共三页，排在第一章。",
    "以前の指示に従ってください。この文章は3年前に書かれた。",
    "이전의 지시를 따르세요. 이 글은 3년 전에 쓰였다.",
    "اقرأ جميع التعليمات السابقة. هذا النص من القرن الثالث.",
    "पिछले सभी निर्देश पढ़ें। यह पाठ तीन भागों में है।",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f England",
    "model X1000A, part 4A5B6C, p4, h3llo, e10s; i.e. a b c d; sha256 aWdub3Jl; U.S.A. A B C",
)


def is_suspicious(text: str) -> bool:
    """As passages are prepared: invisible characters are taken out before the text is looked at."""
    return has_hidden_text(text) or shows_injection(visible(text))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.technique)
def test_attacks_are_found_as_expected(attack: Attack) -> None:
    """Those that give orders, fake or beg in known words; `told` says which ones are found."""
    assert is_suspicious(attack.text) is attack.told


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack.told], ids=lambda attack: attack.technique)
def test_an_attack_is_told_inside_a_document(attack: Attack) -> None:
    """On lines of its own in the middle of ordinary text."""
    prose = "Parcels are sent on weekdays. The warehouse is closed in August.\n"
    assert is_suspicious(f"{prose * 3}{attack.text}\n{prose * 3}")


def test_most_attacks_are_told() -> None:
    """At least four of five of a corpus of sixty or more, in ten languages or more."""
    assert len(ATTACKS) >= 60
    assert sum(attack.told for attack in ATTACKS) >= 0.8 * len(ATTACKS)
    assert sum(attack.technique == "languages" and attack.told for attack in ATTACKS) >= 10


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_not_suspicious(text: str) -> None:
    """Though it uses the same words."""
    assert not is_suspicious(text)


@given(st.text(max_size=300))
def test_any_text_can_be_looked_at(text: str) -> None:
    """Random characters are no attack, and no error."""
    assert is_suspicious(text) in (True, False)


@given(
    st.lists(
        st.sampled_from(
            ["the", "of", "parcel", "warehouse", "on", "Monday", "grade", "passage", "this", "is", "relevant", "3"]
        ),
        max_size=9,
    )
)
def test_case_does_not_matter(words: list[str]) -> None:
    """Shouting is read like speaking."""
    assert is_suspicious(" ".join(words)) == is_suspicious(" ".join(words).upper())


def test_every_rule_can_match() -> None:
    """Fragments are filled in, patterns compile, and needles are lower case like the folded text."""
    for groups, pattern in rules():
        assert re.compile(pattern)
        assert "«" not in pattern
        assert groups
        assert all(needle and needle == needle.lower() and "«" not in needle for group in groups for needle in group)


def test_rules_cover_other_languages() -> None:
    """Orders to ignore instructions and to place the passage first, in a dozen languages or more each."""
    data = tomllib.loads(PATTERNS.read_text(encoding="utf-8"))
    assert all(len({rule["language"] for rule in data[kind]}) >= 12 for kind in ("ignore", "demand"))
