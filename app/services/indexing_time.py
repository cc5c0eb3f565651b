"""How long indexing takes: the passages that are expected, over the rate that was measured."""

from collections.abc import Iterable

from app.services.document_validation import Submission, SubmittedFile
from indexing.chunking.chunker import ChunkOptions
from indexing.pipeline.ingest import SubmittedDocument
from indexing.readers.registry import by_extension

START_PASSAGES_PER_S = 20.0
"""Assumed before anything is measured: all-MiniLM-L6-v2 on two cores that also serve."""

_START_PASSAGES = 100.0
"""How many measured passages count as much as the assumption."""
_MEMORY_PASSAGES = 2000.0
"""Older measurements are forgotten by and by, as the machine may be busier or quieter than it was."""

_READ_BYTES_PER_S = 2_000_000
_READ_FILES_PER_S = 20


def expected_passages(submission: Submission) -> float:
    """How many passages it will have, roughly. The size of a packed file says nothing before it has been read: 0."""
    if isinstance(submission, SubmittedDocument):
        text = submission.document.text
        return _passages(len(text), len(text.encode("utf-8", "replace")))
    if isinstance(submission, SubmittedFile):
        format = by_extension(submission.name)
        if format is None or not format.container:
            return _passages(submission.size, submission.size)
    return 0.0


def _passages(characters: int, utf8_bytes: int) -> float:
    # Four ASCII characters make a token; a Chinese one (3 bytes) is one, a Cyrillic or Arabic one (2) about 2/3.
    tokens = characters / 4 + (utf8_bytes - characters) * 0.4
    return max(1.0, tokens / ChunkOptions().target)


class IndexingTime:
    """Estimates from the passages that were indexed so far and the seconds that they took."""

    def __init__(self) -> None:
        self._passages = _START_PASSAGES
        self._seconds = _START_PASSAGES / START_PASSAGES_PER_S
        self.measured = False
        """Whether anything has been measured yet."""

    @property
    def passages_per_s(self) -> float:
        """The measured rate, or what is assumed before."""
        return self._passages / self._seconds

    def add(self, passages: int, seconds: float) -> None:
        """Count passages that were indexed, and how long that took."""
        if passages == 0:
            return
        kept = min(1.0, max(0.0, 1 - passages / _MEMORY_PASSAGES))
        self._passages = self._passages * kept + passages
        self._seconds = self._seconds * kept + max(seconds, 1e-6)
        self.measured = True

    def estimate(self, submissions: Iterable[Submission]) -> float:
        """Seconds until all of them can be searched."""
        passages, reading = 0.0, 0.0
        for submission in submissions:
            passages += expected_passages(submission)
            if isinstance(submission, SubmittedFile):
                reading += submission.size / _READ_BYTES_PER_S + 1 / _READ_FILES_PER_S
        return passages / self.passages_per_s + reading
