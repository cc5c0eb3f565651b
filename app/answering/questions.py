"""What a question asks for. Pure."""

import re
from collections.abc import Collection, Mapping, Sequence

import msgspec

from app.domain import Turn
from app.text.languages import detect_language
from app.text.stopwords import AnswerType, answer_types, references_back
from app.text.terms import content_terms, fold

_FEW_TERMS = 2

_NAME = re.compile(r"(?<=\w )[^\W\d_a-zß-öø-ÿ]\w+")


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A question, read. `text` is what to look for: the question, with the previous one if it leans on that.

    `terms` is what it is about; `answer_type` the shape of its answer, if known.
    `stands_alone`: nobody needs earlier turns to understand it, as far as its words tell.
    """

    text: str
    terms: Mapping[str, tuple[frozenset[str], ...]]
    answer_type: AnswerType | None
    leans_back: bool = False
    stands_alone: bool = True


def read(question: str, turns: Sequence[Turn] = ()) -> Reading:
    """Never fails: a text without any content has no terms. Of `turns` only the user's last one is looked at."""
    language = detect_language(question)
    answer_type, rest = _answer_type(question)
    about = content_terms(rest, language) or content_terms(question, language)
    before = earlier(question, turns)
    asked = (turn.content for turn in reversed(before) if turn.role == "user" and turn.content != question)
    previous = next(asked, "")
    if not previous or not _is_elliptic(question, about):
        alone = not before or _names_its_subject(question, language, about)
        return Reading(text=question, terms=about, answer_type=answer_type, stands_alone=alone)
    return Reading(
        text=f"{question} {previous}",  # in this order: an embedder that cuts long texts must not lose the question
        terms={**content_terms(previous, detect_language(previous)), **about},
        answer_type=answer_type,
        leans_back=True,
        stands_alone=False,
    )


def earlier(question: str, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns before the question; some clients send it as the last one of them too."""
    repeated = bool(turns) and turns[-1].role == "user" and turns[-1].content.strip() == question.strip()
    return tuple(turns[:-1] if repeated else turns)


def _is_elliptic(question: str, about: Collection[str]) -> bool:
    """Whether it cannot stand alone: "why?", "and when was it built?"."""
    return not about or (len(about) <= _FEW_TERMS and bool(references_back().search(fold(question))))


def _names_its_subject(question: str, language: str, about: Collection[str]) -> bool:
    """Whether it is unlikely to need the turns before it. In German every noun looks like a name."""
    if references_back().search(fold(question)):
        return False
    return len(about) > _FEW_TERMS or (language != "de" and bool(_NAME.search(question)))


def _answer_type(question: str) -> tuple[AnswerType | None, str]:
    """What shape of answer the question asks for, and the question without the words that say so.

    An answer to "how fast" or "which year" seldom repeats them.
    """
    folded = question.casefold()
    for kind, pattern in answer_types():
        if pattern.search(folded):
            return kind, pattern.sub(" ", folded, count=1)
    return None, question
