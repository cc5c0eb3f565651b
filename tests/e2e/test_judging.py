"""`winnow classify`, `winnow moderate` and `winnow translate` as a shell starts them, with a service and without."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import anyio.to_thread
import httpx
import msgspec
import pytest

from app.config.settings import ServiceSettings
from tests.e2e.test_batch_files import outputs, rows, settings
from tests.e2e.test_cli import winnow
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.labelling_mind import labels_of
from tests.fakes.models import gemini
from tests.fakes.running import RunningServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TWO = ("--label", "POSITIVE=it is good", "--label", "NEGATIVE")


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    async with GeminiServer() as server:
        server.mind = labels_of()
        yield server


async def run(home: Path, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    return await anyio.to_thread.run_sync(lambda: winnow(home, *arguments, stdin=stdin, WINNOW_HOME=str(home / "home")))


async def test_texts_of_the_command_line_are_classified_here(tmp_path: Path, server: GeminiServer) -> None:
    """A line for each text, in order; one that fails is told, and the exit status is 1."""
    settings(tmp_path, server)
    status, out, err = await run(tmp_path, "classify", "a good day", "bad news", *TWO)
    assert (status, out) == (0, "POSITIVE 0.90  a good day\nNEGATIVE 0.80  bad news\n"), err
    status, out, err = await run(tmp_path, "classify", "good", "", *TWO, "--json")
    assert (status, json.loads(out.splitlines()[0])["label"], out.count('"error":')) == (1, "POSITIVE", 1)
    status, out, err = await run(tmp_path, "classify", "good", "--label", "ALONE")
    assert (status, "/labels" in err) == (2, True)
    status, out, err = await run(tmp_path, "translate", "good", "--to", "de", "--term", "good")
    assert (status, "--term" in err) == (2, True)


async def test_lines_of_a_pipe_are_texts(tmp_path: Path, server: GeminiServer) -> None:
    """Blank ones are none; what cannot be gone on with goes into no file."""
    settings(tmp_path, server)
    status, out, err = await run(tmp_path, "classify", "-", *TWO, stdin="a good day\n\n bad news\n")
    assert (status, out) == (0, "POSITIVE 0.90  a good day\nNEGATIVE 0.80   bad news\n"), err
    status, _, err = await run(tmp_path, "moderate", "-", stdin="\n")
    assert (status, "the pipe has no text" in err) == (2, True)
    status, _, err = await run(tmp_path, "classify", "-", "--out", "out.jsonl", stdin="a good day\n")
    assert (status, "a pipe cannot be gone on with" in err) == (2, True)


async def test_a_service_is_asked_for_all_of_them(tmp_path: Path, server: GeminiServer) -> None:
    """Texts and files, and a file with other options is refused."""
    (tmp_path / "home").mkdir()
    told = msgspec.json.encode({"flash": gemini(server)}).decode()
    service = await anyio.to_thread.run_sync(
        lambda: RunningServer(tmp_path / "home", "tests.fakes.model_service", told)
    )
    try:
        status, out, err = await run(tmp_path, "classify", "a good day", *TWO)
        assert (status, out) == (0, "POSITIVE 0.90  a good day\n"), err
        status, out, err = await run(tmp_path, "moderate", "a good day")
        assert (status, out) == (0, "not flagged  a good day\n"), err
        status, out, err = await run(tmp_path, "translate", "a good day", "--to", "de", "--json")
        assert (status, "translation" in json.loads(out)) == (0, True), err
        _table(tmp_path / "texts.csv")
        file = ("classify", "texts.csv", "--field", "body", "--out", "out.jsonl")
        status, _, err = await run(tmp_path, *file, *TWO)
        assert status == 0, err
        assert [(row["id"], row["label"]) for row in rows(tmp_path / "out.jsonl")] == [
            (f"t{number}", "POSITIVE" if number % 2 else "NEGATIVE") for number in range(200)
        ]
        status, _, err = await run(tmp_path, *file, *TWO, "--multi-label")
        assert (status, "--restart" in err) == (3, True)
        assert outputs(tmp_path) == ["out.jsonl", "out.jsonl.run.json"]
    finally:
        await anyio.to_thread.run_sync(service.close)


async def test_a_client_that_leaves_while_its_rows_wait_ends_the_calls(tmp_path: Path) -> None:
    """Nothing of its body is read any more, since no text has come back; it is noticed all the same."""
    async with GeminiServer(choose=lambda: Fault.SLOW_FIRST_BYTE, slow_s=3600) as server:
        told = msgspec.json.encode({"flash": gemini(server)}).decode()
        service = await anyio.to_thread.run_sync(lambda: RunningServer(tmp_path, "tests.fakes.model_service", told))
        try:
            address = urlsplit(service.url)
            _, client = await asyncio.open_connection(address.hostname, address.port)
            client.write(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n")
            client.write(b"Content-Length: 1000000\r\n\r\n")
            client.write(b"".join(b'"text %d"\n' % number for number in range(1000)))
            await server.asked(2)
            client.close()
            while server.open_connections or not server.cancelled:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.01)
            assert len(server.calls) < 1000 / 8
        finally:
            await anyio.to_thread.run_sync(service.close)


async def test_a_client_may_wait_for_its_results_before_it_sends_more(tmp_path: Path) -> None:
    """However long they take: its body stands still, but it is the service that is waited for."""
    async with GeminiServer(choose=lambda: Fault.SLOW_FIRST_BYTE, slow_s=5) as server:
        server.mind = labels_of()
        told = msgspec.json.encode({"flash": gemini(server)}).decode()
        limits = ServiceSettings(body_timeout_s=1)
        service = await anyio.to_thread.run_sync(
            lambda: RunningServer(tmp_path, "tests.fakes.model_service", told, msgspec.json.encode(limits).decode())
        )
        try:
            address = urlsplit(service.url)
            reader, client = await asyncio.open_connection(address.hostname, address.port)
            client.write(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n")
            client.write(b"Content-Length: 20\r\n\r\n")
            client.write(b'"a good "\n')
            assert b'"POSITIVE"' in await reader.readuntil(b'"cost_usd"')
            client.write(b'"bad one"\n')
            assert b'"NEGATIVE"' in await reader.readuntil(b'"done":true')
            client.close()
        finally:
            await anyio.to_thread.run_sync(service.close)


async def test_a_connection_serves_one_body_of_rows_after_another(tmp_path: Path, server: GeminiServer) -> None:
    """The end of a response is not taken for the end of the connection."""
    told = msgspec.json.encode({"flash": gemini(server)}).decode()
    service = await anyio.to_thread.run_sync(lambda: RunningServer(tmp_path, "tests.fakes.model_service", told))
    try:
        async with httpx.AsyncClient(base_url=service.url, trust_env=False, timeout=60) as client:
            for _ in range(4):
                headers = {"content-type": "application/x-ndjson"}
                response = await client.post("/classify", content=b'"a good day"\n"bad"\n', headers=headers)
                assert response.content.count(b"\n") == 3
                assert b'"done":true' in response.content
    finally:
        await anyio.to_thread.run_sync(service.close)


def _table(path: Path) -> None:
    lines = (f't{number},"a {"good" if number % 2 else "bad"}\nday, number {number}"' for number in range(200))
    path.write_text("\n".join(("id,body", *lines)))
