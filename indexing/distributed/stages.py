"""What each machine of a cluster does: files to documents, documents to points. Knows nothing of Ray.

    Task     -> FileReader ->  Pieces of the file's documents  ->  Cutter ->  CutPieces, with points
    a file                     the last one ends the file                    the last one ends the file

The stages are called with batches as Ray Data has them: a column of objects, by its name.
"""

import asyncio
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexing.documents import Refused
from indexing.embedding.loading import load_embedder
from indexing.errors import UnreadableDocument
from indexing.pipeline.manifest import SourceRecord
from indexing.pipeline.read_stage import Content, Found, Versions, contents
from indexing.pipeline.write_stage import WINDOW, Prepared, points_of, prepare
from indexing.readers.limits import ReadLimits
from indexing.readers.sandbox.pool import ReaderPool
from indexing.retrieval.bm25 import Lexical
from indexing.settings import EmbeddingSettings

COLUMN = "item"
"""The only column of every batch."""

Batch = dict[str, NDArray[np.object_]]

_PIECE_CHARACTERS = 25_000
"""Of the documents that travel together: some 30 passages."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A file to read. `earlier` are the documents that are indexed of it: id -> version."""

    source: SourceRecord
    earlier: Versions


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the new and changed documents of a file, each with its share of the file's bytes, and what of the file
    could not be read, and warnings.

    The last one of a file has the ids that it no longer has, or the `error` for which no more of it can be read.
    """

    source: SourceRecord
    changed: Sequence[tuple[Found, float]] = ()
    last: bool = False
    removed: Sequence[str] = ()
    refused: Sequence[Refused] = ()
    warnings: Sequence[str] = ()
    error: tuple[str, str] | None = None


class CutPiece(msgspec.Struct, frozen=True, kw_only=True):
    """A piece whose documents have become points."""

    piece: Piece
    found: Sequence[Found]


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

    def _pieces(self, task: Task) -> Iterator[Piece]:
        """As they are read, but for an end without documents, which goes with the piece before."""
        held: Piece | None = None
        for piece in self._read(task):
            if held is not None and (piece.changed or piece.error is not None):
                yield held
            elif held is not None:
                refused, warnings = [*held.refused, *piece.refused], [*held.warnings, *piece.warnings]
                piece = msgspec.structs.replace(piece, changed=held.changed, refused=refused, warnings=warnings)
            held = piece
        if held is not None:
            yield held

    def _read(self, task: Task) -> Iterator[Piece]:
        """While the file is read: of a large one only some megabytes are here at a time."""
        source = task.source
        read = contents(self._pool, source, task.earlier)
        size = 0
        try:
            while (content := self._loop.run_until_complete(anext(read, None))) is not None:
                size += content.size or 0
                yield from _divided(source, content, size)
                size = 0 if content.found else size
        except UnreadableDocument as exc:
            yield Piece(source=source, last=True, error=(exc.reason, exc.detail))
        finally:
            self._loop.run_until_complete(read.aclose())


class Cutter:
    """Pieces to points, by an embedding model of its own. One for each worker."""

    def __init__(self, settings: EmbeddingSettings) -> None:
        self._embedder = load_embedder(settings)
        self._lexical = Lexical()

    def __call__(self, batch: Batch) -> Batch:
        pieces: list[Piece] = list(batch[COLUMN])
        cut = [self._cut(found, weight) for piece in pieces for found, weight in piece.changed]
        made = iter(self._with_points(cut))
        return column(
            [
                CutPiece(
                    piece=msgspec.structs.replace(piece, changed=()),
                    found=[
                        msgspec.structs.replace(found, document=None, prepared=next(made)) for found, _ in piece.changed
                    ],
                )
                for piece in pieces
            ]
        )

    def _cut(self, found: Found, weight: float) -> Prepared:
        assert found.document is not None  # noqa: S101 - as it was read
        return prepare(found.document, found.record, self._embedder, weight)

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


def _divided(source: SourceRecord, content: Content, size: int) -> Iterator[Piece]:
    """What was read at once, of `size` bytes, as pieces that travel; the last of them has all but the documents."""
    lengths = [len(found.document.text) if found.document else 0 for found in content.found]
    each = size / max(1, sum(lengths))
    weighed = [(found, each * length) for found, length in zip(content.found, lengths, strict=True)]
    begin = characters = 0
    for place, length in enumerate(lengths):
        characters += length
        if characters >= _PIECE_CHARACTERS:
            yield Piece(source=source, changed=weighed[begin : place + 1])
            begin, characters = place + 1, 0
    yield Piece(
        source=source,
        changed=weighed[begin:],
        last=not content.more,
        removed=content.removed,
        refused=content.refused,
        warnings=content.warnings,
    )
