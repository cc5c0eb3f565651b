"""What each machine of a cluster does: files to documents, documents to points. Knows nothing of Ray.

    Task     -> FileReader ->  Pieces of the file's documents  ->  Cutter ->  CutPieces, with points
    a file                     the last one ends the file                    the last one ends the file

The stages are called with batches as Ray Data has them: a column of objects, by its name.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexing.documents import Document, Refused
from indexing.embedding.loading import load_embedder
from indexing.errors import UnreadableDocument
from indexing.pipeline.manifest import DocumentRecord, SourceRecord
from indexing.pipeline.planning import own_id
from indexing.pipeline.read_stage import Versions, compare, read_source
from indexing.pipeline.write_stage import WINDOW, Prepared, points_of, prepare
from indexing.readers.limits import ReadLimits
from indexing.readers.sandbox.pool import ReaderPool
from indexing.retrieval.bm25 import Lexical
from indexing.settings import EmbeddingSettings

COLUMN = "item"
"""The only column of every batch."""

Batch = dict[str, NDArray[np.object_]]

_PIECE_CHARACTERS = 200_000
"""Of the documents that travel together: some 250 passages."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A file to read. `earlier` are the documents that are indexed of it: id -> version."""

    source: SourceRecord
    earlier: Versions


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the new and changed documents of a file, each with its share of the file's bytes.

    The last one has what is known once the file was read: the ids that it no longer has, what of it could not be read,
    warnings, and `error` if all of it could not.
    """

    source: SourceRecord
    changed: Sequence[tuple[Document, DocumentRecord, float]] = ()
    last: bool = False
    removed: Sequence[str] = ()
    refused: Sequence[Refused] = ()
    warnings: Sequence[str] = ()
    error: tuple[str, str] | None = None


class CutPiece(msgspec.Struct, frozen=True, kw_only=True):
    """A piece whose documents have become points. With each whether its id came with it."""

    piece: Piece
    prepared: Sequence[tuple[Prepared, bool]]


def column(items: Sequence[object]) -> Batch:
    """A batch of these."""
    values = np.empty(len(items), dtype=object)
    values[:] = items
    return {COLUMN: values}


class FileReader:
    """Files to pieces, by a reader in a process of its own. One for each worker."""

    def __init__(self, limits: ReadLimits) -> None:
        self._loop = asyncio.new_event_loop()
        self._pool = ReaderPool(limits)

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        for task in batch[COLUMN]:
            for piece in self._pieces(task):
                yield column([piece])

    async def _read(self, source: SourceRecord) -> list[Document | Refused]:
        parts: list[Document | Refused] = []
        async with aclosing(read_source(self._pool, source)) as pieces:
            async for piece in pieces:
                parts += [*piece.documents, *piece.refused]
        return parts

    def _pieces(self, task: Task) -> Iterator[Piece]:
        source = task.source
        try:
            parts = self._loop.run_until_complete(self._read(source))
        except UnreadableDocument as exc:
            yield Piece(source=source, last=True, error=(exc.reason, exc.detail))
            return
        documents = [part for part in parts if isinstance(part, Document)]
        changed, ids = compare(source, documents, task.earlier)
        each = source.bytes / max(1, sum(len(document.text) for document, _ in changed))
        begin = size = 0
        for place, (document, _) in enumerate(changed):
            size += len(document.text)
            if size >= _PIECE_CHARACTERS:
                yield Piece(source=source, changed=_weighed(changed[begin : place + 1], each))
                begin, size = place + 1, 0
        yield Piece(
            source=source,
            changed=_weighed(changed[begin:], each),
            last=True,
            removed=[document_id for document_id in task.earlier if document_id not in ids],
            refused=[part for part in parts if isinstance(part, Refused)],
            warnings=[*dict.fromkeys(warning for document in documents for warning in document.warnings)],
        )


class Cutter:
    """Pieces to points, by an embedding model of its own. One for each worker."""

    def __init__(self, settings: EmbeddingSettings) -> None:
        self._embedder = load_embedder(settings)
        self._lexical = Lexical()

    def __call__(self, batch: Batch) -> Batch:
        pieces: list[Piece] = list(batch[COLUMN])
        cut = [
            [(prepare(document, record, self._embedder, weight), own_id(document)) for document, record, weight in one]
            for one in (piece.changed for piece in pieces)
        ]
        made = iter(self._with_points([prepared for one in cut for prepared, _ in one]))
        return column(
            [
                CutPiece(
                    piece=msgspec.structs.replace(piece, changed=()),
                    prepared=[(next(made), bool(own)) for _, own in one],
                )
                for piece, one in zip(pieces, cut, strict=True)
            ]
        )

    def _with_points(self, documents: Sequence[Prepared]) -> list[Prepared]:
        """Embedded together, in windows as on one machine."""
        pairs = [pair for one in documents for pair in zip(one.passages, one.texts, strict=True)]
        points = []
        for start in range(0, len(pairs), WINDOW):
            window = pairs[start : start + WINDOW]
            vectors = self._embedder.embed_documents([text for _, text in window], "bulk")
            points += points_of(window, vectors, self._lexical)
        rest = iter(points)
        return [msgspec.structs.replace(one, texts=[], points=[next(rest) for _ in one.passages]) for one in documents]


def _weighed(
    changed: Sequence[tuple[Document, DocumentRecord]], each: float
) -> list[tuple[Document, DocumentRecord, float]]:
    return [(document, record, each * len(document.text)) for document, record in changed]
