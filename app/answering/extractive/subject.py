"""Whether a sentence is about the very thing that a question names by a number or a code, and asks of it. Pure.

"To whom was invoice 4712 sent?" is not answered by a sentence about invoice 4711, however alike they are. A passage
without the code does not count, and where a passage lists several such things, each code has its sentence and those
after it, up to the next one.

A code is binding by itself, but not a year, an ordinal or a number of one or two digits, which a passage often leaves
to its context ("the 2015 season", "Super Bowl 50"). Those are missing only where the passage has another number after
the same word.
"""

import re
from collections.abc import Iterator, Sequence

from app.answering.extractive.evidence import Sentence, shape_feature
from app.answering.models import ParsedQuestion
from app.answering.named_codes import NamedCode, named_codes
from app.answering.output import STOPS, readable
from app.text.languages import detect_language
from app.text.stopwords import attribute_words, attributes_asked, attributes_told
from app.text.terms import fold, terms

_MARKER = re.compile(r"\s*\[\d+\]")


def about(question: str, sentences: Sequence[Sentence], above: Sequence[str]) -> list[bool]:
    """For each sentence whether it may be about what the question names; all True for a question without a code.

    `above` has the title and headings of each passage. The sentences of a passage come in order.
    """
    named = named_codes(question)
    if not named:
        return [True] * len(sentences)
    by_sentence = [named_codes(sentence.text) for sentence in sentences]
    result = []
    for hit, group in _grouped(sentences):
        overhead = named_codes(above[hit])
        in_passage = [*overhead, *(code for index in group for code in by_sentence[index])]
        if any(_missing(code, in_passage) for code in named):
            result += [False] * len(group)
        else:
            result += _in_scope(named, [by_sentence[index] for index in group])
    return result


def of_attribute(question: ParsedQuestion, sentences: Sequence[Sentence], above: Sequence[str]) -> list[Sentence]:
    """Those that tell the attribute which the question asks for, if it does: no capacity where the cost is asked for.

    A sentence that tells no attribute may leave its name to the sentence before it, or to the title and headings.
    """
    asked = attributes_asked(fold(question.text))
    if not asked:
        return list(sentences)
    result, before, hit = [], frozenset[str](), -1
    for sentence in sentences:
        if sentence.hit != hit:
            hit, before = sentence.hit, frozenset()
        told = attributes_told(fold(sentence.text))
        led = asked & (before | attributes_told(fold(above[hit])))
        if sentence.row is not None or asked & told or (not told and led):
            result.append(sentence)
        before = told
    return result


def of_its_bearer(question: ParsedQuestion, sentences: Sequence[Sentence], texts: Sequence[str]) -> list[Sentence]:
    """Where an attribute is asked for, those of passages that have a word of the thing that it is asked of.

    "Development cost 410,000 euros" is not what a toaster costs. `texts` are the passages with what is above them.
    Nothing is known of passages in another language.
    """
    folded = fold(question.text)
    if not attributes_asked(folded) or not (words := question.terms.keys() - terms(attribute_words(folded))):
        return list(sentences)
    language = detect_language(question.text)
    able = [
        any(question.has(word, present) for word in words) or detect_language(text) != language
        for text, present in zip(texts, map(terms, texts), strict=True)
    ]
    return [sentence for sentence in sentences if able[sentence.hit]]


def following(question: ParsedQuestion, sentences: Sequence[Sentence]) -> list[Sentence]:
    """Those that may answer a follow-up: about the thing that it names, and not what was said before it.

    What was said may be said again where it has the follow-up's own words, or a time, a number or a name that is asked
    for now.
    """
    follow_up = question.follow_up
    if follow_up is None:
        return list(sentences)
    words = [term for term in follow_up.terms if not any(map(str.isdigit, term))]
    if follow_up.another and words:
        sentences = [sentence for sentence in sentences if not sentence.heading]
        own = [sentence for sentence in sentences if _has(question, words, sentence.terms)]
        sentences = own or [sentence for sentence in sentences if _has(question, words, sentence.context)]
    said = _plain(follow_up.said)
    return [
        sentence
        for sentence in sentences
        if _plain(sentence.shown or sentence.text) not in said
        or (bool(words) and _has(question, words, sentence.terms))
        or (follow_up.answer_type is not None and shape_feature(question, sentence.text) > 0)
    ]


def _has(question: ParsedQuestion, words: Sequence[str], present: frozenset[str]) -> bool:
    return all(question.has(word, present) for word in words)


def _plain(text: str) -> str:
    """Without markers, on one line."""
    return " ".join(readable(_MARKER.sub("", text)).split()).rstrip(STOPS)


def _grouped(sentences: Sequence[Sentence]) -> Iterator[tuple[int, list[int]]]:
    """(passage, indices of its sentences), in order."""
    groups: dict[int, list[int]] = {}
    for index, sentence in enumerate(sentences):
        groups.setdefault(sentence.hit, []).append(index)
    yield from groups.items()


def _missing(code: NamedCode, present: Sequence[NamedCode]) -> bool:
    if any(code.wholes & other.terms for other in present):
        return False
    return code.binding or any(code.anchor and code.anchor == other.anchor for other in present)


def _in_scope(named: Sequence[NamedCode], by_sentence: Sequence[Sequence[NamedCode]]) -> Iterator[bool]:
    """What is above the passage is about all of it, unless a sentence names another."""
    inside = {index: True for index, _ in enumerate(named)}
    for present in by_sentence:
        for index, code in enumerate(named):
            if any(code.wholes & other.terms for other in present):
                inside[index] = True
            elif any(code.rivals(other) for other in present):
                inside[index] = False
        yield all(inside.values())
