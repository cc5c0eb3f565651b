"""What a question asks for, and follow-up questions made to stand by themselves."""

import re
from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec

from app.answering.models import FollowUp, ParsedQuestion
from app.answering.named_codes import without_replaced
from app.answering.prompts import condense_request, earlier_turns
from app.backends.base import ChatRequest, Reply
from app.domain import Question, Turn
from app.errors import WinnowError
from app.text.fencing import DrawFence, draw_fence
from app.text.languages import detect_language
from app.text.stopwords import AnswerType, answer_types, attributes_named, names_another, references_back
from app.text.terms import content_terms, fold

Complete = Callable[[ChatRequest], Awaitable[Reply]]

_FEW_TERMS = 2
_MAX_EARLIER = 3
_NAME = re.compile(r"(?<=\w )[^\W\d_a-zß-öø-ÿ]\w+")

_MAX_STANDALONE = 1000
"""Characters of a reworded question; a longer reply is no question."""
_QUOTES = "\"'“”„«»`* "


def parse_question(question: str, turns: Sequence[Turn] = ()) -> ParsedQuestion:
    """Parse a question with its conversation: the user's turns back to one that stands alone. Never fails.

    A text without any content words has no terms.
    """
    language = detect_language(question)
    answer_type, rest = _answer_type(question)
    terms = content_terms(rest, language) or content_terms(question, language)
    before = earlier_turns(question, turns)
    another = _names_another(question, terms, answer_type)
    previous = _earlier_questions(question, before, another=another)
    if not previous or not _is_elliptic(question, terms):
        stands_alone = not before or _names_its_subject(question, language, terms)
        return ParsedQuestion(text=question, terms=terms, answer_type=answer_type, stands_alone=stands_alone)
    previous = without_replaced(previous, question)
    earlier_terms = content_terms(previous, detect_language(previous))
    said = next((turn.content for turn in reversed(before) if turn.role == "assistant"), "")
    # "And in Löbau?" looks German: a function word of either language is none of its own.
    own = terms.keys() & content_terms(question, detect_language(previous)).keys()
    return ParsedQuestion(
        text=f"{question} {previous}",  # in this order: an embedder that cuts long texts must not lose the question
        terms={**earlier_terms, **terms},
        answer_type=answer_type,
        follow_up=FollowUp(frozenset(own - earlier_terms.keys()), another, answer_type, said),
        stands_alone=False,
    )


def _earlier_questions(question: str, before: Sequence[Turn], *, another: bool) -> str:
    """The user's turns back to one that stands alone, the last one first; "" if there are none.

    In a row of things to ask the same of ("And for braces?", "And for fillings?") those between do not count.
    """
    found: list[str] = []
    for turn in reversed(before):
        if turn.role != "user" or turn.content == question:
            continue
        answer_type, rest = _answer_type(turn.content)
        language = detect_language(turn.content)
        terms = content_terms(rest, language) or content_terms(turn.content, language)
        stands_alone = not _is_elliptic(turn.content, terms)
        if stands_alone or not (another and _names_another(turn.content, terms, answer_type)):
            found.append(turn.content)
        if stands_alone or len(found) == _MAX_EARLIER:
            break
    return " ".join(found)


def question_language(question: Question) -> str:
    """The language to refuse in, a BCP 47 tag: the requested one, or that of the question or of earlier user turns.

    Earlier turns matter for a question such as "Hi" or "GPU", which tells no language.
    """
    turns = (turn.content for turn in reversed(question.messages) if turn.role == "user")
    return question.language or detect_language(question.search.text, *turns)


async def resolve_question(
    question: Question, complete: Complete | None, fence: DrawFence = draw_fence
) -> tuple[ParsedQuestion, tuple[str, ...]]:
    """Parse a question, reworded by one cheap call of `complete` if it needs earlier turns; with warnings.

    Without `complete`, or if it fails, the question is read together with the previous one by rule. Never fails.
    """
    text = question.search.text
    parsed = parse_question(text, question.messages)
    by_rule = ("The question was read together with the previous one.",) if parsed.uses_previous else ()
    if parsed.stands_alone or complete is None:
        return parsed, by_rule
    failure = "bad_reply"
    standalone = ""
    try:
        standalone = _first_line(await complete(condense_request(text, earlier_turns(text, question.messages), fence)))
    except WinnowError as exc:
        failure = exc.code
    if not standalone:
        return parsed, (f"The question was not reworded with the help of earlier turns ({failure}).", *by_rule)
    if standalone == " ".join(text.split()):
        return parse_question(text), ()
    reworded = msgspec.structs.replace(parse_question(standalone), standalone=standalone)
    return reworded, (f"The question was read as: {standalone}",)


def _first_line(reply: Reply) -> str:
    """The first line of the reply; "" if that cannot be a question."""
    first = next(iter(reply.text.strip().splitlines()), "").strip(_QUOTES)
    return "" if reply.finish_reason == "length" or len(first) > _MAX_STANDALONE else " ".join(first.split())


def _names_another(question: str, terms: Collection[str], answer_type: AnswerType | None) -> bool:
    """Whether all it does is to name another thing: "And for braces?", not "And when?" or "What about its height?"."""
    folded = fold(question)
    asks_else = answer_type is not None or bool(attributes_named(folded))
    return bool(terms) and not asks_else and bool(names_another().search(folded))


def _is_elliptic(question: str, terms: Collection[str]) -> bool:
    """Whether it cannot stand alone: "why?", "and when was it built?"."""
    return not terms or (len(terms) <= _FEW_TERMS and bool(references_back().search(fold(question))))


def _names_its_subject(question: str, language: str, terms: Collection[str]) -> bool:
    """Whether it is unlikely to need the turns before it."""
    if references_back().search(fold(question)):
        return False
    if len(terms) > _FEW_TERMS:
        return True
    return language != "de" and bool(_NAME.search(question))  # in German every noun looks like a name


def _answer_type(question: str) -> tuple[AnswerType | None, str]:
    """The shape of the answer that is asked for, and the question without the words that say so.

    An answer to "how fast" or "which year" seldom repeats them.
    """
    folded = question.casefold()
    for answer_type, pattern in answer_types():
        if pattern.search(folded):
            return answer_type, pattern.sub(" ", folded, count=1)
    return None, question
