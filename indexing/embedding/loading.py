"""Loads the embedding model of the settings, in the engine that suits it and the machine."""

import hashlib
import importlib.metadata
import importlib.util
import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import portalocker
from msgspec.structs import replace

from indexing.embedding.export import FAILED
from indexing.embedding.exported import EXPORT, ExportDamaged, ExportedEmbedder
from indexing.embedding.model import PACKAGED, Embedder, check_model, files_of, find_model
from indexing.embedding.sentence_transformer import load_sentence_transformer
from indexing.settings import EmbeddingSettings

log = logging.getLogger(__name__)

EXPORT_VERSION = 1
"""Goes up when exports of an earlier version must not be used any more."""

_REFUSED = "refused.txt"
_WAIT_S = 600.0
_ACCELERATORS = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""NVIDIA's cards, AMD's, and either under Windows."""
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
_START = "import sys; sys.path.insert(0, sys.argv[1]); from indexing.embedding.export import main; main()"


def load_embedder(settings: EmbeddingSettings) -> Embedder:
    """The model of the settings, which takes seconds. Raises EmbedderUnavailable, which says what to do.

    On the processor OpenVINO runs it, and the first time it is exported, which takes a quarter of a minute. If that
    fails, or there is no directory for exports, sentence-transformers runs it.
    """
    if settings.exports is not None and _runs_on_processor(settings):
        embedder = _exported(settings, settings.exports)
        if embedder is not None:
            return embedder
    return load_sentence_transformer(check_model(settings), settings)


def _runs_on_processor(settings: EmbeddingSettings) -> bool:
    """Whether torch would take the processor, as far as can be told without loading it, which takes seconds."""
    if settings.engine == "torch" or not _has_openvino():
        return False
    if settings.device is None:
        return sys.platform == "linux" and not any(Path(device).exists() for device in _ACCELERATORS)
    return settings.device == "cpu"


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def _exported(settings: EmbeddingSettings, exports: Path) -> ExportedEmbedder | None:
    """The original's weights are read, and checked, only to export them: the key has their digest, and the export's
    own files have theirs."""
    key = _key(find_model(settings), settings)
    if key is None:
        return None
    directory = exports / key
    if (directory / _REFUSED).exists():
        return None
    try:
        if (directory / EXPORT).exists():
            return ExportedEmbedder(directory, settings)
    except (ExportDamaged, RuntimeError, OSError):
        log.warning("the exported model in %s is damaged, and made again", directory, exc_info=True)
        shutil.rmtree(directory, ignore_errors=True)
    try:
        exports.mkdir(parents=True, exist_ok=True)
        # Whoever comes while another process makes it waits, and finds it made.
        with portalocker.Lock(exports / f"{key}.lock", timeout=_WAIT_S):
            if not directory.exists():
                _make(check_model(settings), settings, directory)
        return None if (directory / _REFUSED).exists() else ExportedEmbedder(directory, settings)
    except (ExportDamaged, RuntimeError, OSError, portalocker.LockException):
        where = (
            "an export into %s failed, so sentence-transformers runs the embedding model; [embedding] exports names "
        )
        log.warning(f"{where}another directory", exports, exc_info=True)
        return None


def _make(location: str, settings: EmbeddingSettings, directory: Path) -> None:
    """Export into `directory`, all or nothing."""
    log.info("exporting the embedding model %s for this processor, once", settings.model)
    with tempfile.TemporaryDirectory(prefix=f"{directory.name}-", dir=directory.parent) as scratch:
        fresh = Path(scratch) / "export"
        fresh.mkdir()
        arguments = (_PACKAGE_ROOT, location, msgspec.json.encode(replace(settings, exports=None)).decode(), str(fresh))
        command = (sys.executable, "-P", "-c", _START, *arguments)
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)  # noqa: S603
        errors = done.stderr.decode("utf-8", "replace").strip()
        if done.returncode == FAILED:
            why = errors.splitlines()[-1] if errors else ""
            log.info("the embedding model is not exported: %s", why)
            shutil.rmtree(fresh)
            fresh.mkdir()
            (fresh / _REFUSED).write_text(f"{why}\n", encoding="utf-8")
        elif done.returncode:
            raise OSError(f"exporting ended with status {done.returncode}: {errors[-1000:]}")
        fresh.rename(directory)


def _key(location: str, settings: EmbeddingSettings) -> str | None:
    """Names an export by all that its content depends on; None for a model whose files are not here yet."""
    packaged = PACKAGED.get(settings.model)
    files = packaged.sha256 if packaged else files_of(location, settings.revision)
    if not files:
        return None
    engine = importlib.metadata.version("openvino")
    parts = (str(EXPORT_VERSION), engine, settings.model, files, str(settings.max_tokens))
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=10).hexdigest()
