import copy
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from indexing.embedding.loading import load_embedder
from indexing.embedding.model import PACKAGED
from indexing.embedding.packed_e5 import load_packed_e5
from indexing.embedding.sentence_transformer import SentenceTransformerEmbedder
from indexing.settings import MULTILINGUAL_MODEL, EmbeddingSettings

pytestmark = pytest.mark.numeric

WIDTH, INNER, POSITIONS = 32, 64, 16
PIECES = ("<s>", "<pad>", "</s>", "<unk>", "▁query:", "▁passage:", "▁", "▁red", "▁fish", "企", "鹅", "a", "b", "~")
QKVO = ("q", "k", "v", "ao")
BLOCK = np.dtype([("scale", "<f2"), ("halves", "u1", 16)])


class TinyFile:
    """A file of the package's format with one layer; `weights` are the tensors as anybody else would hold them."""

    def __init__(self, seed: int = 1) -> None:
        self._random = np.random.default_rng(seed)
        self._tensors: list[tuple[str, int, int, bytes]] = []
        self.weights: dict[str, NDArray[np.float32]] = {}
        self._packed("emb.word", len(PIECES), WIDTH)
        for name, shape in (("emb.pos", (POSITIONS, WIDTH)), ("emb.type", (1, WIDTH))):
            self._plain(name, *shape)
        for name in ("emb.ln", "l0.aln", "l0.oln"):
            self._plain(f"{name}.w", WIDTH)
            self._plain(f"{name}.b", WIDTH)
        for name, rows, columns in (("fi", INNER, WIDTH), ("fo", WIDTH, INNER), *((n, WIDTH, WIDTH) for n in QKVO)):
            self._packed(f"l0.{name}.w", rows, columns)
            self._plain(f"l0.{name}.b", rows)

    def _plain(self, name: str, *shape: int) -> None:
        self.weights[name] = self._random.normal(0, 0.5, shape).astype("<f4")
        self._tensors.append((name, 0, self.weights[name].size, self.weights[name].tobytes()))

    def _packed(self, name: str, rows: int, columns: int) -> None:
        quarters = self._random.integers(-8, 8, (rows, columns // 32, 32))
        scale = self._random.uniform(0.02, 0.1, (rows, columns // 32)).astype("<f2")
        blocks = np.empty((rows, columns // 32), BLOCK)
        blocks["scale"] = scale
        blocks["halves"] = (quarters[..., :16] + 8) | (quarters[..., 16:] + 8) << 4
        self.weights[name] = (quarters * scale[..., None].astype(np.float32)).reshape(rows, columns).astype(np.float32)
        self._tensors.append((name, 1, quarters.size, blocks.tobytes()))

    def write(self, path: Path, magic: bytes = b"E5S1") -> Path:
        texts = [piece.encode() for piece in PIECES]
        begins = np.cumsum([0, *map(len, texts)], dtype="<u4")
        head = magic + struct.pack("<8if6iQ", 1, WIDTH, 1, 2, INNER, len(PIECES), POSITIONS, 1, 1e-12, 32,
                                   len(PIECES), 0, 2, 1, 3, int(begins[-1]))  # fmt: skip
        head += begins.tobytes() + np.linspace(-2, -3, len(PIECES), dtype="<f4").tobytes() + b"".join(texts)
        head += struct.pack("<iI", 1, 9) + struct.pack("<IBI", 0xFF41, 1, 0x41) + struct.pack("<i", len(self._tensors))
        offset = len(head) + sum(2 + len(name) + 21 for name, *_ in self._tensors)
        for name, kind, count, data in self._tensors:
            head += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", kind, count, offset, len(data))
            offset += len(data)
        path.write_bytes(head + b"".join(data for *_, data in self._tensors))
        return path


@pytest.fixture
def tiny(tmp_path: Path) -> TinyFile:
    file = TinyFile()
    file.write(tmp_path / "tiny.bin")
    return file


def embedder_of(path: Path, max_tokens: int | None = None) -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(load_packed_e5(path, "cpu").eval(), EmbeddingSettings(max_tokens=max_tokens))


def encoded(weights: dict[str, NDArray[np.float32]], ids: list[int]) -> NDArray[np.float32]:
    """BERT with one layer and two heads, mean pooling: written out."""

    def normed(x: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * weights[f"{name}.w"] + weights[f"{name}.b"]

    def linear(x: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        return x @ weights[f"l0.{name}.w"].T + weights[f"l0.{name}.b"]

    x = normed(weights["emb.word"][ids] + weights["emb.pos"][: len(ids)] + weights["emb.type"][0], "emb.ln")
    q, k, v = (linear(x, name).reshape(len(ids), 2, -1).transpose(1, 0, 2) for name in "qkv")
    odds = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]))
    seen = (odds / odds.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), WIDTH)
    x = normed(x + linear(seen, "ao"), "l0.aln")
    inner = torch.nn.functional.gelu(torch.from_numpy(linear(x, "fi"))).numpy()
    pooled = normed(x + linear(inner, "fo"), "l0.oln").mean(0)
    return pooled / np.linalg.norm(pooled)


def test_vectors_are_those_of_the_weights_in_the_file(tiny: TinyFile, tmp_path: Path) -> None:
    """Unpacked, named and pooled right, each text behind its prompt, also beside a longer text in the batch."""
    embedder = embedder_of(tmp_path / "tiny.bin")
    documents = embedder.embed_documents(["red fish", "red red red fish fish"])
    assert np.allclose(documents[0], encoded(tiny.weights, [0, 5, 7, 8, 2]), atol=1e-5)
    assert np.allclose(documents[1], encoded(tiny.weights, [0, 5, 7, 7, 7, 8, 8, 2]), atol=1e-5)
    assert np.allclose(embedder.embed_queries(["企鹅"]), encoded(tiny.weights, [0, 4, 6, 9, 10, 2]), atol=1e-5)


@pytest.mark.usefixtures("tiny")
def test_texts_are_normalised_as_the_model_knows_them(tmp_path: Path) -> None:
    """Width, control characters and runs of spaces do not count; spans are those of the original."""
    embedder = embedder_of(tmp_path / "tiny.bin")
    plain = embedder.embed_documents(["red fish ab"])
    assert np.array_equal(embedder.embed_documents(["\x01red\t \u200bfish ａｂ"]), plain)
    text = "red  fish 企鹅 ａ🎉"
    assert [text[start:end].strip() for start, end in embedder.token_spans(text)] == [
        "red", "fish", "", "企", "鹅", "", "ａ", "🎉",
    ]  # fmt: skip


def test_a_long_text_is_cut_and_ends_as_others_do(tiny: TinyFile, tmp_path: Path) -> None:
    """At the model's limit or at the setting's; the room for text leaves out special tokens and the prompt."""
    path = tmp_path / "tiny.bin"
    assert embedder_of(path).max_tokens == POSITIONS - 2 - len(("▁passage:", "▁"))
    short = embedder_of(path, max_tokens=6)
    assert short.max_tokens == 2
    assert np.allclose(short.embed_documents(["red " * 50]), encoded(tiny.weights, [0, 5, 7, 7, 7, 2]), atol=1e-5)


@pytest.mark.usefixtures("tiny")
def test_copies_share_weights_and_tokeniser(tmp_path: Path) -> None:
    """A quarter of a million pieces for every lane would take hundreds of megabytes."""
    model = load_packed_e5(tmp_path / "tiny.bin", "cpu")
    twin = copy.deepcopy(model, {id(one): one for one in (*model.parameters(), *model.buffers())})
    assert twin.tokenizer is model.tokenizer
    assert [one.data_ptr() for one in twin.buffers()] == [one.data_ptr() for one in model.buffers()]


def test_another_format_is_refused(tmp_path: Path) -> None:
    """A later version of the format is not guessed at."""
    with pytest.raises(ValueError, match="format 1"):
        load_packed_e5(TinyFile().write(tmp_path / "other.bin", magic=b"E5S2"), "cpu")


RECORDED = {
    "Penguins breed in Antarctica.": (0.0319, -0.0072, 0.0039, -0.0770, 0.0797, -0.0285),
    "Ebbe und Flut folgen dem Mond, 1,5-mal so stark im Frühjahr.": (
        0.0633,
        -0.0443,
        -0.0233,
        -0.0581,
        0.1080,
        -0.0637,
    ),
    "企鹅在南极洲繁殖。": (0.0700, -0.0104, -0.0386, -0.0584, 0.1194, 0.0058),
}
"""The first components of vectors that the package's own engine makes."""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec(PACKAGED[MULTILINGUAL_MODEL].package) is None, reason="needs the extra `multilingual`"
)
def test_the_model_of_the_package_reads_other_languages() -> None:
    """Its vectors are those of the package's own engine, and a question is nearest to its answer across languages."""
    embedder = load_embedder(EmbeddingSettings(model=MULTILINGUAL_MODEL))
    assert (embedder.model_id, embedder.dimension, embedder.max_tokens) == ("multilingual-e5-small", 384, 507)
    ours = embedder.embed_documents(list(RECORDED))
    assert np.allclose(ours[:, :6], list(RECORDED.values()), atol=3e-3)
    answers = embedder.embed_documents(
        ["Penguins breed in Antarctica.", "The tides follow the moon.", "A red bicycle."]
    )
    questions = embedder.embed_queries(["企鹅在哪里繁殖？", "Was bewirkt Ebbe und Flut?"])
    assert (questions @ answers.T).argmax(axis=1).tolist() == [0, 1]
