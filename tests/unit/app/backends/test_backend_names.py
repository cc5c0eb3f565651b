"""Which backend a request means."""

import pytest

from app.backends.router import Backend, Backends, Role, declared
from app.backends.settings import BackendSettings
from app.errors import ConfigError, MissingCapability, UnknownBackend

GEMMA = Backend(name="gemma", kind="vllm", model="gemma-3-4b", roles=("rank", "answer"))


@pytest.mark.parametrize("requested", [None, "auto", "none"])
def test_without_a_model_nobody_ranks(requested: str | None) -> None:
    """No name, "auto" and "none" keep the retrieval order, and say what was asked for."""
    use = Backends().for_ranking(requested)
    assert (use.requested, use.used, use.model) == (requested or "auto", "none", None)


def test_auto_takes_the_first_that_can_rank() -> None:
    """A configured ranker serves "auto" and unnamed requests, with its model's name."""
    backends = Backends([GEMMA])
    assert [backends.for_ranking(name).used for name in (None, "auto", "none")] == ["gemma", "gemma", "none"]
    assert backends.for_ranking("gemma").model == "gemma-3-4b"


def test_the_settings_choose_who_serves_unnamed_requests() -> None:
    """The default backend stands in for a missing name."""
    assert Backends([GEMMA], default="none").for_ranking(None).used == "none"


def test_an_unknown_name_lists_the_known_ones() -> None:
    """The refusal helps."""
    with pytest.raises(UnknownBackend, match="auto, none, extractive, gemma"):
        Backends([GEMMA]).for_ranking("gpt")


def test_extractive_cannot_rank() -> None:
    """It answers, and is refused before any work."""
    with pytest.raises(MissingCapability, match="cannot rank"):
        Backends().for_ranking("extractive")


@pytest.mark.parametrize("default", ["gpt", "extractive"])
def test_a_default_that_cannot_serve_stops_the_start(default: str) -> None:
    """A wrong setting is told at start, not with every request."""
    with pytest.raises(ConfigError, match=default):
        Backends(default=default)


@pytest.mark.parametrize(
    ("configured", "name", "known"), [([GEMMA], "gema", "gemma"), ([GEMMA], "none", "gemma"), ([], "gemma", "none")]
)
def test_an_unknown_name_in_the_order_stops_the_start(configured: list[Backend], name: str, known: str) -> None:
    """A misspelt backend in [routing], or one that is no model, is told at start with the names that there are."""
    with pytest.raises(ConfigError, match=rf"auto in \[routing\] names {name}; the backends declared are {known}$"):
        Backends(configured, auto=("gemma", name) if configured else (name,))


def test_a_configured_backend_ranks() -> None:
    """It is known by its name and kind, and ranks and talks as far as anybody knows yet."""
    told = BackendSettings(kind="ollama", url="http://127.0.0.1:1/v1", model="gemma3:4b")
    backends = Backends(declared({"gemma": told}))
    roles: tuple[Role, ...] = ("rank", "answer", "chat")
    assert backends.named("gemma") == Backend(name="gemma", kind="ollama", model="gemma3:4b", roles=roles)
    assert backends.for_ranking("auto").used == "gemma"


@pytest.mark.parametrize(
    ("requested", "ranks", "default", "meant", "used"),
    [
        ("gemma", None, "auto", "gemma", "gemma"),
        ("extractive", "gemma", "auto", "extractive", "extractive"),
        (None, "gemma", "none", "gemma", "gemma"),
        (None, "none", "auto", "extractive", "extractive"),
        (None, None, "none", "extractive", "extractive"),
        (None, None, "auto", "auto", "gemma"),
        ("auto", "none", "none", "auto", "gemma"),
    ],
)
def test_who_answers(requested: str | None, ranks: str | None, default: str, meant: str, used: str) -> None:
    """Whoever is asked to, else who ranks, else the default; where nobody ranks, quoting is what is meant."""
    use = Backends([GEMMA], default=default).for_answering(requested, ranks)
    assert (use.requested, use.used) == (meant, used)


def test_without_a_model_answers_are_quotes() -> None:
    """Auto finds the one that is always there."""
    assert Backends().for_answering(None).used == "extractive"


def test_who_cannot_answer_is_refused() -> None:
    """By name "none" is nobody; the refusal lists who can."""
    with pytest.raises(MissingCapability, match="auto, extractive, gemma"):
        Backends([GEMMA]).for_answering("none")
