"""Texts that are (nearly) equal."""

import random
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from app.ranking.passages import NEAR, first_alike

WORDS = (
    "parcel",
    "warehouse",
    "Monday",
    "crane",
    "invoice",
    "driver",
    "bolt",
    "delivery",
    "truck",
    "pallet",
    "gate",
    "ship",
)


def prose(seed: int, words: int = 120) -> str:
    """Words in an order that repeats nowhere, all made different by a syllable."""
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) + draw.choice("aeiouxyz") + draw.choice("klmnrst") for _ in range(words))


def alike(*texts: str) -> list[int]:
    return first_alike(texts, lambda index: None)


def jaccard(one: str, two: str) -> float:
    """By the definition: of all windows of eight letters."""
    grams = [
        {letters[at : at + 8] for at in range(len(letters) - 7)}
        for letters in ("".join(filter(str.isalnum, text.lower())) for text in (one, two))
    ]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def test_case_spaces_and_punctuation_make_no_difference() -> None:
    """In short texts and in long ones."""
    long = prose(1)
    assert alike("Two days!", "two  days", "Three days", long, long.upper().replace(" ", ", ")) == [0, 0, 2, 3, 3]


def test_a_text_with_a_word_more_is_nearly_the_same() -> None:
    """In a long one."""
    text = prose(2)
    assert alike(text, text + " more", "see: " + text) == [0, 0, 0]


def test_short_texts_are_alike_only_if_equal() -> None:
    """A word is much of them."""
    assert alike("Parcels take two days to arrive.", "Parcels take six days to arrive.") == [0, 1]


def test_different_facts_make_different_texts() -> None:
    """Whatever else is equal; the first with the same facts leads."""
    assert first_alike(["a", "a", "a", "a"], [1, 2, 1, 2].__getitem__) == [0, 1, 0, 1]


def test_no_texts_have_no_duplicates() -> None:
    """And empty ones are equal."""
    assert alike() == []
    assert alike("", "...", "a") == [0, 0, 2]


def test_scripts_without_spaces_are_compared_as_well() -> None:
    """By the same windows."""
    text = "".join(chr(0x4E00 + (7 * at * at) % 5_000) for at in range(400))
    assert alike(text, text + "完", text[:200] + text[:200][::-1]) == [0, 0, 2]


def test_letters_beyond_the_basic_plane_count() -> None:
    """Emoji and rare characters."""
    assert alike("😀", "😁", "𠀀", "𠀁", "😀!") == [0, 1, 2, 3, 0]


@given(st.integers(0, 10_000), st.integers(0, 30))
def test_what_is_alike_is_alike_by_the_definition(seed: int, changed: int) -> None:
    """Clearly more than NEAR in common: alike. Clearly less: not."""
    draw = random.Random(seed)
    words = prose(seed).split()
    other = list(words)
    for at in draw.sample(range(len(words)), changed):
        other[at] = "changed"
    one, two = " ".join(words), " ".join(other)
    common = jaccard(one, two)
    if common > NEAR + 0.06:
        assert alike(one, two) == [0, 0]
    if common < NEAR - 0.12:
        assert alike(one, two) == [0, 1]


@given(st.lists(st.text(alphabet="ab ", max_size=4), max_size=12))
def test_the_first_of_equals_leads(texts: list[str]) -> None:
    """Every text points to the first equal one, which points to itself."""
    keys = ["".join(text.split()) for text in texts]
    assert alike(*texts) == [keys.index(key) for key in keys]


def test_a_thousand_texts_of_one_template_are_compared_with_a_few() -> None:
    """No input makes it compare each with each."""
    template, facts = prose(3, 200), count()
    assert first_alike([f"{template} {index}" for index in range(300)], lambda index: next(facts)) == list(range(300))
    assert next(facts) <= 300 * 8 * 2
