"""The sample documents are read, and hold the answers to the questions that docs/guide.md asks."""

from pathlib import Path

import pytest

import app
from indexing.documents import Document
from indexing.readers import ReadLimits, read
from tests.e2e.sample_questions import SAMPLE_QUESTIONS, SampleQuestion

SAMPLES = Path(app.__file__).parent / "samples"
GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guide.md"


def documents(name: str) -> list[Document]:
    return read((SAMPLES / name).read_bytes(), name, ReadLimits())


@pytest.mark.parametrize("path", sorted(SAMPLES.iterdir()), ids=lambda path: path.name)
def test_every_sample_is_read_and_small(path: Path) -> None:
    """Each file gives documents with a title, and takes no room to speak of."""
    assert all(document.title and document.text for document in documents(path.name))
    assert path.stat().st_size < 20_000


def test_samples_have_headings_pages_tables_and_metadata() -> None:
    """What a newcomer may try is there to be tried: a heading path, a page, a row of a table, a filter."""
    handbook, faq, report = (
        documents(name)[0] for name in ("employee-handbook.md", "support-faq.html", "annual-report-2025.pdf")
    )
    assert {block.level for block in handbook.blocks if block.kind == "heading"} == {1, 2, 3}
    assert any(block.kind == "table_row" for block in faq.blocks)
    assert "Cart (0)" not in faq.text
    assert [page.number for page in report.pages] == [1, 2, 3]
    assert {document.metadata["lang"] for document in documents("products.jsonl")} == {"en", "de", "zh"}


@pytest.mark.parametrize("asked", [asked for asked in SAMPLE_QUESTIONS if asked.source], ids=lambda asked: asked.source)
def test_the_samples_hold_the_answers(asked: SampleQuestion) -> None:
    """The words that answer a question stand in the document that docs/guide.md names."""
    assert any(asked.quote in " ".join(document.text.split()) for document in documents(asked.source))


def test_the_readme_shows_every_question() -> None:
    """Each question stands in the table of docs/guide.md with its source."""
    rows = [line for line in GUIDE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    for asked in SAMPLE_QUESTIONS:
        assert any(asked.question in row and (asked.source or "nowhere") in row for row in rows)
