"""`winnow batch FILE --out FILE` as a shell starts it: with a service or without, killed, interrupted, over budget."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from tests.fakes.faults import Fault
from tests.fakes.gemini_refusals import KEY
from tests.fakes.gemini_server import GeminiServer, Said
from tests.fakes.models import gemini
from tests.fakes.running import RunningServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]

TEXTS = 1500


@asynccontextmanager
async def command(home: Path, *arguments: str, before: Sequence[str] = ()) -> AsyncIterator[asyncio.subprocess.Process]:
    """With the words of `before` in front of it."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("WINNOW_", "QDRANT_"))}
    process = await asyncio.create_subprocess_exec(
        *(*before, sys.executable, "-m", "app.cli.main", "batch", *arguments),
        cwd=home,
        env={**mine, "PYTHONPATH": str(ROOT), "WINNOW_HOME": str(home / "home")},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def batch(home: Path, *arguments: str) -> tuple[int | None, str]:
    """Exit status and standard error of a whole run."""
    async with command(home, *arguments) as process:
        _, said = await process.communicate()
        return process.returncode, said.decode()


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def outputs(home: Path) -> list[str]:
    return sorted(path.name for path in home.glob("out*"))


def check(out: Path, texts: int) -> None:
    """Every text is there once, in order, with its own reply."""
    found = rows(out)
    assert [row["id"] for row in found] == list(range(1, texts + 1))
    assert [row["text"] for row in found] == [f"You said: text {number}" for number in range(texts)]


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    async with GeminiServer() as server:
        yield server


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"text {number}\n" for number in range(TEXTS)))
    return path


@pytest.fixture
async def service(tmp_path: Path, server: GeminiServer) -> AsyncIterator[RunningServer]:
    told = msgspec.json.encode({"flash": gemini(server)}).decode()
    (tmp_path / "home").mkdir()
    running = await asyncio.to_thread(RunningServer, tmp_path / "home", "tests.fakes.model_service", told)
    yield running
    await asyncio.to_thread(running.close)


def settings(home: Path, server: GeminiServer) -> None:
    """Of the commands that run by themselves."""
    (home / "winnow.toml").write_text(
        f'[backends.flash]\nkind = "gemini"\nurl = "{server.url}"\nmodel = "{server.models[0]}"\napi_key = "{KEY}"\n'
    )


async def test_twenty_kills_lose_and_double_nothing(
    tmp_path: Path, texts: Path, server: GeminiServer, service: RunningServer
) -> None:
    """Whenever they come: the run after the last one ends with every line once, in order."""
    random, out = Random(14), tmp_path / "out.jsonl"
    arguments = (str(texts), "--out", str(out), "--concurrency", "4")
    killed = 0
    for _ in range(20):
        async with command(tmp_path, *arguments) as process:
            await server.asked(len(server.calls) + random.randint(1, 30))
            process.kill()
            killed += await process.wait() == -signal.SIGKILL
    assert killed == 20
    with out.open("ab") as file:  # a kill in the middle of a write
        file.write(b'{"id":')
    status, said = await batch(tmp_path, *arguments)
    assert status == 0, said
    check(out, TEXTS)


async def test_without_a_service_the_command_works_by_itself(tmp_path: Path, texts: Path, server: GeminiServer) -> None:
    """With the settings of its directory; what it used is in the ledger; a second run has nothing to do."""
    settings(tmp_path, server)
    out = tmp_path / "out.jsonl"
    status, said = await batch(tmp_path, str(texts), "--out", str(out), "--system", "Be brief.")
    assert status == 0, said
    check(out, TEXTS)
    assert (len(server.bodies), f"{TEXTS:,} texts, 0 failed" in said) == (TEXTS, True)
    status, said = await batch(tmp_path, str(texts), "--out", str(out), "--system", "Be brief.")
    assert (status, len(server.bodies)) == (0, TEXTS)
    status, said = await batch(tmp_path, str(texts), "--out", str(out), "--system", "Be long.")
    assert (status, "--restart" in said) == (3, True), said


async def test_a_budget_and_ctrl_c_stop_it_in_good_order(
    tmp_path: Path, texts: Path, server: GeminiServer, service: RunningServer
) -> None:
    """What is paid is written; the next run goes on."""
    out = tmp_path / "out.jsonl"
    server.slow_s = 0.01
    async with command(tmp_path, str(texts), "--out", str(out), "--concurrency", "2") as process:
        await server.asked(20)
        process.send_signal(signal.SIGINT)
        _, said = await process.communicate()
    assert process.returncode == 130, said.decode()
    assert len(rows(out)) >= 4
    cost = sum(row["cost_usd"] for row in rows(out)) / len(rows(out))
    status, said_of_budget = await batch(tmp_path, str(texts), "--out", str(out), "--budget", f"{100.5 * cost:.9f}")
    assert status == 1, said_of_budget
    assert sum(row["cost_usd"] for row in rows(out)) <= 100.5 * cost
    assert len(rows(out)) < TEXTS
    status, said_at_last = await batch(tmp_path, str(texts), "--out", str(out))
    assert status == 0, said_at_last
    check(out, TEXTS)


async def test_batches_at_half_the_price_are_collected_after_a_kill(
    tmp_path: Path, texts: Path, server: GeminiServer
) -> None:
    """The next run waits for the batch that the killed one submitted."""
    settings(tmp_path, server)
    out, server.looks = tmp_path / "out.jsonl", 10**6
    async with command(tmp_path, str(texts), "--out", str(out), "--batch") as process:
        async with asyncio.timeout(60):
            while not server.batches:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        process.kill()
    server.batches[0].looks = 1
    status, said = await batch(tmp_path, str(texts), "--out", str(out), "--batch")
    assert status == 0, said
    check(out, TEXTS)
    assert len(server.batches) == 1
    assert len(server.bodies) == 1  # nothing was asked at the full price


async def test_a_storm_of_refusals_for_the_moment_is_waited_out(
    tmp_path: Path, texts: Path, server: GeminiServer, service: RunningServer
) -> None:
    """Every call is told to come back, hundreds of times: each text is written once, and none has failed."""
    server.retry_after_s = 0.05
    server.script.extend([Fault.RATE_LIMITED_WITH_DELAY] * 300)
    out = tmp_path / "out.jsonl"
    status, said = await batch(tmp_path, str(texts), "--out", str(out))
    assert status == 0, said
    check(out, TEXTS)
    assert not server.script


async def test_an_output_that_fills_its_disk_is_gone_on_with(
    tmp_path: Path, texts: Path, service: RunningServer
) -> None:
    """One clear error; what is whole stays, and what it cost is not paid again."""
    out = tmp_path / "out.jsonl"
    room = ("bash", "-c", 'ulimit -f 20; exec "$0" "$@"')  # of 1,024 bytes each
    async with command(tmp_path, str(texts), "--out", str(out), before=room) as process:
        _, said = await process.communicate()
    assert (process.returncode, "cannot be written: File too large" in said.decode()) == (3, True), said.decode()
    assert 0 < len(out.read_bytes().splitlines()) < TEXTS
    status, said_at_last = await batch(tmp_path, str(texts), "--out", str(out))
    assert status == 0, said_at_last
    check(out, TEXTS)


async def test_failed_texts_are_tried_again_when_asked_for(
    tmp_path: Path, texts: Path, server: GeminiServer, service: RunningServer
) -> None:
    """Those alone; the output is whole at every moment."""
    server.answers.extend([Said(pieces=("",), finish="SAFETY")] * 2)
    out = tmp_path / "out.jsonl"
    status, said = await batch(tmp_path, str(texts), "--out", str(out))
    assert (status, "2 failed" in said) == (1, True), said
    assert [row["error"]["type"] for row in rows(out) if "error" in row] == ["urn:winnow:problem:refused"] * 2
    status, said = await batch(tmp_path, str(texts), "--out", str(out))
    assert (status, len(server.bodies)) == (1, TEXTS), said
    status, said = await batch(tmp_path, str(texts), "--out", str(out), "--retry-failed")
    assert (status, len(server.bodies)) == (0, TEXTS + 2), said
    check(out, TEXTS)
    assert outputs(tmp_path) == ["out.jsonl", "out.jsonl.run.json"]
