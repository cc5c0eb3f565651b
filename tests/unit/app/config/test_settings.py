"""Settings from the file and the environment."""

from pathlib import Path

import msgspec
import pytest

from app.config.settings import SECTIONS, Settings, misspelt_variables, variable_of
from app.config.validation import load_settings
from app.errors import ConfigError


def write(directory: Path, text: str, name: str = "winnow.toml") -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_needs_to_be_told(tmp_path: Path) -> None:
    """Without file and environment the defaults hold, and the home lies in the working directory."""
    settings = load_settings({}, tmp_path)
    assert (settings.service.host, settings.service.port) == ("127.0.0.1", 8000)
    assert settings.index.home == tmp_path / ".winnow"
    assert settings.store.url is None
    assert not settings.service.allow_anonymous


def test_the_file_is_read(tmp_path: Path) -> None:
    """Keys of the file replace defaults; a path in it counts from its folder."""
    write(tmp_path, '[service]\nport = 9000\nhosts = ["a", "b"]\n[index]\nhome = "data"\n[embedding]\nmodel = "m"\n')
    settings = load_settings({}, tmp_path)
    assert (settings.service.port, settings.service.hosts) == (9000, ("a", "b"))
    assert settings.index.home == tmp_path / "data"
    assert settings.embedding.model == "m"


def test_a_named_file_is_read_from_where_it_is(tmp_path: Path) -> None:
    """WINNOW_CONFIG may name a file in another folder; its paths count from there."""
    (tmp_path / "etc").mkdir()
    write(tmp_path / "etc", '[index]\nhome = "data"\n', "other.toml")
    assert load_settings({"WINNOW_CONFIG": "etc/other.toml"}, tmp_path).index.home == tmp_path / "etc" / "data"


def test_the_environment_wins(tmp_path: Path) -> None:
    """A variable overrides the file, under its short name or by the rule; an empty one is none."""
    write(tmp_path, "[service]\nport = 9000\n[answer]\nmin_relevance = 0.2\n")
    environ = {
        "WINNOW_PORT": "9001",
        "WINNOW_HOME": "home",
        "WINNOW_HOST": "",
        "WINNOW_ALLOW_ANONYMOUS": "1",
        "WINNOW_SERVICE_HOSTS": "a, b,",
        "WINNOW_ANSWER_MIN_RELEVANCE": "0.4",
        "WINNOW_EMBEDDING_BATCH_SIZE": "8",
        "QDRANT_URL": "http://qdrant:6333",
        "QDRANT_API_KEY": "s3cret",
        "PATH": "/bin",
    }
    settings = load_settings(environ, tmp_path)
    assert (settings.service.port, settings.service.host) == (9001, "127.0.0.1")
    assert settings.service.allow_anonymous
    assert settings.service.hosts == ("a", "b")
    assert settings.index.home == tmp_path / "home"
    assert settings.answer.min_relevance == 0.4
    assert settings.embedding.batch_size == 8
    assert (settings.store.url, settings.store.api_key) == ("http://qdrant:6333", "s3cret")


def test_every_key_has_a_variable(tmp_path: Path) -> None:
    """No key can be set by the file alone, and no two share a name."""
    keys = [(name, field.name) for name, kind in SECTIONS.items() for field in msgspec.structs.fields(kind)]
    names = [variable_of(*key) for key in keys]
    assert len(set(names)) == len(keys)
    assert variable_of("service", "log_level") == "WINNOW_SERVICE_LOG_LEVEL"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[service]\nprot = 1\n", r"winnow\.toml: unknown key in \[service\]: prot; did you mean port\?"),
        ("[servce]\n", r"winnow\.toml: unknown section servce; did you mean service\?"),
        ("[xyz]\n", r"unknown section xyz; known are access, answer, backends, budgets, compat, database, embedding"),
        ("port = 1\n", r"unknown section port"),
        ("service = 1\n", r"service must be a section, written \[service\]"),
        ("[service]\nport = '80'\n", r"port in \[service\]: Expected int, got str \('80' is given\)"),
        ("[service]\nport = 70000\n", r"port in \[service\]: Expected int <= 65535 \(70000 is given\)"),
        ("[service]\nlog_format = 'xml'\n", r"log_format in \[service\]"),
        ("[index]\nhome = 3\n", r"home in \[index\]: Expected str"),
        ("[answer]\nmin_relevance = 2\n", r"min_relevance in \[answer\]"),
        ("[service\n", r"winnow\.toml: not valid TOML"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: str, says: str) -> None:
    """The error names the file, the key and the way out."""
    write(tmp_path, text)
    with pytest.raises(ConfigError, match=says):
        load_settings({}, tmp_path)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"WINNOW_CONFIG": "nowhere.toml"}, r"nowhere\.toml: cannot be read"),
        ({"WINNOW_PORT": "http"}, "WINNOW_PORT: Expected int"),
        ({"WINNOW_PORT": "-1"}, "WINNOW_PORT: Expected int >= 0"),
        ({"WINNOW_ALLOW_ANONYMOUS": "perhaps"}, "WINNOW_ALLOW_ANONYMOUS: Expected bool"),
        (
            {"WINNOW_EMBEDDING_MODLE": "m"},
            "WINNOW_EMBEDDING_MODLE; did you mean WINNOW_EMBEDDING_MODEL",
        ),
    ],
)
def test_a_bad_variable_is_one_clear_line(tmp_path: Path, environ: dict[str, str], says: str) -> None:
    """The error names the variable."""
    with pytest.raises(ConfigError, match=says):
        load_settings(environ, tmp_path)


def test_a_key_is_not_shown_in_an_error(tmp_path: Path) -> None:
    """What might be a secret is not repeated."""
    write(tmp_path, "[store]\napi_key = 12345\n")
    with pytest.raises(ConfigError) as caught:
        load_settings({}, tmp_path)
    assert "12345" not in str(caught.value)


def test_kubernetes_own_variables_are_not_ours(tmp_path: Path) -> None:
    """A Service called "winnow" puts addresses under names that look like settings; they change nothing."""
    links = {
        "WINNOW_PORT": "tcp://10.0.0.1:8000",
        "WINNOW_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "WINNOW_SERVICE_HOST": "10.0.0.1",
        "WINNOW_SERVICE_PORT": "8000",
        "WINNOW_SERVICE_PORT_HTTP": "8000",
    }
    assert load_settings(links, tmp_path) == load_settings({}, tmp_path)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("WINNOW_HOEM", "WINNOW_HOME"),
        ("QDRANT_ULR", "QDRANT_URL"),
        ("QDRANT_APIKEY", "QDRANT_API_KEY"),
        ("VLLM_ULR", "VLLM_URL"),
        ("WINNOW_CONFG", "WINNOW_CONFIG"),
        ("WINNOW_TELEMETRY", "docs/configuration.md"),
    ],
)
def test_a_variable_without_effect_is_told_with_the_one_meant(variable: str, meant: str) -> None:
    """Whatever begins with our name, and what is nearly one of the other names."""
    [sentence] = misspelt_variables({variable: "x", "PATH": "/bin"})
    assert (variable in sentence, meant in sentence) == (True, True)


def test_variables_of_others_and_our_own_are_not_warned_of() -> None:
    """Other programs' keys and addresses, links of Kubernetes, and every variable that has an effect."""
    others = (
        "GOOGLE_MAPS_API_KEY",
        "OLLAMA_HOST",
        "QDRANT__SERVICE__API_KEY",
        "QDRANT_PORT_6333_TCP_ADDR",
        "OPENAI_API_KEY",
    )
    links = ("WINNOW_PORT_8000_TCP", "WINNOW_PORT_8000_TCP_ADDR", "WINNOW_API_SERVICE_HOST", "WINNOW_API_PORT")
    own = (
        "WINNOW_HOME",
        "WINNOW_CONFIG",
        "WINNOW_RANKING_DEPTH",
        "WINNOW_BACKENDS_X_KIND",
        "QDRANT_URL",
        "GEMINI_API_KEY",
    )
    assert misspelt_variables((*others, *links, *own)) == []


def test_settings_cannot_be_changed() -> None:
    """Frozen: a service cannot drift from what it was told."""
    with pytest.raises(AttributeError):
        Settings().service = None  # type: ignore[misc, assignment]


def test_what_a_reader_may_spend_can_be_told(tmp_path: Path) -> None:
    """Section [reading], by file and environment; a bound of nothing is refused."""
    write(tmp_path, "[reading]\nmax_pages = 7\n")
    reading = load_settings({"WINNOW_READING_MAX_SECONDS": "1.5"}, tmp_path).reading
    assert (reading.max_pages, reading.max_seconds) == (7, 1.5)
    with pytest.raises(ConfigError, match="WINNOW_READING_MAX_BYTES"):
        load_settings({"WINNOW_READING_MAX_BYTES": "0"}, tmp_path)
