"""`winnow bench` and `winnow cost` as a shell starts them."""

from pathlib import Path

import msgspec
import pytest

from tests.e2e.test_chat import winnow
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.models import gemini, openai_style
from tests.fakes.openai_server import OpenAIServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_what_was_measured_is_used_by_the_estimate(tmp_path: Path) -> None:
    """Of a GPU, nobody is asked; the cost names date and machine; one that is down is told, with status 3."""
    async with OpenAIServer() as server:
        own = openai_style(server)
        (tmp_path / "winnow.toml").write_text(
            f'[backends.gemma]\nkind = "vllm"\nurl = "{own.url}"\ngpu_usd_per_hour = 0.36\n'
            '[backends.down]\nkind = "vllm"\nurl = "http://127.0.0.1:9/v1"\n'
        )
        status, out, err = await winnow(tmp_path, "bench", "--json")
        [found] = msgspec.json.decode(out)
        assert (status, found["backend"], found["model"]) == (3, "gemma", server.model.name)
        assert "down was not measured: " in err
        status, out, err = await winnow(tmp_path, "bench", "--backend", "gemma", "--markdown")
        assert (status, out.splitlines()[0]) == (0, "|  | gemma |"), err
    status, out, err = await winnow(tmp_path, "cost", "--input", "10M", "--output", "1M", "--json")
    estimate = msgspec.json.decode(out)
    assert estimate["self_hosted"][0]["speed_source"].startswith("winnow bench of 20")
    assert estimate["assumptions"][0]["name"] == f"speed of gemma ({server.model.name})"


async def test_what_may_cost_something_is_not_called_without_a_yes(tmp_path: Path) -> None:
    """The most that it may cost is said, and nothing is spent; with --yes it is done."""
    async with GeminiServer() as server:
        paid = gemini(server)
        (tmp_path / "winnow.toml").write_text(
            f'[backends.flash]\nkind = "gemini"\nurl = "{paid.url}"\n'
            f'api_key = "{paid.api_key}"\nmodel = "{paid.model}"\n'
        )
        status, out, err = await winnow(tmp_path, "bench")
        assert (status, out, server.calls) == (2, "", [])
        assert err.startswith("flash: at most $")
        assert "agree with --yes" in err
        status, out, err = await winnow(tmp_path, "bench", "--yes")
        assert status == 0, err
        assert "tokens/s, 16 at once" in out
