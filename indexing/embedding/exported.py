"""A model on the processor without torch: its graph, exported once (`indexing.embedding.export`), run by OpenVINO.

DIRECTORY/export.json       `Export`, written last
          model.xml, .bin   ids and mask to vectors, in float32
          tokenizer.json
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexing.embedding.lanes import NICENESS, Cores, step_back
from indexing.embedding.model import Lane, TextTokens, Vectors, sha256
from indexing.settings import EmbeddingSettings

if TYPE_CHECKING:
    from openvino import CompiledModel, Core, Model
    from tokenizers import Tokenizer

EXPORT, GRAPH, WEIGHTS, TOKENIZER = "export.json", "model.xml", "model.bin", "tokenizer.json"

TOKENS_AT_ONCE = 4096
"""Of a call, with its padding: 16 texts of 256 tokens. More are no faster and take more memory (0.1 GB each time)."""

_SHORT, _STEP_OF_SHORT, _STEP = 32, 2, 8
"""Texts are padded to a multiple of `_STEP` tokens, short ones, as queries are, to one of `_STEP_OF_SHORT`: the engine
compiles, and keeps, kernels for every length."""

_LEAST_SHARE = 0.75
"""Of the longest text of a call. A shorter one waits for the next call: padding costs as much as text does, and a call
of its own no more than some nine tokens."""


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an exported model.

    `positions` are the tokens that it reads, `max_tokens` those that are left for a text. `padding` is the id of the
    token that fills up shorter texts. `files` have the SHA-256 of each file beside this one.
    """

    dimension: int
    positions: int
    max_tokens: int
    padding: int
    query_prompt: str = ""
    document_prompt: str = ""
    files: dict[str, str] = {}


class ExportDamaged(Exception):
    """Files are missing, or not as they were written."""


def read_export(directory: Path) -> Export:
    """Raises ExportDamaged."""
    try:
        export = msgspec.json.decode((directory / EXPORT).read_bytes(), type=Export)
    except (OSError, msgspec.DecodeError) as exc:
        raise ExportDamaged(f"{directory / EXPORT}: {exc}") from exc
    for name, digest in export.files.items():
        if sha256(directory / name) != digest:
            raise ExportDamaged(f"{directory / name} is not as it was written")
    return export


class ExportedEmbedder:
    """An exported model, with a copy for each lane that is used.

    Vectors are computed in float32. Those of the lane "bulk" are in bfloat16 where the processor has it, which is up to
    three times as fast; their cosine to the others is above .9999.
    """

    def __init__(self, directory: Path, settings: EmbeddingSettings) -> None:
        """Raises ExportDamaged, and RuntimeError where OpenVINO cannot use the graph."""
        from tokenizers import Tokenizer

        openvino = import_openvino()

        self._settings = settings
        self._export = export = read_export(directory)
        # Nothing changes it from here on, so that the lanes can share it: a copy may take 100 MB and half a second.
        tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
        tokenizer.no_padding()
        tokenizer.enable_truncation(export.positions)
        core = openvino.Core()
        graph = core.read_model(directory / GRAPH)
        cores = Cores(_usable_cores())
        self._lanes = {lane: _LaneModel(core, graph, tokenizer, export, lane, cores) for lane in NICENESS}
        self._tokenizer = tokenizer
        self.dimension, self.max_tokens = export.dimension, export.max_tokens

    @cached_property
    def _tokens(self) -> TextTokens:
        """Only for whoever cuts texts: a search without a service does not pay for a second copy of the tokeniser.

        Made of the first one, since by now the file may be gone, or another.
        """
        from tokenizers import Tokenizer

        return TextTokens(Tokenizer.from_str(self._tokenizer.to_str()))

    @property
    def model_id(self) -> str:
        return self._settings.model

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        return self._lanes[lane].encode(self._export.document_prompt, texts, self._settings.batch_size)

    def embed_queries(self, texts: Sequence[str], lane: Lane = "queries") -> Vectors:
        return self._lanes[lane].encode(self._export.query_prompt, texts, self._settings.batch_size)

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return self._tokens.spans(text)


class _LaneModel:
    """The only thread that embeds for one lane, and the model as it is compiled for its number of threads."""

    def __init__(
        self, core: "Core", graph: "Model", tokenizer: "Tokenizer", export: Export, lane: Lane, cores: Cores
    ) -> None:
        self._core, self._graph = core, graph
        self._tokenizer = tokenizer
        self._export, self._lane, self._cores = export, lane, cores
        self._compiled: dict[int, CompiledModel] = {}
        self._thread = ThreadPoolExecutor(1, f"embed-{lane}", step_back, (NICENESS[lane],))

    def encode(self, prompt: str, texts: Sequence[str], batch_size: int) -> Vectors:
        """Blocks the caller's thread, too."""
        return self._thread.submit(self._encode, [prompt + text for text in texts], batch_size).result()

    def _encode(self, texts: list[str], batch_size: int) -> Vectors:
        vectors = np.empty((len(texts), self._export.dimension), np.float32)
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        for places, width in calls_of([len(tokens) for tokens in ids], batch_size, self._export.positions):
            # How busy the others are may have changed since the last call.
            with self._cores.used_by(self._lane) as threads:
                vectors[places] = self._vectors([ids[place] for place in places], width, threads)
        return vectors

    def _vectors(self, rows: list[list[int]], width: int, threads: int) -> NDArray[np.float32]:
        ids = np.full((len(rows), width), self._export.padding, np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        found: NDArray[np.float32] = self._model(threads)([ids, mask], share_inputs=True)[0]
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.maximum(lengths, 1e-12), np.float32)

    def _model(self, threads: int) -> "CompiledModel":
        """Compiled by the lane's thread, whose priority what computes for it inherits."""
        if threads not in self._compiled:
            precision = "bf16" if self._lane == "bulk" and has_bfloat16() else "f32"
            options = {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": precision,
                "ENABLE_CPU_PINNING": False,
            }
            self._compiled[threads] = self._core.compile_model(self._graph, "CPU", options)
        return self._compiled[threads]


def calls_of(tokens: Sequence[int], batch_size: int, positions: int) -> Iterator[tuple[list[int], int]]:
    """The places of the texts that go in one call, and the width to which they are padded; the longest come first.

    `tokens` are the lengths of the texts, each at most `positions`.
    """
    left = sorted(range(len(tokens)), key=lambda place: -tokens[place])
    while left:
        longest = max(tokens[left[0]], 1)
        step = _STEP_OF_SHORT if longest <= _SHORT else _STEP
        width = min(positions, -(-longest // step) * step)
        most = max(1, min(batch_size, TOKENS_AT_ONCE // width))
        places = [place for place in left[:most] if max(tokens[place], 1) >= _LEAST_SHARE * longest]
        yield places, width
        left = left[len(places) :]


def import_openvino() -> Any:
    """OpenVINO. It comes with a package that can report its use to Google Analytics, and does without it."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def has_bfloat16(environ: Mapping[str, str] = os.environ, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor multiplies matrices in bfloat16. OpenVINO says that it can where it only imitates it, a
    hundred times slower.
    """
    if "ONEDNN_MAX_CPU_ISA" in environ:
        return False
    try:
        flags = set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        return False
    return not flags.isdisjoint(("amx_bf16", "avx512_bf16"))


def _usable_cores() -> int:
    """No more than OMP_NUM_THREADS, by which cluster managers, and torch, share out a machine."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable, int(told)) if told.isdecimal() and int(told) else usable
