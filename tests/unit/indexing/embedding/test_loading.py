import json
import logging
import shutil
from pathlib import Path

import pytest

from indexing.embedding import loading
from indexing.embedding.exported import EXPORT, ExportedEmbedder
from indexing.embedding.loading import load_embedder
from indexing.embedding.model import check_model
from indexing.embedding.sentence_transformer import SentenceTransformerEmbedder
from indexing.errors import EmbedderUnavailable
from indexing.settings import QUICKSTART_MODEL, EmbeddingSettings
from tests.unit.indexing.embedding.test_exported import EXPORTS, SETTINGS
from tests.unit.indexing.embedding.test_model import fake_package

pytest.importorskip("openvino", reason="OpenVINO has no wheel for this processor")
pytestmark = pytest.mark.timeout(400)


@pytest.mark.parametrize(
    "settings",
    [
        EmbeddingSettings(),
        EmbeddingSettings(engine="torch", exports=Path("never")),
        EmbeddingSettings(device="meta", exports=Path("never")),
    ],
    ids=["no directory", "torch", "another device"],
)
def test_who_asks_for_it_gets_torch(settings: EmbeddingSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without a directory for exports, or on a device other than the processor."""
    asked: list[str] = []
    monkeypatch.setattr(loading, "load_sentence_transformer", lambda location, _: asked.append(location))
    load_embedder(settings)
    assert len(asked) == 1


def test_damage_is_mended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An export whose weights are cut off is made again, and says so."""
    assert isinstance(load_embedder(SETTINGS), ExportedEmbedder)
    for whole in (path.parent for path in EXPORTS.glob(f"*/{EXPORT}")):
        shutil.copytree(whole, tmp_path / whole.name)
        (tmp_path / whole.name / "model.bin").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        embedder = load_embedder(EmbeddingSettings(exports=tmp_path))
    assert isinstance(embedder, ExportedEmbedder)
    assert "is damaged" in caplog.text
    assert not list(tmp_path.glob("*/export"))


def test_with_an_export_the_original_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 90 MB to read and to check at each start; whoever does read it refuses other weights."""
    assert isinstance(load_embedder(SETTINGS), ExportedEmbedder)
    fake_package(tmp_path, QUICKSTART_MODEL, b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(load_embedder(SETTINGS), ExportedEmbedder)
    with pytest.raises(EmbedderUnavailable, match="are not those of"):
        load_embedder(EmbeddingSettings(exports=tmp_path / "exports"))


def test_where_nothing_can_be_written_the_model_runs_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In sentence-transformers, with a warning that names the place."""
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        embedder = load_embedder(EmbeddingSettings(exports=tmp_path / "file" / "models"))
    assert isinstance(embedder, SentenceTransformerEmbedder)
    assert str(tmp_path / "file" / "models") in caplog.text


@pytest.mark.slow
def test_a_model_that_cannot_be_exported_is_tried_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Then sentence-transformers runs it, at once on the next start."""
    model = tmp_path / "model"
    shutil.copytree(check_model(EmbeddingSettings()), model)
    config = model / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "padding_side": "left"}))
    settings = EmbeddingSettings(model=str(model), exports=tmp_path / "exports")
    with caplog.at_level(logging.INFO):
        assert isinstance(load_embedder(settings), SentenceTransformerEmbedder)
        assert isinstance(load_embedder(settings), SentenceTransformerEmbedder)
    assert caplog.text.count("exporting the embedding model") == 1
    assert "is not exported: its tokeniser fills up texts from the left" in caplog.text
