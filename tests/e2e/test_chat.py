"""`winnow chat` and `winnow complete` as a shell starts it: with a service or without one."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.fakes.gemini_server import GeminiServer
from tests.fakes.models import gemini
from tests.fakes.running import RunningServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


async def winnow(home: Path, *arguments: str, said: str = "") -> tuple[int | None, str, str]:
    """Exit status, standard output and standard error."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("WINNOW_", "QDRANT_"))}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli.main", *arguments),
        cwd=home,
        env={**mine, "PYTHONPATH": str(ROOT), "WINNOW_HOME": str(home / "home")},
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )
    out, err = await process.communicate(said.encode())
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    async with GeminiServer() as server:
        yield server


@pytest.fixture(params=["with a service", "alone"])
async def home(request: pytest.FixtureRequest, tmp_path: Path, server: GeminiServer) -> AsyncIterator[Path]:
    """A directory whose commands reach the fake, through a service or by themselves."""
    (tmp_path / "home").mkdir()
    backend = gemini(server)
    if request.param == "alone":
        (tmp_path / "winnow.toml").write_text(
            f'[backends.flash]\nkind = "gemini"\nurl = "{backend.url}"\n'
            f'api_key = "{backend.api_key}"\nmodel = "{backend.model}"\n'
        )
        yield tmp_path
        return
    told = msgspec.json.encode({"flash": backend}).decode()
    running = await asyncio.to_thread(RunningServer, tmp_path / "home", "tests.fakes.model_service", told)
    yield tmp_path
    await asyncio.to_thread(running.close)


async def test_a_message_gets_its_reply_and_its_price(home: Path) -> None:
    """The reply on standard output, what it cost on standard error; from a pipe too."""
    status, out, err = await winnow(home, "chat", "hello", "--system", "Be brief.")
    assert (status, out) == (0, "You said: hello\n")
    assert err.startswith("flash: ")
    assert "$" in err
    assert (await winnow(home, "chat", said="good day\n"))[:2] == (0, "You said: good day\n")
    status, _, err = await winnow(home, "chat")
    assert (status, "standard input is empty" in err) == (2, True)


async def test_a_backend_that_is_not_there_is_wrong_usage(home: Path) -> None:
    """One line that names those that are."""
    status, out, err = await winnow(home, "chat", "hello", "--backend", "gpt")
    assert (status, out) == (2, "")
    assert "flash" in err


async def test_what_belongs_at_the_cursor_is_printed(home: Path) -> None:
    """Of a file, of two texts, or of a pipe; the model sees both sides, and the file stays as it is."""
    code = home / "greeting.py"
    code.write_text("def f(x):\n    return \n\nprint(f(1))\n")
    before = code.read_bytes()
    status, out, err = await winnow(home, "complete", "greeting.py:2")
    assert status == 0, err
    assert "def f(x):" in out
    assert "After the cursor:" in out  # and it stops where the suffix would begin
    assert err.startswith("flash (")
    assert code.read_bytes() == before
    assert (await winnow(home, "complete", "--prefix", "Dear", "--suffix", "Regards"))[0] == 0
    assert "Dear Sir" in (await winnow(home, "complete", said="Dear Sir"))[1]
    status, _, err = await winnow(home, "complete", "greeting.py:9")
    assert (status, "no line 9" in err) == (2, True)
    assert (await winnow(home, "complete", said=""))[0] == 2
