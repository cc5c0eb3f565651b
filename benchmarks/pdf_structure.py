"""What the structure of PDFs is worth for finding the right page: what is read, changed one thing at a time.

    python -m benchmarks.pdf_structure --data DIR [--dense] [--documents N]

DIR is a checkout of FinanceBench (data/financebench_open_source.jsonl, pdfs/) or of MMLongBench-Doc (data/samples.json,
data/documents/), whose questions name the pages that answer them. Each question is asked of its own document, by words
alone or, with `--dense`, by words and vectors; found are the first five passages, after the service's own ranking.

as read        the reader's result
no path        its headings cut, and are in the text, but stand before no passage
no cut         its headings stand before the passages, and are in the text, but cut nothing
paragraphs     its headings are paragraphs
outline        paragraphs, but headings where the PDF's own outline (bookmarks) names them
plain          PDFium's text, a page after the other, without any structure

exact: one of the passages touches a right page; within 1: it begins on one or next to one. The interval is that of the
difference in exact pages to the first row, 95 %, over paired resamples of the questions.
"""

import argparse
import ast
import contextlib
import json
import math
import os
import random
import sys
import tempfile
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pypdfium2

from app.config.validation import load_settings
from indexing.chunking.chunker import ChunkOptions, chunk, embedding_text
from indexing.documents import Block, Candidate, Chunk, Document, PageStart, Passage
from indexing.embedding.calibration import dense_unit
from indexing.embedding.loading import load_embedder
from indexing.embedding.model import Embedder
from indexing.errors import UnreadableDocument
from indexing.readers import ReadLimits, read
from indexing.retrieval.bm25 import Lexical
from indexing.retrieval.fusion import fuse, score_sparse, sparse_bound, spread_pages
from indexing.store.base import Retrieved, SparseVector

TOP = 5
SIDE = 100  # passages that each side finds, as of a search
RESAMPLES = 10_000
READABLE = frozenset({"Pure-text (Plain-text)", "Table"})

Cut = Callable[[Document], list[Chunk]]


class Question(msgspec.Struct, frozen=True):
    """`pages` that answer it, from 1."""

    text: str
    pages: frozenset[int]


class Found(msgspec.Struct, frozen=True):
    """Whether a question found its page."""

    exact: bool
    near: bool


def main() -> int:
    """Read, cut, ask, compare."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dense", action="store_true", help="by vectors too, which takes a few hundredths a passage")
    parser.add_argument("--documents", type=int, default=None, help="only the first so many")
    options = parser.parse_args()
    questions = questions_of(options.data)
    settings = load_settings({**os.environ, "WINNOW_HOME": tempfile.gettempdir()}, Path.cwd())
    embedder = load_embedder(settings.embedding)
    unit = dense_unit(embedder) if options.dense else None
    found: defaultdict[str, defaultdict[str, list[Found]]] = defaultdict(lambda: defaultdict(list))
    passages: Counter[str] = Counter()
    headings: Counter[str] = Counter()
    for number, (path, asked) in enumerate(islice(questions.items(), options.documents), 1):
        index = Index(embedder, unit)
        try:
            versions = list(ways(path, index.cut))
        except UnreadableDocument as exc:
            print(f"{path.name} is not read: {exc.reason}", file=sys.stderr)
            continue
        for way, document, chunks in versions:
            passages[way] += len(chunks)
            headings[way] += sum(block.kind == "heading" for block in document.blocks)
            for mode, results in index.ask(document.title, chunks, asked):
                found[mode][way] += results
        print(f"{number} of {len(questions)}: {path.name}", file=sys.stderr, flush=True)
    for mode, results_by_way in found.items():
        for line in report(mode, results_by_way, passages, headings):
            print(line)
    return 0


def questions_of(data: Path) -> dict[Path, list[Question]]:
    """The questions about each file that is there. Of MMLongBench-Doc those whose answer is text or in a table."""
    asked: defaultdict[Path, list[Question]] = defaultdict(list)
    if (data / "data" / "samples.json").exists():
        for one in json.loads((data / "data" / "samples.json").read_text(encoding="utf-8")):
            pages, kinds = ast.literal_eval(one["evidence_pages"]), set(ast.literal_eval(one["evidence_sources"]))
            if pages and kinds and kinds <= READABLE:
                question = Question(one["question"], frozenset(pages))
                asked[data / "data" / "documents" / one["doc_id"]].append(question)
    else:
        lines = (data / "data" / "financebench_open_source.jsonl").read_text(encoding="utf-8").splitlines()
        for one in map(json.loads, lines):
            pages = frozenset(evidence["evidence_page_num"] + 1 for evidence in one["evidence"])
            asked[data / "pdfs" / f"{one['doc_name']}.pdf"].append(Question(one["question"], pages))
    return {path: asked[path] for path in sorted(asked) if path.exists()}


def ways(path: Path, cut: Cut) -> Iterator[tuple[str, Document, list[Chunk]]]:
    """The document in each way, and its passages."""
    data = path.read_bytes()
    (document,) = (part for part in read(data, path.name, ReadLimits(ocr="off")) if isinstance(part, Document))
    chunks = cut(document)
    flat = with_headings(document, {})
    flat_chunks = cut(flat)
    with contextlib.closing(pypdfium2.PdfDocument(data)) as pdf:
        named = with_headings(flat, outline(pdf, document))
        unordered = plain(pdf, document.title)
    yield "as read", document, chunks
    yield "no path", document, [msgspec.structs.replace(one, heading=()) for one in chunks]
    yield "no cut", document, list(under_headings(flat_chunks, document))
    yield "paragraphs", flat, flat_chunks
    yield "outline", named, flat_chunks if named == flat else cut(named)
    yield "plain", unordered, cut(unordered)


def under_headings(chunks: Sequence[Chunk], document: Document) -> Iterator[Chunk]:
    """The chunks with the headings of the document above each."""
    headings = deque(block for block in document.blocks if block.kind == "heading")
    above: list[Block] = []
    for one in chunks:
        while headings and headings[0].start <= one.start:
            above = [block for block in above if block.level < headings[0].level] + [headings.popleft()]
        path = tuple(" ".join(document.text[block.start : block.end].split()) for block in above)
        yield msgspec.structs.replace(one, heading=path)


def with_headings(document: Document, levels: Mapping[int, int]) -> Document:
    """The document with these blocks as headings, by the places where they begin, and no others."""
    blocks = (
        Block("heading", block.start, block.end, level=levels[block.start])
        if block.start in levels
        else msgspec.structs.replace(block, kind="paragraph", level=0)
        if block.kind == "heading"
        else block
        for block in document.blocks
    )
    return msgspec.structs.replace(document, blocks=tuple(blocks))


def outline(pdf: Any, document: Document) -> dict[int, int]:
    """Where the blocks begin that the outline names on their pages, and their levels."""
    named = {
        (bookmark.get_dest().get_index() + 1, _letters(bookmark.get_title())): min(6, bookmark.level + 1)
        for bookmark in pdf.get_toc()
        if bookmark.get_dest() is not None and bookmark.get_dest().get_index() is not None
    }
    starts = [*(page.start for page in document.pages), len(document.text)]
    found = {}
    for page, begin, end in zip(document.pages, starts, starts[1:], strict=False):
        for block in document.blocks:
            if begin <= block.start < end:
                level = named.get((page.number, _letters(document.text[block.start : block.end])))
                if level:
                    found[block.start] = level
    return found


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def plain(pdf: Any, title: str) -> Document:
    """PDFium's own text."""
    text, pages = "", []
    for number, page in enumerate(pdf, 1):
        pages.append(PageStart(len(text), number))
        text += page.get_textpage().get_text_range().replace("\r\n", "\n").replace("\ufffe", "") + "\n\n"
    return Document(text=text, title=title, pages=tuple(pages))


class Index:
    """Passages of one document, searched as the service searches."""

    def __init__(self, embedder: Embedder, unit: float | None) -> None:
        """`unit` is the embedder's `dense_unit`; None: vectors are left out."""
        self._embedder = embedder
        self._unit = unit
        self._lexical = Lexical()
        self._options = ChunkOptions(max_tokens=embedder.max_tokens)
        self._known: dict[str, Any] = {}
        self._text, self._tokens = "", list[tuple[int, int]]()
        self._terms = cache(self._lexical.document)  # most passages are the same in several ways

    def cut(self, document: Document) -> list[Chunk]:
        """As for the index."""
        if document.text != self._text:
            self._text, self._tokens = document.text, self._embedder.token_spans(document.text)
        known, tokens = self._text, self._tokens
        return chunk(
            document, lambda text: tokens if text is known else self._embedder.token_spans(text), self._options
        )

    def ask(
        self, title: str, chunks: Sequence[Chunk], questions: Sequence[Question]
    ) -> Iterator[tuple[str, list[Found]]]:
        """Each question of the document of this title alone, in each mode."""
        texts = [embedding_text(title, one) for one in chunks]
        passages = [passage(one) for one in chunks]
        postings = Postings([self._terms(text) for text in texts])
        sides, bounds = [], []
        for question in questions:
            query = self._lexical.query(question.text)
            sides.append(best(passages, postings.scores(query)))
            bounds.append(sparse_bound(sum(query.values) if query else 0.0, len(chunks)))
        ranked = [score_sparse(side, bound) for side, bound in zip(sides, bounds, strict=True)]
        yield "words", [judged(*pair) for pair in zip(questions, ranked, strict=True)]
        if self._unit is None:
            return
        vectors = self._vectors(texts)
        wanted = self._embedder.embed_queries([question.text for question in questions])
        fused = []
        for side, bound, vector in zip(sides, bounds, wanted, strict=True):
            both = Retrieved(dense=best(passages, vectors @ vector, least=-2.0), sparse=side)
            fused.append(fuse(both, dense_unit=self._unit, bound=bound, sparse_cut=len(side) == SIDE))
        yield "words and vectors", [judged(*pair) for pair in zip(questions, fused, strict=True)]

    def _vectors(self, texts: Sequence[str]) -> Any:
        """A row for each text."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(new, self._embedder.embed_documents(new) if new else (), strict=True))
        return numpy.array([self._known[text] for text in texts])


class Postings:
    """BM25 of passages, with the idf of these alone (as of Qdrant's modifier)."""

    def __init__(self, vectors: Sequence[SparseVector | None]) -> None:
        self._count = len(vectors)
        self._postings: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
        for number, vector in enumerate(vectors):
            for index, value in zip(vector.indices, vector.values, strict=True) if vector else ():
                self._postings[index].append((number, value))

    def scores(self, query: SparseVector | None) -> Any:
        """For each passage."""
        scores = numpy.zeros(self._count)
        for index, weight in zip(query.indices, query.values, strict=True) if query else ():
            postings = self._postings.get(index, [])
            idf = math.log1p((self._count - len(postings) + 0.5) / (len(postings) + 0.5))
            for number, value in postings:
                scores[number] += weight * value * idf
        return scores


def passage(one: Chunk) -> Passage:
    """What ranking looks at; its id keeps the order of the document."""
    return Passage(
        id=f"{one.ordinal:06}",
        document_id="d",
        version="",
        ordinal=one.ordinal,
        start=one.start,
        end=one.end,
        text=one.text,
        page=one.page,
        later_pages=one.later_pages,
        heading=one.heading,
    )


def best(passages: Sequence[Passage], scores: Any, least: float = 0.0) -> list[Candidate]:
    """Those with the highest scores, ties by id."""
    order = sorted(range(len(passages)), key=lambda number: (-scores[number], passages[number].id))[:SIDE]
    return [Candidate(passages[number], float(scores[number])) for number in order if scores[number] > least]


def judged(question: Question, ranked: Sequence[Candidate]) -> Found:
    """What the first passages are to the question."""
    first = [candidate.passage for candidate in spread_pages(ranked)[:TOP]]
    touched = {page for one in first for page in (one.page, *(later.number for later in one.later_pages))}
    near = {page + step for page in question.pages for step in (-1, 0, 1)}
    return Found(bool(touched & question.pages), any(one.page in near for one in first))


def report(
    mode: str, found: Mapping[str, Sequence[Found]], passages: Mapping[str, int], headings: Mapping[str, int]
) -> Iterator[str]:
    """A line for each way."""
    first = next(iter(found))
    count = len(found[first])
    yield f"{count} questions by {mode}; of each {TOP} passages"
    yield f"{'':12}{'headings':>9}{'passages':>9}{'exact':>7}{'within 1':>9}   exact, difference to the first"
    for way, results in found.items():
        differences = [one.exact - other.exact for one, other in zip(results, found[first], strict=True)]
        low, high = interval(differences)
        yield (
            f"{way:12}{headings[way]:9}{passages[way]:9}{sum(one.exact for one in results):7}"
            f"{sum(one.near for one in results):9}   {100 * sum(differences) / count:+.1f} points"
            f" [{100 * low:+.1f}, {100 * high:+.1f}]; {differences.count(1)} won, {differences.count(-1)} lost"
        )


def interval(differences: Sequence[int]) -> tuple[float, float]:
    """Of their mean, 95 %, by the bootstrap (Efron, 1979)."""
    dice = random.Random(1)
    count = len(differences)
    means = sorted(sum(dice.choices(differences, k=count)) / count for _ in range(RESAMPLES))
    return means[RESAMPLES // 40], means[-RESAMPLES // 40]


if __name__ == "__main__":
    sys.exit(main())
