"""Ends the service by SIGTERM in the middle of what it may be doing.

    python -m benchmarks.stopping [--real] [--only TEXT]

For each state: the seconds until the process has ended, its exit status, whether it logged a traceback, and what its
clients saw. Required: 10 s, status 0, no traceback, and no client whose connection just breaks. By default the embedder
is a fake that takes its time; `--real` runs the states that need no other with the configured model. A fake vLLM
streams slowly. Exit status 1 if something required was missed.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec

from benchmarks.service import QUICK, REAL, WORDS, Service, detail, documents, put, rare_word, text_of
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

AT_MOST_S = 10.0
BEGUN_S = 1.5
"""After so long a state is taken to be in full swing."""

MANY = 150
"""Documents of a large upload, each of some ten passages."""


class State(msgspec.Struct, frozen=True):
    """`clients` do what is to be interrupted, and tell what they saw. It is under way once `collection` exists."""

    name: str
    clients: Callable[[Service], Awaitable[str]]
    settings: Mapping[str, str] = {}
    ready: bool = True
    real: bool = True
    collection: str = "known"


async def told(response: Awaitable[httpx.Response]) -> str:
    """The status of an answer, or how it failed."""
    try:
        answer = await response
    except httpx.TransportError as exc:
        return type(exc).__name__
    return f"{answer.status_code}{f' {detail(answer)[:60]}' if answer.status_code >= 400 else ''}"


async def idle(_: Service) -> str:
    """Nothing is under way."""
    return ""


async def searching_while_loading(service: Service) -> str:
    """A search that waits for the model."""
    async with service.client() as client:
        return f"search {await told(client.post('/search', json={'query': 'garden', 'collection': 'known'}))}"


async def small_uploads(service: Service) -> str:
    """Eight clients write small documents one after another."""
    outcomes = Counter[str]()

    async def write(number: int) -> None:
        async with service.client() as client:
            for count in range(10_000):
                outcome = await told(put(client, "small", documents({f"{number}-{count}": "word"}, 1)))
                outcomes[outcome] += 1
                if outcome != "200":
                    return

    await asyncio.gather(*(write(number) for number in range(8)))
    return str(dict(outcomes))


async def large_upload(service: Service) -> str:
    """A job, and a client that asks for it."""
    async with service.client() as client:
        words = {f"d{number}": rare_word("stop", number) for number in range(MANY)}
        response = await client.post("/documents", json={"documents": documents(words, 200)}, params={"wait": "false"})
        outcome = f"upload {response.status_code}"
        while response.status_code in (200, 202):
            await asyncio.sleep(0.1)
            try:
                response = await client.get(f"/jobs/{response.json()['id']}")
            except httpx.TransportError:
                return outcome
        return f"{outcome}, job {response.status_code}"


async def waiting_upload(service: Service) -> str:
    """A client that waits for its documents to be indexed."""
    async with service.client(timeout_s=120) as client:
        return f"upload {await told(put(client, 'waiting', documents({'long': rare_word('long')}, 600)))}"


async def indexing_files(service: Service) -> str:
    """`winnow index` through the service."""
    folder = service.log.parent / "texts"
    folder.mkdir(exist_ok=True)
    for number in range(MANY):
        (folder / f"{number}.txt").write_text(text_of(rare_word("file", number), 200))
    status, output = await service.run("index", str(folder), "--collection", "files")
    last = output.strip().splitlines()[-1] if output.strip() else ""
    return f"winnow index: status {status}, {last[:110]!r}"


async def _streaming(service: Service, path: str, body: Mapping[str, object]) -> str:
    events = []
    try:
        async with (
            service.client(timeout_s=120) as client,
            client.stream("POST", path, json={**body, "stream": True}) as response,
        ):
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    events.append(line.removeprefix("event: "))
    except httpx.TransportError as exc:
        return f"stream: {dict(Counter(events))}, then {type(exc).__name__}"
    return f"stream {response.status_code}: {dict(Counter(events))}, last {events[-1] if events else 'none'}"


async def streaming_chat(service: Service) -> str:
    """Events of a model that takes a minute."""
    return await _streaming(service, "/chat", {"message": "Tell me.", "backend": "vllm", "max_output_tokens": 1000})


async def streaming_answer(service: Service) -> str:
    """The same from documents."""
    body = {"query": "garden river", "collection": "known", "backend": "none", "answer_backend": "vllm"}
    return await _streaming(service, "/answer", {**body, "min_relevance": 0})


async def stalled_upload(service: Service) -> str:
    """Headers, half of the body, and then silence."""
    reader, writer = await _connected(service)
    writer.write(b"POST /documents HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: 100000\r\n\r\n" + b" " * 50_000)
    await writer.drain()
    try:
        seen = (await reader.read()).partition(b"\r\n")[0].decode() or "closed"
    except ConnectionError as exc:
        seen = type(exc).__name__
    writer.close()
    return f"stalled: {seen}"


async def kept_connections(service: Service) -> str:
    """Fifty idle connections after a request each."""
    pairs = [await _connected(service) for _ in range(50)]
    for reader, writer in pairs:
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await reader.readuntil(b"alive")
    seen = Counter[str]()
    for reader, writer in pairs:
        rest = await reader.read()
        seen["closed" if rest in (b"", b'"}') else rest.partition(b"\r\n")[0].decode()] += 1
        writer.close()
    return f"kept: {dict(seen)}"


async def _connected(service: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = service.url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


SLOW = {"WINNOW_TEST_PASSAGE_MS": "25"}
STATES = (
    State("idle", idle),
    State("loading the model", searching_while_loading, {"WINNOW_TEST_LOAD_S": "40"}, ready=False),
    State("small uploads", small_uploads, SLOW),
    State("embedding a large upload", large_upload, SLOW, collection="default"),
    State("embedding while its client waits", waiting_upload, {"WINNOW_TEST_PASSAGE_MS": "150"}),
    State("winnow index through the service", indexing_files, SLOW, collection="files"),
    State("streaming a chat", streaming_chat, real=False),
    State("streaming an answer", streaming_answer, real=False),
    State("a stalled upload", stalled_upload, real=False),
    State("open keep-alive connections", kept_connections, real=False),
)


@asynccontextmanager
async def slow_vllm() -> AsyncIterator[OpenAIServer]:
    """A model that says a word every 100 ms, for a minute."""
    sentence = f"{' '.join(WORDS[:6]).capitalize()} [1.1]. "
    async with OpenAIServer("vllm", model=FakeModel(answer=sentence * 60), token_s=0.1) as server:
        yield server


async def stop(state: State, scratch: Path, *, real: bool, vllm: str) -> bool:
    """Print a line; True if all that is required was seen."""
    home = scratch / "home"
    settings = {**({} if real else state.settings), "VLLM_URL": vllm}
    service = Service(home, scratch / "service.log", module=REAL if real else QUICK, settings=settings)
    try:
        if not state.ready:
            await _fill(Service(home, service.log, module=service.module, settings={"VLLM_URL": vllm}))
        await service.start()
        if state.ready:
            await service.until_ready()
            async with service.client() as client:
                (await put(client, "known", documents({"one": "garden"}, 3))).raise_for_status()
        clients = asyncio.create_task(state.clients(service))
        if state.ready:
            await _until_there(service, state.collection)
        await asyncio.sleep(BEGUN_S if state.ready else 0.3)
        under_way = not clients.done() or state.clients is idle
        seconds, status = await service.terminate()
        seen = await asyncio.wait_for(clients, 120)
    finally:
        service.kill()
        shutil.rmtree(home, ignore_errors=True)
    traceback = service.unexpected
    broken = any(f"{error}Error" in seen for error in ("Read", "RemoteProtocol", "ConnectionReset"))
    good = seconds <= AT_MOST_S and status == 0 and not traceback and not broken
    verdict = "" if good else "MISSED"
    cells = (state.name, f"{seconds:.1f} s", f"status {status}", "traceback" if traceback else "", seen, verdict)
    print(f"| {' | '.join(cells)} |{'' if under_way else ' (was over before)'}", flush=True)
    if traceback:
        print(traceback)
    return good


async def _until_there(service: Service, collection: str) -> None:
    async with service.client() as client, asyncio.timeout(60):
        while True:
            if (await client.get(f"/collections/{collection}")).status_code == 200:
                return
            await asyncio.sleep(0.05)


async def _fill(service: Service) -> None:
    """A collection, so that a search has something to wait for."""
    await service.start()
    await service.until_ready()
    async with service.client() as client:
        (await put(client, "known", documents({"one": "garden"}, 3))).raise_for_status()
    await service.terminate()


async def attack(scratch: Path, only: str, *, real: bool) -> bool:
    """All states whose names contain `only`; True if all were good."""
    results = []
    async with slow_vllm() as server:
        for state in STATES:
            if only in state.name and (state.real or not real):
                results.append(await stop(state, scratch, real=real, vllm=server.url))
    return all(results)


def main() -> int:
    """Stop it in every state."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--real", action="store_true", help="with the configured embedding model")
    parser.add_argument("--only", default="", help="states whose names contain this")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="winnow-stopping-"))
    try:
        good = asyncio.run(attack(scratch, arguments.only, real=arguments.real))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
