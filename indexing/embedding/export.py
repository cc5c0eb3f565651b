"""Writes a model as `indexing.embedding.exported` reads it. In a process of its own: torch takes 0.5 GB and seconds."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from indexing.embedding.calibration import PAIRS
from indexing.embedding.exported import EXPORT, GRAPH, TOKENIZER, WEIGHTS, Export, ExportedEmbedder, import_openvino
from indexing.embedding.model import Embedder, sha256
from indexing.embedding.sentence_transformer import load_sentence_transformer
from indexing.errors import EmbedderUnavailable
from indexing.settings import EmbeddingSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MIN_COSINE = 0.9999
"""Of a text's vector by both engines: less would be another model, and fusion would notice."""

FAILED = 3
"""Exit status: this model cannot be exported, and the last line of the errors says why."""


class NotExportable(Exception):
    """The model is none that can run apart from sentence-transformers."""


def main() -> None:
    """Export the model at argv[2], of the settings in argv[3] (JSON), into the empty directory argv[4]."""
    settings = msgspec.json.decode(sys.argv[3], type=EmbeddingSettings)
    try:
        export(sys.argv[2], settings, Path(sys.argv[4]))
    except (NotExportable, EmbedderUnavailable) as exc:
        sys.stderr.write(f"{exc}\n")
        raise SystemExit(FAILED) from None


def export(location: str, settings: EmbeddingSettings, directory: Path) -> None:
    """Write the model's files, and compare both. Raises NotExportable, EmbedderUnavailable, OSError."""
    reference = load_sentence_transformer(location, settings)
    model = reference.model
    tokenizer, padding = _tokenizer(model)
    _write_graph(model, directory)
    tokenizer.save(str(directory / TOKENIZER))
    described = Export(
        dimension=reference.dimension,
        positions=int(model.max_seq_length or 512),
        max_tokens=reference.max_tokens,
        padding=padding,
        query_prompt=_prompt(model, "query"),
        document_prompt=_prompt(model, "document"),
        files={name: sha256(directory / name) for name in (GRAPH, WEIGHTS, TOKENIZER)},
    )
    (directory / EXPORT).write_bytes(msgspec.json.format(msgspec.json.encode(described)))
    check(reference, ExportedEmbedder(directory, settings))


def check(reference: Embedder, exported: Embedder) -> None:
    """Raises NotExportable unless both give the same vectors of questions, of passages and of texts that are cut."""
    pairs = [pair for pairs in PAIRS.values() for pair in pairs]
    questions, answers = [question for question, _ in pairs], [answer for _, answer in pairs]
    documents = [*answers, " ".join(answers) * 8, "a  b\n\tc", " ", ""]
    for texts, ours, theirs in (
        (questions, exported.embed_queries(questions), reference.embed_queries(questions)),
        (documents, exported.embed_documents(documents), reference.embed_documents(documents)),
    ):
        cosines = np.sum(ours * theirs, axis=1)
        worst = int(np.argmin(np.nan_to_num(cosines, nan=-1.0)))
        if not cosines[worst] >= MIN_COSINE:
            raise NotExportable(f"the exported model differs: cosine {cosines[worst]:.5f} for {texts[worst][:40]!r}")


def _tokenizer(model: "SentenceTransformer") -> tuple[Any, int]:
    tokenizer: Any = model.tokenizer
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise NotExportable("its tokeniser is none of the library tokenizers")
    if getattr(tokenizer, "padding_side", "right") != "right":
        raise NotExportable("its tokeniser fills up texts from the left")
    padding = getattr(tokenizer, "pad_token_id", None)
    return fast, 0 if padding is None else int(padding)


def _prompt(model: "SentenceTransformer", kind: str) -> str:
    """As `encode_query` and `encode_document` choose it."""
    names = (kind,) if kind == "query" else (kind, "passage", "corpus")
    prompts = model.prompts or {}
    return next((prompt for name in names if (prompt := prompts.get(name))), "")


def _write_graph(model: "SentenceTransformer", directory: Path) -> None:
    import torch

    openvino = import_openvino()

    class Whole(torch.nn.Module):
        """All modules, from token ids to one vector for each text."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            features = {"input_ids": ids, "attention_mask": mask}
            for module in self.model:
                features = module(features)
            return features["sentence_embedding"]

    ids = torch.randint(5, 100, (2, 24), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 16:] = 0
    try:
        with torch.inference_mode():
            graph = openvino.convert_model(Whole().eval(), example_input=(ids, mask))
    except Exception as exc:
        raise NotExportable(f"OpenVINO cannot convert it: {str(exc)[:300]}") from exc
    openvino.save_model(graph, directory / GRAPH, compress_to_fp16=False)
