"""The providers, and what adding one takes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.backends.registry import PROVIDERS, discovered, setup_hint
from app.config.validation import load_settings
from app.errors import ConfigError
from tests.fakes.models import client_of, services_for
from tests.fakes.toy_provider import TOY

pytestmark = pytest.mark.anyio


@pytest.fixture
def toy() -> Iterator[None]:
    """The one line that registers a provider, taken back afterwards."""
    PROVIDERS["toy"] = TOY
    yield
    del PROVIDERS["toy"]


@pytest.mark.usefixtures("toy")
async def test_a_provider_is_a_package_and_a_line(tmp_path: Path) -> None:
    """A new kind is configured by its own variable, serves POST /chat, and is priced, without a change elsewhere."""
    backends = load_settings({"TOY_URL": "http://toys:1", "TOY_API_KEY": "k"}, tmp_path).backends
    assert (backends["toy"].url, backends["toy"].api_key, backends["toy"].model) == (
        "http://toys:1/v1",
        "k",
        "parrot-1",
    )
    async with client_of(services_for(tmp_path, backends)) as client:
        reply = (await client.post("/chat", json={"message": "hello", "backend": "toy"})).json()
        named = (await client.get("/backends")).json()
    assert (reply["text"], reply["backend"]["used"], reply["backend"]["model"]) == ("hello", "toy", "parrot-1")
    assert (reply["usage"]["output_tokens"], reply["usage"]["cost_usd"]) == (2, 0)
    assert "toy" in str(named)


@pytest.mark.usefixtures("toy")
def test_people_are_told_of_every_provider(tmp_path: Path) -> None:
    """A hint and a refusal name it like the others."""
    *others, last = (provider.variable for provider in PROVIDERS.values() if provider.variable)
    assert last == "TOY_URL"
    assert setup_hint() == f"set {', '.join(others)} or TOY_URL"
    (tmp_path / "winnow.toml").write_text('[backends.x]\nkind = "game"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"kind in \[backends.x\] must be vllm, .* or toy, not 'game'"):
        load_settings({}, tmp_path)


def test_the_environment_brings_what_it_names() -> None:
    """A URL where there is one to give, else a key; a key alone is no server."""
    assert discovered({"VLLM_API_KEY": "k", "OLLAMA_URL": ""}) == {}
    assert discovered({"GOOGLE_API_KEY": "k", "OLLAMA_URL": "u"}) == {
        "ollama": {"kind": "ollama"},
        "gemini": {"kind": "gemini"},
    }


def test_knowing_the_providers_loads_no_sdk() -> None:
    """Settings are read before anything heavy is needed."""
    code = "import sys, app.backends.registry; print(*{'openai', 'google.genai', 'httpx2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
