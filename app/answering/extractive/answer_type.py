"""Whether a sentence holds the kind of thing that a question asks for. Pure."""

import re

from app.answering.questions import Reading
from app.text.terms import fold

_NUMBER_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand million "
    "billion half third percent zwei drei vier funf sechs sieben acht neun zehn elf zwolf hundert tausend deux trois "
    "quatre cinq sept huit neuf dix cent mille dos tres cuatro cinco seis siete ocho nueve diez cien"
)
_TIME_WORDS = (
    "jan feb mar apr may mai jun jul aug sep oct okt nov dec dez ene centur jahrhundert siecle siglo secol decade year "
    "jahr day tag week woche month monat"
)
_NUMBER = re.compile(rf"\d+(?:[.,]\d+)*|\b(?:{_NUMBER_WORDS.replace(' ', '|')})\b|[一二两三四五六七八九十百千万亿]+")
_TIME = re.compile(
    rf"\b(?:1\d{{3}}|20\d\d)\b|\b\d+(?:st|nd|rd|th)\b|\b(?:{_TIME_WORDS.replace(' ', '|')})|\d*[年月日]|世纪"
)
_NAME = re.compile(r"(?<=[^.!?\s] )[^\W\d_a-zß-öø-ÿ][\w'’-]+")


def shape_clue(question: Reading, sentence: str) -> float:
    """1: holds such a thing, and not from the question itself. -1: does not. 0: any kind of thing will do."""
    if question.answer_type is None:
        return 0.0
    if question.answer_type == "name":
        found, known = _NAME.findall(sentence), question.text
    else:
        pattern = _TIME if question.answer_type == "time" else _NUMBER
        found, known = pattern.findall(fold(sentence)), fold(question.text)
    return 1.0 if any(piece not in known for piece in found) else -1.0
