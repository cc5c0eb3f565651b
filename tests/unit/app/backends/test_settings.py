"""Backends, routing and budgets in the settings."""

from pathlib import Path

import pytest

from app.backends.gemini import GEMINI_MODEL
from app.backends.settings import KeyBudget
from app.config.validation import load_settings
from app.errors import ConfigError


def write(directory: Path, text: str) -> None:
    (directory / "winnow.toml").write_text(text, encoding="utf-8")


def test_without_keys_and_urls_there_is_no_backend(tmp_path: Path) -> None:
    """Nothing is guessed: Ollama's usual address is not tried unless somebody names it."""
    assert load_settings({}, tmp_path).backends == {}


def test_the_environment_alone_brings_backends(tmp_path: Path) -> None:
    """A key brings Gemini, a URL the server behind it; the user's own machines come first."""
    environ = {
        "GEMINI_API_KEY": "g",
        "VLLM_URL": "http://gpu:8000",
        "VLLM_API_KEY": "v",
        "OLLAMA_URL": "http://o:1/v1/",
    }
    backends = load_settings(environ, tmp_path).backends
    assert list(backends) == ["vllm", "ollama", "gemini"]
    assert (backends["vllm"].url, backends["vllm"].api_key) == ("http://gpu:8000/v1", "v")
    assert backends["ollama"].url == "http://o:1/v1"
    assert (backends["gemini"].api_key, backends["gemini"].model) == ("g", GEMINI_MODEL)


def test_the_files_order_is_kept_and_its_names_win(tmp_path: Path) -> None:
    """A declared backend of the name that the environment would bring is completed from it, not doubled."""
    write(
        tmp_path,
        '[backends.flash]\nkind = "gemini"\n'
        '[backends.vllm]\nkind = "vllm"\nmodel = "google/gemma-3-4b-it"\ngpu_usd_per_hour = 0.25\n'
        '[routing]\nauto = ["vllm", "flash"]\n',
    )
    settings = load_settings(
        {"GOOGLE_API_KEY": "k", "GEMINI_API_KEY": "other", "VLLM_URL": "http://gpu:8000"}, tmp_path
    )
    assert list(settings.backends) == ["flash", "vllm", "gemini"]
    assert settings.backends["flash"].api_key == "k"
    assert settings.backends["vllm"].url == "http://gpu:8000/v1"
    assert settings.backends["vllm"].gpu_usd_per_hour == 0.25
    assert settings.routing.auto == ("vllm", "flash")


def test_every_key_of_a_backend_has_a_variable(tmp_path: Path) -> None:
    """Variables override a declared backend, tables as JSON, and a KIND alone declares one."""
    write(tmp_path, '[backends.my-gpu]\nkind = "vllm"\nurl = "http://a/v1"\n')
    environ = {
        "WINNOW_BACKENDS_MY_GPU_URL": "http://b:9/v1",
        "WINNOW_BACKENDS_MY_GPU_PRICE": '{"input": 0.1, "output": 0.4}',
        "WINNOW_BACKENDS_SMALL_KIND": "ollama",
        "WINNOW_BUDGETS_DAILY_USD": "2.5",
        "WINNOW_BUDGETS_KEYS": '{"*": {"daily_usd": 1}}',
    }
    settings = load_settings(environ, tmp_path)
    gpu, small = settings.backends["my-gpu"], settings.backends["small"]
    assert gpu.url == "http://b:9/v1"
    assert gpu.price is not None
    assert (gpu.price.input, gpu.price.output, gpu.price.cached) == (0.1, 0.4, None)
    assert (small.kind, small.url) == ("ollama", "http://127.0.0.1:11434/v1")
    assert settings.budgets.daily_usd == 2.5
    assert settings.budgets.keys == {"*": KeyBudget(daily_usd=1)}


def test_a_project_is_as_good_as_a_key(tmp_path: Path) -> None:
    """Through Google Cloud the surrounding credentials count, not a key that happens to be there."""
    write(tmp_path, '[backends.cloud]\nkind = "gemini"\nproject = "p"\nlocation = "europe-west1"\n')
    assert load_settings({"GEMINI_API_KEY": "k"}, tmp_path).backends["cloud"].api_key is None


@pytest.mark.parametrize(
    ("text", "environ", "says"),
    [
        ('[backends.auto]\nkind = "gemini"\n', {}, "'auto' is reserved"),
        ('[backends."a b"]\nkind = "gemini"\n', {}, "a backend name must be"),
        ("[backends.x]\n", {}, r"\[backends.x\] needs a kind"),
        ('[backends.x]\nkind = "vllm"\n', {}, r"\[backends.x\] needs a url.*VLLM_URL"),
        ('[backends.x]\nkind = "openai"\n', {}, r"\[backends.x\] needs a url"),
        ('[backends.x]\nkind = "gemini"\n', {}, r"\[backends.x\] needs a key: set GEMINI_API_KEY"),
        ('[backends.x]\nkind = "gpt"\n', {}, r"kind in \[backends.x\]"),
        ('[backends.x]\nkind = "vllm"\nurl = "gpu:8000"\n', {}, "is not like http://"),
        ('[backends.x]\nkind = "vllm"\nurl = "http://gpu:99999"\n', {}, "is not like http://"),
        ('[backends.x]\nkind = "openai"\nurl = "ftp://host/v1"\n', {}, "is not like http://"),
        ('[backends.x]\nkind = "openai"\nurl = "http:///v1"\n', {}, "is not like http://"),
        ('[backends.x]\nkind = "openai"\nurl = "http://[::1/v1"\n', {}, "is not like http://"),
        ('[backends.x]\nkind = "openai"\nurl = "http://two words/v1"\n', {}, "is not like http://"),
        ('[backends.x]\nkind = "ollama"\nurl = "http://h:port/v1"\n', {}, "is not like http://"),
        ('[backends.x]\nkind = "gemini"\nurl = "localhost:80"\n', {"GEMINI_API_KEY": "k"}, "is not like http://"),
        ("", {"GEMINI_API_KEY": "clé"}, r"\[backends.gemini\].*invalid characters; check api_key and .*GEMINI_API_KEY"),
        (
            '[backends.x]\nkind = "vllm"\nurl = "http://h"\napi_key = "two\\nlines"\n',
            {},
            r"\[backends.x\]: the API key contains invalid",
        ),
        ('[backends.x]\nkind = "vllm"\nmodle = "m"\n', {}, "did you mean model"),
        ('[backends.x]\nkind = "ollama"\nconcurrency = 0\n', {}, "concurrency"),
        ("backends = 3\n", {}, r"written \[backends\]"),
        ("[backends]\nx = 3\n", {}, r"written \[backends.x\]"),
        ("", {"WINNOW_BACKENDS_X_MODEL": "m"}, "unknown variable WINNOW_BACKENDS_X_MODEL"),
        ("", {"WINNOW_BUDGETS_KEYS": "{"}, "WINNOW_BUDGETS_KEYS: not a JSON object"),
        ("[budgets]\ndaily_usd = -1\n", {}, "daily_usd"),
    ],
)
def test_what_cannot_work_stops_the_start(tmp_path: Path, text: str, environ: dict[str, str], says: str) -> None:
    """One clear line that names the backend, the key and the fix."""
    write(tmp_path, text)
    with pytest.raises(ConfigError, match=says):
        load_settings(environ, tmp_path)


def test_a_key_is_never_shown(tmp_path: Path) -> None:
    """A key of the wrong type is not repeated in the error."""
    write(tmp_path, '[backends.x]\nkind = "gemini"\napi_key = 424242\n')
    with pytest.raises(ConfigError) as failure:
        load_settings({}, tmp_path)
    assert "424242" not in str(failure.value)


def test_a_backend_may_have_several_servers(tmp_path: Path) -> None:
    """Their addresses stand in one setting, in the file as in the environment; each is checked and completed."""
    write(tmp_path, '[backends.gemma]\nkind = "vllm"\nurl = "http://a:1, http://b:2/v1/"\n')
    backends = load_settings({"OLLAMA_URL": "http://c,http://d"}, tmp_path).backends
    assert backends["gemma"].urls == ("http://a:1/v1", "http://b:2/v1")
    assert backends["ollama"].urls == ("http://c/v1", "http://d/v1")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://a:1, b:2", r"url 'b:2' is not like http://127.0.0.1:8001/v1"),
        ("http://a:1,", r"url '' is not like"),
        ("http://a:1, http://a:1/v1", r"url names http://a:1/v1 twice; name each server once"),
    ],
)
def test_a_wrong_address_among_several_is_named(tmp_path: Path, url: str, problem: str) -> None:
    """The one that is wrong, and how it should be."""
    write(tmp_path, f'[backends.gemma]\nkind = "vllm"\nurl = "{url}"\n')
    with pytest.raises(ConfigError, match=problem):
        load_settings({}, tmp_path)


def test_gemini_has_one_address(tmp_path: Path) -> None:
    """A second one is refused rather than taken for a part of the first."""
    write(tmp_path, '[backends.flash]\nkind = "gemini"\napi_key = "k"\nurl = "http://a,http://b"\n')
    with pytest.raises(ConfigError, match=r"\[backends.flash\]: url 'http://a,http://b' is not like"):
        load_settings({}, tmp_path)
