"""What clients may type as a model."""

from pathlib import Path

import pytest

from app.backends.router import Backend, Backends
from app.domain import ANONYMOUS
from app.services.model_ids import ModelNames, public_name

NAMES = ModelNames(
    Backends([Backend(name="gemma", kind="vllm", roles=("rank", "chat"))]), {"rerank-v3.5": "none"}, ("minilm",)
)


@pytest.mark.parametrize(
    ("model", "backend"),
    [
        ("", None),
        (" winnow-rerank ", None),
        ("winnow-rerank@", None),
        ("winnow-rerank@auto", "auto"),
        ("winnow-rerank@nobody", "nobody"),
        ("rerank-v3.5", "none"),
    ],
)
def test_names_that_mean_something(model: str, backend: str | None) -> None:
    """Without a warning; whether a backend is there is for the ranking to say."""
    assert NAMES.ranking_backend(model, [], ANONYMOUS) == (backend, "")


def test_any_other_name_means_the_default_and_a_warning() -> None:
    """The warning says what the client sent, as far as it fits, and where names are given."""
    backend, warning = NAMES.ranking_backend("x" * 1000, [], ANONYMOUS)
    assert backend is None
    assert "rerank_aliases" in warning
    assert len(warning) < 250


@pytest.mark.parametrize(("model", "known"), [("winnow-embed", True), ("minilm", True), ("ada", False), ("", False)])
def test_an_embedder_has_its_own_names_only(model: str, known: bool) -> None:
    """Vectors of two models must not be mixed."""
    assert NAMES.embeds(model) is known


@pytest.mark.parametrize(("embedder", "listed"), [("BAAI/bge-m3", True), ("nomic-Embed", True), ("minilm", False)])
def test_an_embedder_is_listed_if_its_id_says_what_it_is(embedder: str, listed: bool) -> None:
    """RAGFlow would take any other id for a chat model."""
    ids = [found.id for found in NAMES.offered([], [], embedder, None, ANONYMOUS)]
    assert (embedder in ids, "winnow-embed" in ids) == (listed, True)


def test_a_directory_is_known_by_its_last_part(tmp_path: Path) -> None:
    """Where it lies is nobody's business; an id of the hub stays whole."""
    assert public_name(str(tmp_path / "my-model")) == "my-model"
    assert public_name("org/model") == "org/model"
