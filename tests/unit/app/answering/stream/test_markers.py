"""Markers by themselves; what becomes of them in an answer is tested with the composer."""

import pytest

from app.answering.stream.markers import (
    MarkerScanner,
    Reference,
    ReferenceResolver,
    Token,
    parse_marker,
    would_close,
)
from tests.fakes.answering import source


@pytest.mark.parametrize(
    ("body", "references"),
    [
        ("2.3", [Reference(2, 3, 3)]),
        ("999", [Reference(999)]),
        ("1000", []),
        ("1000.1", [Reference(1000, 1, 1)]),
        ("2.3-5", [Reference(2, 3, 5)]),
        ("2.3-2.5", [Reference(2, 3, 5)]),
        ("2.3-1", [Reference(2, 3, 3)]),
        ("2.3-3.5", [Reference(2, 3, 3), Reference(3, 5, 5)]),
        ("1-4", [Reference(1), Reference(2), Reference(3), Reference(4)]),
        ("3-1", [Reference(3), Reference(1)]),
        ("1, 2", [Reference(1), Reference(2)]),
        ("0", []),
        ("-1", []),
        (", 1", []),
        ("1.2.3", []),
        ("", []),
    ],
)
def test_a_marker_names_sentences_passages_and_ranges(body: str, references: list[Reference]) -> None:
    """Counted from 1; a year, a bare dash and a version number are no markers."""
    assert parse_marker(body) == tuple(references)


def test_a_range_is_bounded() -> None:
    """A reply cannot name thousands of passages by one marker."""
    passages = [reference.passage for reference in parse_marker("1-999")]
    assert passages == [*range(1, 49), 999]


def test_an_open_bracket_is_released_when_it_is_too_long_for_a_marker() -> None:
    """Everything that was held back comes at once, and what follows comes as it is."""
    scanner = MarkerScanner()
    held = "[" + "1" * 47
    assert [token for character in held for token in scanner.feed(character)] == []
    assert scanner.feed("1") == [Token(held + "1")]
    assert scanner.feed("1") == [Token("1")]


@pytest.mark.parametrize(
    ("before", "completes"), [("[1", True), ("[12,3", True), ("[", False), ("[a", False), ("1", False)]
)
def test_a_bracket_that_would_complete_a_marker_is_recognised(before: str, completes: bool) -> None:
    """Digits after an opening bracket."""
    assert would_close(before) is completes


PASSAGE = source("Cats purr. Dogs bark. Cows moo. Owls hoot. Bees hum.", 1)


@pytest.mark.parametrize(
    ("claim", "quote"),
    [
        ("Dogs bark", "Dogs bark."),
        ("Dogs bark, cows moo", "Dogs bark. Cows moo."),
        ("Cats purr, dogs bark, cows moo, owls hoot, bees hum", "Cats purr. Dogs bark. Cows moo."),
        ("Fish swim", "Cats purr. Dogs bark. Cows moo. Owls hoot. Bees hum."),
    ],
)
def test_a_passage_stands_for_its_closest_sentences(claim: str, quote: str) -> None:
    """Three at most, as few as say the same, and all if none shares a word."""
    [(passage, span)] = ReferenceResolver([PASSAGE]).resolve([Reference(1)], claim)
    assert (passage.hit.text or "")[span.start : span.end] == quote


def test_references_to_nothing_are_counted() -> None:
    """A passage or a sentence that is not there; of a range what is there is cited."""
    resolver = ReferenceResolver([PASSAGE])
    named = resolver.resolve([Reference(1, 5, 5), Reference(1, 6, 6), Reference(2), Reference(1, 3, 9)], "")
    assert [(span.start, span.end) for _, span in named] == [(22, 52)]
    assert resolver.unknown == 3
