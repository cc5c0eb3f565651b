"""Whether a sentence is about the thing that a question names by a proper name. Pure.

"Who founded Tessera Instruments?" is not answered by who founded Corvane Instruments. Names are not binding as codes
are, since texts call things by other words too. A sentence is about something else where a rival stands in the name's
place, before or after the same word ("Corvane" for "Tessera", "Saal Mulde" for "Saal Spree", 蓝湾仪器 for 北斗仪器),
and so are those after it, up to one with the name. A name that no passage has at all is nowhere answered.
"""

import difflib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from app.answering.extractive.evidence import Sentence
from app.answering.models import ParsedQuestion
from app.text.languages import detect_language
from app.text.stopwords import function_strings, function_words
from app.text.terms import fold, terms

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_ENDS = re.compile(r"[.?!:;]")
_CJK = "\u3400-\u4dbf\u4e00-\u9fff"
_RUN = re.compile(f"[{_CJK}]+")
_ALIKE = 0.85
"""Similarity of two spellings of one name: "Sunnside", "Sunnyside"."""
_SAME = 4
"""Letters at the beginning of two forms of one name."""
_MOSTLY = 0.25
"""Share of Chinese characters in a text that is Chinese; a table has numbers too."""
_LOCATING = frozenset(("in", "aus", "nach", "bei"))
"""German prepositions behind which a noun without an article is mostly a name."""
_NO_NAMES = frozenset(("bezug", "hinsicht", "zukunft", "kraft", "betrieb", "grad", "prozent", "form", "folge", "summe"))
_LONGEST_NAME = 14
"""Letters of a German word; a longer one is a compound noun."""
_OPENINGS = (
    "自从",
    "列举",
    "据信",
    "专门",
    "说出",
    "针对",
    "根据",
    "关于",
    "对于",
    "除了",
    "为了",
    "通过",
    "不",
    "请",
    "上",
)
"""What a question begins with, and no name does."""
_VERB = re.compile("(?<=..)(?:由|被|将|有(?!限))")
_BOUND = frozenset("的是在了和与及或被把由从对为以有这那其各该所由将向到于之等")


def about_names(question: ParsedQuestion, sentences: Sequence[Sentence], texts: Sequence[str]) -> list[Sentence]:
    """The sentences that are not about a thing of another name; none if no passage has the name.

    `texts` are the passages with what is above them, best first. The sentences of a passage come in order.
    """
    names, run = named(question.text), topic(question.text)
    if not texts or not (names or run):
        return list(sentences)
    if (names and absent(names, texts, question.text)) or (run and unspaced_absent(run, texts)):
        return []
    own = terms(question.text)
    tests: list[Test] = [
        *((partial(_shares, terms(name.word)), partial(rivalled, name, own)) for name in names),
        *([(partial(_covers, run), partial(displaced, run))] if run else []),
    ]
    outside = {at for has, displaces in tests for at in _outside(sentences, has, displaces)}
    if question.answer_type in ("quantity", "time"):
        outside |= {at for at, sentence in enumerate(sentences) if _has_other_subject(names, own, sentence)}
    return [sentence for at, sentence in enumerate(sentences) if at not in outside]


Test = tuple[Callable[[Sentence], bool], Callable[[Sentence], bool]]
"""Whether a sentence has the name, and whether it has another in its place."""


def _outside(
    sentences: Sequence[Sentence], has: Callable[[Sentence], bool], displaces: Callable[[Sentence], bool]
) -> Iterator[int]:
    """The indices of sentences about something else: from one with a rival up to one with the name, in a passage."""
    inside, hit = True, -1
    for at, sentence in enumerate(sentences):
        if sentence.hit != hit or sentence.row is not None:
            inside, hit = True, sentence.hit
        if has(sentence):
            inside = True
        elif displaces(sentence):
            inside = False
        if not inside:
            yield at


class Name(NamedTuple):
    """A word of a name, and its direct neighbours in the question ("" if none): folded, in lower case."""

    word: str
    before: str
    after: str


def named(question: str) -> list[Name]:
    """The words of proper names in a question, as far as its writing shows them; not those that begin a sentence."""
    words = list(_words(question))
    language = detect_language(question)
    german = language == "de"
    return [
        Name(fold(word), *_neighbours(words, at, english=language == "en"))
        for at, (word, _, _) in enumerate(words)
        if at and not _ENDS.search(question, words[at - 1].end, words[at].start) and _is_name(words, at, german=german)
    ]


class _Place(NamedTuple):
    word: str
    start: int
    end: int


def _words(text: str) -> Iterator[_Place]:
    for match in _WORD.finditer(text):
        yield _Place(match[0].removesuffix("'s").removesuffix("’s"), *match.span())


def _is_name(words: Sequence[_Place], at: int, *, german: bool) -> bool:
    word = words[at].word
    # An acronym is often written out in the text.
    if not word[0].isupper() or word.isupper() or len(word) < 3:
        return False
    before = words[at - 1].word
    if not german:
        return True
    can_be = len(word) <= _LONGEST_NAME and fold(word) not in _NO_NAMES
    # "Oxforder Turm" is no name.
    beside = before[0].isupper() and at > 1 and not before.endswith("er")
    return can_be and (fold(before) in _LOCATING or beside)


def _neighbours(words: Sequence[_Place], at: int, *, english: bool) -> tuple[str, str]:
    """In English what a thing is comes last ("Harrow Bridge"); elsewhere it may come first ("Saal Spree")."""

    def neighbour(other: int) -> str:
        if not 0 < other < len(words) or not words[other].word[0].isupper():
            return ""
        gap = words[max(at, other)].start - words[min(at, other)].end
        return fold(words[other].word) if gap == 1 else ""

    return "" if english else neighbour(at - 1), neighbour(at + 1)


def absent(names: Sequence[Name], texts: Sequence[str], question: str) -> bool:
    """Whether one of the names is in no text at all, also not in another spelling.

    Nothing is known where the best text is in another language: Warschau may be Warsaw there.
    """
    missing = [name.word for name in names]
    for text in texts:  # best first: mostly the first one has them all
        present = terms(text)
        missing = [word for word in missing if terms(word).isdisjoint(present)]
        if not missing:
            return False
    if detect_language(texts[0]) != detect_language(question):
        return False
    spellings = sorted({fold(word) for word in {word for text in texts for word in _WORD.findall(text)}})
    return any(not difflib.get_close_matches(word, spellings, n=1, cutoff=_ALIKE) for word in missing)


def _shares(own: frozenset[str], sentence: Sentence) -> bool:
    return not own.isdisjoint(sentence.terms)


def rivalled(name: Name, question: frozenset[str], sentence: Sentence) -> bool:
    """Whether another name stands in its place. `question` has the question's terms."""
    folded_text = fold(sentence.text)
    if not any(anchor and anchor in folded_text for anchor in (name.after, name.before)):
        return False
    words = list(_words(sentence.text))
    for at, (word, _, _) in enumerate(words):
        folded = fold(word)
        if name.after and folded == name.after and at and _is_rival(words, at - 1, at, question):
            return True
        if name.before and folded == name.before and at + 1 < len(words) and _is_rival(words, at + 1, at, question):
            return True
    return False


def _has_other_subject(names: Sequence[Name], question: frozenset[str], sentence: Sentence) -> bool:
    """Whether it begins with a name of two words or more, and has nothing of the one that the question has.

    The answer to "who" may be such a subject; a number or a time is something told of the subject.
    """
    full = [name for name in names if name.before or name.after]
    if not full or sentence.row is not None or any(_shares(terms(name.word), sentence) for name in full):
        return False
    words = list(_words(sentence.text))
    if words and _is_function_word(words[0].word):
        words = words[1:]
    subject = [word for word, _, _ in itertools.takewhile(lambda place: place.word[0].isupper(), words)]
    return len(subject) > 1 and terms(" ".join(subject)).isdisjoint(question)


def _is_function_word(word: str) -> bool:
    return any(fold(word) in function_words()[language] for language in ("en", "de"))


def _is_rival(words: Sequence[_Place], at: int, anchor: int, question: frozenset[str]) -> bool:
    word = words[at].word
    gap = words[max(at, anchor)].start - words[min(at, anchor)].end
    if gap != 1 or not word[0].isupper() or word.isupper() or not terms(word).isdisjoint(question):
        return False
    if any(fold(word)[:_SAME] == term[:_SAME] for term in question):  # Scotland for Scottish
        return False
    return not _is_function_word(word)


def topic(question: str) -> str:
    """The Chinese characters that a Chinese question begins with, up to a function word; "" for any other."""
    folded = fold(question).removeprefix("那")
    for string in function_strings()["zh"]:
        folded = folded.replace(string, " ")
    match = _RUN.match(folded)
    return _VERB.split(match[0])[0] if match and not match[0].startswith(_OPENINGS) else ""


def lacks(run: str, present: frozenset[str]) -> int:
    """How many characters at the beginning of the run, two at least, are in no pair that is present; else 0."""
    pairs = [run[at : at + 2] in present for at in range(len(run) - 1)]
    length = pairs.index(True) if True in pairs else len(run)
    return length if length > 1 else 0


def unspaced_absent(run: str, texts: Sequence[str]) -> bool:
    """Whether nothing of the run is in any text; nothing is known of texts in another script."""
    if len("".join(_RUN.findall(texts[0]))) < _MOSTLY * len(texts[0]):
        return False
    return lacks(run, frozenset[str]().union(*map(terms, texts))) == len(run)


def _covers(run: str, sentence: Sentence) -> bool:
    return not lacks(run, sentence.terms)


def displaced(run: str, sentence: Sentence) -> bool:
    """Whether a clause begins with other characters before the same word: 蓝湾仪器 for 北斗仪器."""
    missing = lacks(run, sentence.terms)
    anchor = run[missing : missing + 2]
    if not 1 < missing < 4 or len(anchor) < 2:
        return False
    clause = re.compile(rf"(?:^|[。，；：！？])([{_CJK}]{{2,4}}){re.escape(anchor)}")
    return any(not _BOUND & set(match[1]) for match in clause.finditer(sentence.text))
