"""What a question asks for. Pure."""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from app.answering.languages import detect_language
from app.answering.terms import content_terms, fold
from app.answering.words import ANSWER_TYPES, POINTS_BACK, AnswerType
from app.domain import Turn

_FEW_TERMS = 2


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A question, read. `text` is what to look for: the question, with the previous one if it leans on that.

    `language` is an ISO 639-1 code; `terms` is what it is about; `answer_type` the shape of its answer, if known.
    """

    text: str
    language: str
    terms: Mapping[str, tuple[frozenset[str], ...]]
    answer_type: AnswerType | None
    leans_back: bool = False


def read(question: str, turns: Sequence[Turn] = ()) -> Reading:
    """Never fails: a text without any content has no terms. Of `turns` only the user's last one is looked at."""
    language = detect_language(question)
    answer_type, rest = _answer_type(question)
    about = content_terms(rest, language) or content_terms(question, language)
    previous = next((turn.content for turn in reversed(turns) if turn.role == "user" and turn.content != question), "")
    if not previous or not _is_elliptic(question, about):
        return Reading(text=question, language=language, terms=about, answer_type=answer_type)
    return Reading(
        text=f"{question} {previous}",  # in this order: an embedder that cuts long texts must not lose the question
        language=language,
        terms={**content_terms(previous, detect_language(previous)), **about},
        answer_type=answer_type,
        leans_back=True,
    )


def _is_elliptic(question: str, about: Collection[str]) -> bool:
    """Whether it cannot stand alone: "why?", "and when was it built?"."""
    return not about or (len(about) <= _FEW_TERMS and bool(POINTS_BACK.search(fold(question))))


def _answer_type(question: str) -> tuple[AnswerType | None, str]:
    """What shape of answer the question asks for, and the question without the words that say so.

    An answer to "how fast" or "which year" seldom repeats them.
    """
    folded = question.casefold()
    for kind, pattern in ANSWER_TYPES:
        if pattern.search(folded):
            return kind, pattern.sub(" ", folded, count=1)
    return None, question
