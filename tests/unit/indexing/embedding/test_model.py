import shutil
import subprocess
import sys
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from indexing.embedding.lanes import BESIDE_S, Cores
from indexing.embedding.loading import load_embedder
from indexing.embedding.model import PACKAGED, check_model, embedder_fingerprint
from indexing.embedding.sentence_transformer import SentenceTransformerEmbedder
from indexing.errors import EmbedderUnavailable
from indexing.settings import MULTILINGUAL_MODEL, QUICKSTART_MODEL, EmbeddingSettings

pytestmark = pytest.mark.numeric

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def embedder() -> SentenceTransformerEmbedder:
    return load_embedder(EmbeddingSettings())


def test_vectors_are_unit_rows_and_mean_something(embedder: SentenceTransformerEmbedder) -> None:
    """float32, of length 1; a question is nearer to its answer than to another text."""
    answers = embedder.embed_documents(["Nairobi is the capital of Kenya.", "Penguins breed in Antarctica."])
    question = embedder.embed_queries(["What is the capital of Kenya?"])
    assert (answers.shape, answers.dtype) == ((2, embedder.dimension), np.float32)
    assert np.allclose(np.linalg.norm(answers, axis=1), 1, atol=1e-5)
    assert (question @ answers.T)[0, 0] > (question @ answers.T)[0, 1] + 0.3


def test_the_room_for_text_leaves_out_special_tokens(embedder: SentenceTransformerEmbedder) -> None:
    """The model reads 256 tokens, two of which are its own."""
    assert (embedder.model_id, embedder.dimension, embedder.max_tokens) == ("all-MiniLM-L6-v2", 384, 254)


def test_token_spans_cover_the_words(embedder: SentenceTransformerEmbedder) -> None:
    """Offsets are code points, also beyond the basic plane, and nothing is cut at the model's limit."""
    text = "Señor 🎉 企鹅 walks. " * 400
    spans = embedder.token_spans(text)
    assert len(spans) > 1000
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert {text[start:end] for start, end in spans} >= {"walks", ".", "企", "鹅"}


def test_a_long_text_is_tokenised_as_if_in_one_go(embedder: SentenceTransformerEmbedder) -> None:
    """Stretches end before white space, so that they change no token; spans stay in order."""
    sentence = "The internationalisation of lighthouses, 1892-1911. "
    count = 200_000 // len(sentence)
    one = embedder.token_spans(sentence)
    expected = [(start + n * len(sentence), end + n * len(sentence)) for n in range(count) for start, end in one]
    assert embedder.token_spans(sentence * count) == expected
    assert embedder.token_spans("") == []
    unbroken = embedder.token_spans("企" * 150_000)
    assert unbroken == [(n, n + 1) for n in range(150_000)]


def test_many_threads_may_use_it_at_once(embedder: SentenceTransformerEmbedder) -> None:
    """Documents, queries and tokens from several threads give what one thread gets."""
    texts = [f"Text number {n} about winter." for n in range(40)]
    alone = embedder.embed_documents(texts)
    with ThreadPoolExecutor(6) as pool:
        documents = [pool.submit(embedder.embed_documents, texts) for _ in range(2)]
        queries = [pool.submit(embedder.embed_queries, texts[:3]) for _ in range(4)]
        tokens = [pool.submit(embedder.token_spans, text) for text in texts]
    assert all(np.allclose(future.result(), alone, atol=1e-4) for future in documents)
    assert all(np.allclose(future.result(), alone[:3], atol=1e-4) for future in queries)
    assert all(len(future.result()) == 6 for future in tokens)


@pytest.mark.slow
def test_a_query_does_not_wait_behind_a_window_of_documents(embedder: SentenceTransformerEmbedder) -> None:
    """It is answered while the documents are still being embedded."""
    texts = [f"{n} " + "A long sentence about the harbour in winter. " * 20 for n in range(20)]
    began = time.monotonic()
    embedder.embed_documents(texts)
    many = texts * (2 + round(2.0 / (time.monotonic() - began)))  # more than two seconds' worth
    window = threading.Thread(target=embedder.embed_documents, args=(many,))
    window.start()
    time.sleep(0.1)
    embedder.embed_queries(["harbour"])
    under_way = window.is_alive()
    window.join()
    assert under_way


@pytest.mark.slow
def test_the_package_of_the_quick_start_is_not_run() -> None:
    """Its files are read, its code is never imported."""
    code = (
        "import sys; from indexing.embedding.loading import load_embedder; "
        "from indexing.settings import EmbeddingSettings; "
        f"load_embedder(EmbeddingSettings()); assert {PACKAGED[QUICKSTART_MODEL].package!r} not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=100)


def fake_package(folder: Path, model: str, weights: bytes) -> None:
    package = PACKAGED[model]
    path = folder / package.package / package.weights
    path.parent.mkdir(parents=True)
    (folder / package.package / "__init__.py").write_text("raise AssertionError('this code must not run')")
    path.write_bytes(weights)


@pytest.mark.parametrize("model", PACKAGED)
def test_other_weights_under_a_packaged_model_s_name_are_refused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packages' authors are unknown to us: only the weights that were tried are trusted."""
    fake_package(tmp_path, model, b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EmbedderUnavailable, match=f"are not those of {model}"):
        load_embedder(EmbeddingSettings(model=model))


@pytest.mark.parametrize(("model", "extra"), [(QUICKSTART_MODEL, "quickstart"), (MULTILINGUAL_MODEL, "multilingual")])
def test_a_missing_package_names_the_extra(model: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(EmbedderUnavailable, match=rf"pip install '\.\[{extra}\]'"):
        check_model(EmbeddingSettings(model=model))


def test_the_packages_are_those_of_the_extras() -> None:
    """What `winnow doctor` reinstalls is what the extra installs."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert all(package.requirement in extras[package.extra] for package in PACKAGED.values())


def test_a_directory_that_holds_no_model_is_unavailable(tmp_path: Path) -> None:
    """The error names it and the setting."""
    with pytest.raises(EmbedderUnavailable, match=r"cannot be loaded: set \[embedding\] model"):
        load_embedder(EmbeddingSettings(model=str(tmp_path)))


def test_a_damaged_model_is_unavailable(tmp_path: Path) -> None:
    """Weights that are cut short are an error of ours, not of a library's."""
    shutil.copytree(check_model(EmbeddingSettings()), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EmbedderUnavailable, match="cannot be loaded"):
        load_embedder(EmbeddingSettings(model=str(tmp_path / "model")))


def test_the_fingerprint_changes_with_whatever_changes_vectors(tmp_path: Path) -> None:
    """Model, revision, limit, and for a directory its configuration and the size of its weights."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    directory = str(tmp_path)
    seen = {
        embedder_fingerprint(EmbeddingSettings()),
        embedder_fingerprint(EmbeddingSettings(model="other/model")),
        embedder_fingerprint(EmbeddingSettings(model="other/model", revision="abc")),
        embedder_fingerprint(EmbeddingSettings(max_tokens=128)),
        embedder_fingerprint(EmbeddingSettings(model=directory)),
    }
    assert embedder_fingerprint(EmbeddingSettings(batch_size=8)) in seen
    (tmp_path / "config.json").write_text('{"a": 1}')
    seen.add(embedder_fingerprint(EmbeddingSettings(model=directory)))
    (tmp_path / "model.safetensors").write_bytes(b"12")
    seen.add(embedder_fingerprint(EmbeddingSettings(model=directory)))
    assert len(seen) == 7


def test_texts_leave_half_of_the_cores_to_those_beside_them() -> None:
    """While another lane computes or has just done so; bulk work, for which nobody waits, does not count."""
    now = 0.0
    cores = Cores(8, lambda: now)
    with cores.used_by("texts") as alone, cores.used_by("bulk") as bulk:
        assert (alone, bulk) == (8, 8)
    with cores.used_by("queries") as query, cores.used_by("texts") as beside:
        assert (query, beside) == (4, 4)
    now += 0.9 * BESIDE_S
    with cores.used_by("texts") as soon, cores.used_by("bulk") as bulk:
        assert (soon, bulk) == (4, 8)
    now += BESIDE_S
    with cores.used_by("texts") as later:
        assert later == 8
    with Cores(1).used_by("queries") as only:
        assert only == 1
