"""Any model that sentence-transformers loads, on the processor or a GPU."""

import copy
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from safetensors import SafetensorError

from indexing.embedding.lanes import NICENESS, Cores, step_back
from indexing.embedding.model import Lane, TextTokens, Vectors
from indexing.errors import EmbedderUnavailable
from indexing.settings import MULTILINGUAL_MODEL, EmbeddingSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class _Handle:
    """A handle of the model for one lane: its own copy, sharing the weights, and the only thread that calls it.

    A tokeniser must not be shared between threads ("Already borrowed"); the priority belongs to the thread, and the
    workers that compute for it inherit it.
    """

    def __init__(self, model: "SentenceTransformer", lane: Lane, cores: "Cores") -> None:
        self._model = copy.deepcopy(model, {id(p): p for p in (*model.parameters(), *model.buffers())})
        self._lane, self._cores = lane, cores
        self._thread = ThreadPoolExecutor(1, f"embed-{lane}", step_back, (NICENESS[lane],))

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


@cache
def _cores() -> int:
    """On which torch would compute. Read once: `set_num_threads` changes what threads that begin later are told."""
    import torch

    return torch.get_num_threads()


class SentenceTransformerEmbedder:
    """A sentence-transformers model, with a handle for each lane."""

    def __init__(self, model: "SentenceTransformer", settings: EmbeddingSettings) -> None:
        self._settings = settings
        self.model = model
        if settings.max_tokens is not None:
            model.max_seq_length = min(settings.max_tokens, model.max_seq_length or settings.max_tokens)
        cores = Cores(_cores())
        self._lanes = {lane: _Handle(model, lane, cores) for lane in NICENESS}
        self._tokens = TextTokens(copy.deepcopy(model.tokenizer).backend_tokenizer)
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
        return self._tokens.spans(text)

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


def load_sentence_transformer(location: str, settings: EmbeddingSettings) -> SentenceTransformerEmbedder:
    """Load the configured model, which takes seconds. Raises EmbedderUnavailable, which says what to do."""
    try:
        model = _load(location, settings)
    except (OSError, ValueError, RuntimeError, SafetensorError) as exc:
        raise EmbedderUnavailable(
            f"the embedding model {settings.model!r} cannot be loaded: set [embedding] model to a directory, or to a "
            "model id that the hub or its local cache has"
        ) from exc
    model.eval()
    return SentenceTransformerEmbedder(model, settings)


def _load(location: str, settings: EmbeddingSettings) -> "SentenceTransformer":
    library = import_sentence_transformers()
    if settings.model == MULTILINGUAL_MODEL:
        from indexing.embedding.packed_e5 import load_packed_e5

        return load_packed_e5(Path(location), settings.device)
    model: SentenceTransformer = library.SentenceTransformer(
        location, device=settings.device, revision=settings.revision, local_files_only=Path(location).is_dir()
    )
    return model


def import_sentence_transformers() -> ModuleType:
    """The library, which takes seconds: a service should accept requests before that. It writes no progress bars, and
    logs warnings only.
    """
    import sentence_transformers
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    # Its log of every retry says nothing that our own error does not.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return sentence_transformers
