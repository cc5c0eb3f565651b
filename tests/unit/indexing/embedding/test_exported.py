import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from indexing.embedding.export import NotExportable, check
from indexing.embedding.exported import (
    EXPORT,
    TOKENIZER,
    ExportDamaged,
    ExportedEmbedder,
    calls_of,
    has_bfloat16,
    read_export,
)
from indexing.embedding.lanes import NICENESS
from indexing.embedding.loading import load_embedder
from indexing.embedding.sentence_transformer import SentenceTransformerEmbedder
from indexing.settings import EmbeddingSettings
from tests.fakes.embedder import HashEmbedder

pytest.importorskip("openvino", reason="OpenVINO has no wheel for this processor")
pytestmark = [pytest.mark.numeric, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[4]
EXPORTS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "winnow" / "models"
"""As of every service of this user: an export takes a quarter of a minute, and all tests share it."""
SETTINGS = EmbeddingSettings(exports=EXPORTS)

TEXTS = [
    "Where do penguins live?",
    "",
    "Señor 🎉 企鹅 walks.\n\n\tTwice.",
    "The harbour freezes in winter, and ferries wait for the ice breaker. " * 60,
    *(f"Sentence number {n} is about {'very ' * n}cold winters." for n in range(40)),
]


@pytest.fixture(scope="module")
def exported() -> ExportedEmbedder:
    embedder = load_embedder(SETTINGS)
    assert isinstance(embedder, ExportedEmbedder)
    return embedder


@pytest.fixture(scope="module")
def original() -> SentenceTransformerEmbedder:
    embedder = load_embedder(EmbeddingSettings())
    assert isinstance(embedder, SentenceTransformerEmbedder)
    return embedder


def test_vectors_are_those_of_the_original(exported: ExportedEmbedder, original: SentenceTransformerEmbedder) -> None:
    """Of short, empty, odd and cut texts, in one call or alone; float32 rows of length 1."""
    expected = original.embed_documents(TEXTS)
    together, alone = exported.embed_documents(TEXTS), np.vstack([exported.embed_queries([text]) for text in TEXTS])
    assert (together.shape, together.dtype) == (expected.shape, np.float32)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.sum(together * expected, axis=1).min() > 0.99999
    assert np.sum(alone * expected, axis=1).min() > 0.99999


def test_files_that_are_indexed_get_nearly_the_same_vectors(
    exported: ExportedEmbedder, original: SentenceTransformerEmbedder
) -> None:
    """In bfloat16 where the processor is made for it: far below what fusion notices."""
    cosines = np.sum(exported.embed_documents(TEXTS, "bulk") * original.embed_documents(TEXTS), axis=1)
    assert cosines.min() > 0.9995


def test_texts_are_cut_and_counted_alike(exported: ExportedEmbedder, original: SentenceTransformerEmbedder) -> None:
    """The same room for text, the same tokens: chunks do not depend on the engine."""
    assert (exported.model_id, exported.dimension, exported.max_tokens) == ("all-MiniLM-L6-v2", 384, 254)
    assert (original.dimension, original.max_tokens) == (384, 254)
    assert [exported.token_spans(text) for text in TEXTS] == [original.token_spans(text) for text in TEXTS]


def test_texts_are_cut_without_the_file_of_the_tokeniser(exported: ExportedEmbedder, tmp_path: Path) -> None:
    """A cache may be emptied while a service runs that has not cut a text yet."""
    copy = shutil.copytree(next(EXPORTS.glob(f"*/{EXPORT}")).parent, tmp_path / "export")
    embedder = ExportedEmbedder(copy, SETTINGS)
    shutil.rmtree(copy)
    assert embedder.token_spans("Where do penguins live?")[0] == (0, 5)


def test_a_call_has_texts_of_about_one_length() -> None:
    """None shorter than three quarters of the longest, which is padded a little; each text once."""
    assert list(calls_of([9, 32, 0, 24, 23, 70, 12, 256], 32, 256)) == [
        ([7], 256),
        ([5], 72),
        ([1, 3], 32),
        ([4], 24),
        ([6, 0], 12),
        ([2], 2),
    ]
    assert list(calls_of([20] * 5, 2, 256)) == [([0, 1], 20), ([2, 3], 20), ([4], 20)]
    assert [len(places) for places, _ in calls_of([250] * 40, 64, 254)] == [16, 16, 8]
    assert not list(calls_of([], 32, 256))


def test_all_lanes_may_be_used_at_once(exported: ExportedEmbedder) -> None:
    """Each text gets its own vector, whoever else is served."""
    expected = exported.embed_documents(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(exported.embed_documents, TEXTS, lane) for lane in NICENESS for _ in range(2)]
    assert all(np.sum(call.result() * expected, axis=1).min() > 0.9995 for call in calls)


def test_nothing_of_torch_is_loaded(exported: ExportedEmbedder) -> None:
    """Which would take seconds and half a gigabyte; nor what would report to Google that OpenVINO is used."""
    code = (
        "import sys; from pathlib import Path; from indexing.embedding.loading import load_embedder; "
        "from indexing.settings import EmbeddingSettings; "
        f"load_embedder(EmbeddingSettings(exports=Path({str(EXPORTS)!r}))).embed_queries(['x']); "
        "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules); "
        "assert sys.modules['openvino_telemetry'] is None"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=100)


def test_a_changed_file_is_noticed(exported: ExportedEmbedder, tmp_path: Path) -> None:
    """Each file has its digest, and a description that cannot be read is damage, too."""
    whole = next(EXPORTS.glob(f"*/{EXPORT}")).parent
    read_export(whole)
    for name in (EXPORT, TOKENIZER):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    with pytest.raises(ExportDamaged, match="not as it was written"):
        read_export(tmp_path)
    (tmp_path / EXPORT).write_text("{}")
    with pytest.raises(ExportDamaged):
        read_export(tmp_path)


def test_a_model_that_differs_is_not_exported() -> None:
    """Its vectors of built-in texts are compared."""
    same = HashEmbedder()
    check(same, HashEmbedder())
    with pytest.raises(NotExportable, match="cosine"):
        check(same, _Turned())


class _Turned(HashEmbedder):
    def embed_queries(self, texts, lane="queries"):  # type: ignore[no-untyped-def]
        return np.roll(super().embed_queries(texts, lane), 1, axis=1)


def test_bfloat16_needs_a_processor_that_is_made_for_it(tmp_path: Path) -> None:
    """Where it would be imitated it takes a hundred times as long."""
    cpuinfo = tmp_path / "cpuinfo"
    for flags in ("avx2 amx_bf16 amx_tile", "avx2 avx512_bf16 avx512_vnni"):
        cpuinfo.write_text(f"flags : {flags}\n")
        assert has_bfloat16({}, cpuinfo)
        assert not has_bfloat16({"ONEDNN_MAX_CPU_ISA": "AVX2"}, cpuinfo)
    cpuinfo.write_text("flags : avx2 avx512f avx512_vnni\n")
    assert not has_bfloat16({}, cpuinfo)
    assert not has_bfloat16({}, tmp_path / "missing")
