"""Reads every file of a folder and says what came of it.

    python -m benchmarks.reading --data DIR
    python -m benchmarks.reading --pdfs FILE...

DIR holds files/, manifest.jsonl, and optionally groundtruth/NAME.md and questions.jsonl. Printed per file: documents or
the reason of refusal, blocks, pages, characters, milliseconds; where there is a reference, how much of its text we have
(recall of its tokens, order left aside), how much of ours it has (precision), and in how far both are in the same order
(LCS over the longer of the two). The reference's Markdown syntax is taken off first. References leave out what their
tool leaves out, such as comments and running heads: recall says what is lost, precision also what they do not have.
Then the means of each format, and the time for PDFs over that of PDFium alone, which gives out the same pages without
any order or structure: CPU time in this process, the least of three runs in turn. `--pdfs` prints that for each file.
Exit status 1 if a file is neither read nor refused with a known reason.
"""

import argparse
import asyncio
import contextlib
import re
import sys
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pypdfium2
from rapidfuzz.distance import LCSseq
from rich.console import Console
from rich.table import Table

from indexing.documents import Document
from indexing.errors import UnreadableDocument
from indexing.readers import REASONS, ReadLimits, parse
from indexing.readers.sandbox.pool import ReaderPool

_MARKUP = re.compile(
    r"<!--.*?-->|!?\[([^\]]*)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)|&(?:amp|lt|gt|quot);|[*_`#|\\$~]+|^\s*[-:| ]+$",
    re.MULTILINE,
)
_TOKEN = re.compile(r"[^\W_]+")
_COLUMNS = ("file", "result", "blocks", "pages", "chars", "ms", "recall", "precision", "order")


class Outcome(msgspec.Struct):
    """What came of one file; `similarity` if it has a reference."""

    path: str
    result: str
    documents: list[Document] = []
    milliseconds: float = 0.0
    similarity: "Similarity | None" = None


class Similarity(NamedTuple):
    """In [0,1]: the share of the tokens of a reference that we have, and of ours that it has, as bags;
    the longest common subsequence over the longer side.
    """

    recall: float
    precision: float
    order: float

    @property
    def f1(self) -> float:
        """The harmonic mean of recall and precision."""
        both = self.recall + self.precision
        return 2 * self.recall * self.precision / both if both else 0.0


def main() -> int:
    """Command line entry point; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path)
    what.add_argument("--pdfs", type=Path, nargs="+", help="only the time of these, beside PDFium's")
    parser.add_argument("--dump", type=Path, help="also write each text there")
    options = parser.parse_args()
    console = Console(width=150 if not sys.stdout.isatty() else None)
    if options.pdfs:
        _print_pdfium(console, options.pdfs, each=True)
        return 0
    outcomes = asyncio.run(_read_all(options.data))
    console.print(_table(outcomes))
    _print_summary(console, outcomes)
    with_text = [one for one in outcomes if one.documents and "pages_by_ocr" not in one.documents[0].metadata]
    _print_pdfium(console, [options.data / one.path for one in with_text if one.path.endswith(".pdf")])
    _print_questions(console, options.data, outcomes)
    if options.dump:
        _dump(options.dump, outcomes)
    return int(any(outcome.result not in ("read", *REASONS) for outcome in outcomes))


async def _read_all(data: Path) -> list[Outcome]:
    outcomes = []
    async with ReaderPool() as pool:
        await pool.read(b"warm up", "start.txt")
        for line in (data / "manifest.jsonl").read_text().splitlines():
            outcomes.append(await _outcome(pool, data, msgspec.json.decode(line)["path"]))
    return outcomes


async def _outcome(pool: ReaderPool, data: Path, path: str) -> Outcome:
    started = time.perf_counter()
    outcome = Outcome(path, "read")
    try:
        parts = await pool.read(data / path, Path(path).name)
        outcome.documents = [part for part in parts if isinstance(part, Document)]
    except UnreadableDocument as refusal:
        outcome.result = refusal.reason
    outcome.milliseconds = 1000 * (time.perf_counter() - started)
    reference = data / "groundtruth" / f"{Path(path).name}.md"
    if reference.exists() and outcome.documents:
        ours = _tokens(" ".join(document.text for document in outcome.documents))
        outcome.similarity = similarity(ours, _tokens(reference.read_text()))
    return outcome


def _tokens(text: str) -> list[str]:
    plain = _MARKUP.sub(lambda match: f" {match[1] or ''} ", unicodedata.normalize("NFKC", text))
    return [token.lower() for token in _TOKEN.findall(plain)]


def similarity(ours: list[str], reference: list[str]) -> Similarity:
    """How alike two lists of tokens are; two empty ones are the same."""
    common = sum((Counter(ours) & Counter(reference)).values())
    recall = common / len(reference) if reference else 1.0
    precision = common / len(ours) if ours else 1.0
    return Similarity(recall, precision, LCSseq.normalized_similarity(ours, reference))


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(*_COLUMNS)
    for outcome in outcomes:
        documents = outcome.documents
        numbers = [
            str(sum(len(document.blocks) for document in documents)),
            str(sum(len(document.pages) for document in documents)),
            str(sum(len(document.text) for document in documents)),
            f"{outcome.milliseconds:.0f}",
            *(f"{share:.3f}" for share in outcome.similarity or ()),
        ]
        table.add_row(outcome.path, outcome.result, *numbers)
    return table


def _print_summary(console: Console, outcomes: list[Outcome]) -> None:
    results = Counter(outcome.result for outcome in outcomes)
    console.print(f"{len(outcomes)} files: " + ", ".join(f"{count} {result}" for result, count in results.items()))
    by_format: defaultdict[str, list[Similarity]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.similarity:
            by_format[Path(outcome.path).suffix].append(outcome.similarity)
            by_format["all"].append(outcome.similarity)
    means = Table("format", "files", "recall", "precision", "F1", "order")
    for name, compared in sorted(by_format.items(), key=lambda item: (item[0] == "all", item[0])):
        columns = zip(*((one.recall, one.precision, one.f1, one.order) for one in compared), strict=True)
        means.add_row(name, str(len(compared)), *(f"{sum(column) / len(compared):.3f}" for column in columns))
    console.print(means)
    slowest = sorted(outcomes, key=lambda outcome: -outcome.milliseconds)[:5]
    console.print("slowest: " + ", ".join(f"{Path(one.path).name} {one.milliseconds:.0f} ms" for one in slowest))


def _print_pdfium(console: Console, paths: Sequence[Path], *, each: bool = False) -> None:
    """Our time for PDFs over that of PDFium alone."""
    total = [0.0, 0.0, 0.0]
    for path in paths:
        measured = _pdf_seconds(path.read_bytes())
        total = [one + other for one, other in zip(total, measured, strict=True)]
        if each:
            console.print(f"{path.name}: {_ratio(*measured)}")
    if paths:
        console.print(f"{len(paths)} PDFs: {_ratio(*total)}")


def _ratio(pages: float, ours: float, alone: float) -> str:
    return (
        f"{pages:.0f} pages, {1000 * ours / pages:.1f} ms of CPU each, "
        f"{ours / alone:.2f} times PDFium's {1000 * alone / pages:.1f}"
    )


def _pdf_seconds(data: bytes) -> tuple[float, float, float]:
    """Pages, our seconds, PDFium's."""
    ours = alone = inf
    for _ in range(3):
        started = time.process_time()
        parse(data, "a.pdf", ReadLimits(ocr="off"))
        halfway = time.process_time()
        with contextlib.closing(pypdfium2.PdfDocument(data)) as pdf:
            pages = len(pdf)
            for page in pdf:
                page.get_textpage().get_text_range()
        ours, alone = min(ours, halfway - started), min(alone, time.process_time() - halfway)
    return pages, ours, alone


def _print_questions(console: Console, data: Path, outcomes: list[Outcome]) -> None:
    """How much of each answer's wording stands on the page that it is said to come from, or a page beside it."""
    if not (data / "questions.jsonl").exists():
        return
    documents = {outcome.path: outcome.documents[0] for outcome in outcomes if outcome.documents}
    shares = []
    for line in (data / "questions.jsonl").read_text().splitlines():
        question = msgspec.json.decode(line)
        if question["file"] in documents and question["pages"]:
            shares.append(_share(question, documents[question["file"]]))
    if shares:
        console.print(
            f"{len(shares)} page questions: {sum(shares) / len(shares):.3f} of the answers' longer words stand on the"
            f" page or next to it; at least half of them for {sum(share >= 0.5 for share in shares)}"
        )


def _share(question: dict[str, Any], document: Document) -> float:
    evidence = question["evidence"] or question["answers"]
    wanted = {token for text in evidence for token in _tokens(str(text)) if len(token) > 4}
    starts = [page.start for page in document.pages] + [len(document.text)]
    nearby = " ".join(
        document.text[starts[max(0, page - 2)] : starts[min(len(starts) - 1, page + 1)]] for page in question["pages"]
    )
    return len(wanted & set(_tokens(nearby))) / max(1, len(wanted))


def _dump(folder: Path, outcomes: list[Outcome]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for outcome in outcomes:
        text = "\n\n".join(f"# {document.title}\n\n{document.text}" for document in outcome.documents)
        (folder / f"{Path(outcome.path).name}.txt").write_text(text or outcome.result)


if __name__ == "__main__":
    sys.exit(main())
