"""How long indexing takes."""

import pytest

from app.services.document_validation import SubmittedFile, failed
from app.services.indexing_time import START_PASSAGES_PER_S, IndexingTime, expected_passages
from indexing.documents import EVERYTHING, Document
from indexing.pipeline.ingest import SubmittedDocument


def document(text: str) -> SubmittedDocument:
    return SubmittedDocument(writer=EVERYTHING, document=Document(text=text))


@pytest.mark.parametrize(
    ("text", "tokens_per_character"), [("word ", 0.25), ("слово ", 0.6), ("茶壶保修多久", 1.05), ("word 茶", 0.38)]
)
def test_tokens_are_estimated_by_script(text: str, tokens_per_character: float) -> None:
    """A passage has about 144; Chinese text has a token in every character, English one in four."""
    characters = 100_000
    expected = characters * tokens_per_character / 144
    assert expected_passages(document(text * (characters // len(text)))) == pytest.approx(expected, rel=0.1)


def test_a_short_document_is_one_passage() -> None:
    """However short; one that failed already is none."""
    assert expected_passages(document("")) == 1
    assert expected_passages(failed("invalid", "it is")) == 0


def test_a_file_of_text_is_estimated_before_it_is_read() -> None:
    """By its size; a packed one may hold anything."""
    data = b"x" * 576_000
    assert expected_passages(SubmittedFile(writer=EVERYTHING, name="a.TXT", data=data)) == 1000
    for name in ("a.PDF", "a.msg", "a.odp", "a.docm", "a.txz", "a.webp"):
        assert expected_passages(SubmittedFile(writer=EVERYTHING, name=name, data=data)) == 0


def test_the_time_follows_the_measured_rate() -> None:
    """From an assumption at first, and soon from what was measured."""
    time, text = IndexingTime(), document("x" * 576 * 200)
    assert time.estimate([text]) == pytest.approx(200 / START_PASSAGES_PER_S)
    for _ in range(100):
        time.add(64, 0.64)
    assert time.estimate([text, text]) == pytest.approx(4, rel=0.1)
    for _ in range(200):
        time.add(64, 6.4)
    assert time.passages_per_s == pytest.approx(10, rel=0.1)


def test_one_slow_passage_hardly_counts() -> None:
    """One that had to wait for another writer does not make every upload a job."""
    time = IndexingTime()
    time.add(1, 2.0)
    assert time.passages_per_s > START_PASSAGES_PER_S / 2
    time.add(0, 5.0)
    assert time.passages_per_s > START_PASSAGES_PER_S / 2


def test_reading_files_takes_time_too() -> None:
    """A hundred megabytes of PDF are no matter of three seconds."""
    assert IndexingTime().estimate([SubmittedFile(writer=EVERYTHING, name="a.pdf", data=b"x" * 20_000_000)]) > 3
