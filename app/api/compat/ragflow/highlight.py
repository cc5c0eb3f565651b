"""Which words of a question stand in a text. Pure."""

from collections.abc import Collection

from app.text.languages import detect_language
from app.text.terms import content_terms, occurrences, terms


def sought(question: str) -> frozenset[str]:
    """The terms that a question is about; all of its terms where it has only function words."""
    return frozenset(content_terms(question, detect_language(question))) or terms(question)


def share(wanted: Collection[str], text: str) -> float:
    """The part of the terms that a text has, in [0,1]; 0 when none is wanted."""
    return len(terms(text).intersection(wanted)) / len(wanted) if wanted else 0.0


def highlighted(wanted: Collection[str], text: str) -> str:
    """The text with <em> around the words that have a wanted term."""
    pieces, at = [], 0
    for start, end in occurrences(text, wanted):
        pieces += [text[at:start], "<em>", text[start:end], "</em>"]
        at = end
    return "".join((*pieces, text[at:]))
