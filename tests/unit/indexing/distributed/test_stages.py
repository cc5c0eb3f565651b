"""What a worker of a cluster does, without a cluster."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from indexing.distributed import stages
from indexing.distributed.cluster import ClusterFailed, RayReading
from indexing.distributed.stages import COLUMN, CutPiece, Cutter, FileReader, Piece, Task, column
from indexing.documents import document_key
from indexing.pipeline.manifest import SourceRecord
from indexing.readers.limits import ReadLimits
from indexing.settings import EmbeddingSettings
from tests.fakes.embedder import HashEmbedder


def task(path: Path, **earlier: str) -> Task:
    size = path.stat().st_size if path.exists() else 0
    source = SourceRecord(path=document_key("", str(path)), name=path.name, hash="h", bytes=size)
    return Task(source=source, earlier=earlier)


def read(*tasks: Task) -> list[Piece]:
    return [piece for batch in FileReader(ReadLimits())(column(tasks)) for piece in batch[COLUMN]]


def test_a_large_file_travels_in_pieces_and_the_last_one_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever embeds never has all of its documents at once; nothing is lost or repeated, and the weights add up."""
    monkeypatch.setattr(stages, "_PIECE_CHARACTERS", 100)
    file = tmp_path / "rows.jsonl"
    file.write_text(
        "".join(f'{{"id": "r{n}", "text": "Row {n} of the book, with some more words."}}\n' for n in range(9))
    )
    pieces = read(task(file, gone="v1"))
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert len(pieces) >= 3
    changed = [one for piece in pieces for one in piece.changed]
    assert [found.record.document_id for found, _ in changed] == [f"r{n}" for n in range(9)]
    assert sum(weight for _, weight in changed) == pytest.approx(file.stat().st_size)
    assert pieces[-1].removed == ["gone"]


def test_what_is_indexed_already_does_not_travel(tmp_path: Path) -> None:
    """The documents whose version is known are neither handed on nor counted as gone."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "a", "text": "One."}\n{"id": "b", "text": "Two."}\n')
    versions = {found.record.id: found.record.version for piece in read(task(file)) for found, _ in piece.changed}
    assert len(versions) == 2
    again = read(task(file, **versions))
    assert [one for piece in again for one in (*piece.changed, *piece.removed)] == []
    assert again[-1].last


def test_a_file_that_cannot_be_read_is_one_piece_with_its_reason(tmp_path: Path) -> None:
    """The worker goes on with the next file."""
    (tmp_path / "good.txt").write_text("A good one.")
    pieces = read(task(tmp_path / "missing.txt"), task(tmp_path / "good.txt"))
    assert [(piece.source.name, piece.error and piece.error[0]) for piece in pieces] == [
        ("missing.txt", "not_found"),
        ("good.txt", None),
    ]


def test_documents_of_many_files_are_embedded_together_and_keep_their_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call of the model for all; each passage has the vectors of its own text."""
    embedder = HashEmbedder()
    monkeypatch.setattr(stages, "load_embedder", lambda _: embedder)
    for name in ("apple", "birch"):
        (tmp_path / f"{name}.txt").write_text(f"The {name} stands in the garden.")
    pieces = read(task(tmp_path / "apple.txt"), task(tmp_path / "missing.txt"), task(tmp_path / "birch.txt"))
    cut: list[CutPiece] = list(Cutter(EmbeddingSettings())(column(pieces))[COLUMN])
    assert embedder.document_calls == 1
    assert [len(one.found) for one in cut] == [1, 0, 1]
    for one in (cut[0], cut[2]):
        [found] = one.found
        prepared = found.prepared
        assert (found.own, found.document) == (False, None)
        assert prepared is not None
        assert prepared.points is not None
        [point] = prepared.points
        assert point.passage == prepared.passages[0]
        assert point.sparse is not None
        text = f"{prepared.record.title}\n{point.passage.text}" if prepared.record.title else point.passage.text
        nearest = max(("apple", "birch"), key=lambda word: float(point.dense @ embedder.embed_queries([word])[0]))
        assert nearest in text
        assert np.linalg.norm(point.dense) == pytest.approx(1)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_error_names_the_extra() -> None:
    """Before anything is read."""
    with pytest.raises(ClusterFailed, match=r"winnow\[distributed\]"):
        RayReading("auto", ReadLimits(), EmbeddingSettings())
