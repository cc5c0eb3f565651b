"""txtai and Haystack beside the service, in turns: `python -m benchmarks.peers [--texts FOLDER] [--seconds 15]`.

Each peer gets an environment of its own (`.venv-txtai`, `.venv-haystack` in `--environments`, some 1 GB each), made at
the first run. All three serve the same passages, hybrid, over HTTP/1.1 on kept connections, with the quick start's
weights:

winnow    `winnow serve`, POST /search
txtai     its own API on uvicorn, GET /search: faiss, BM25 and SQLite, the vectors by transformers, all as it comes
haystack  a pipeline on hayhooks, POST /search/run: the store in memory, both retrievers, reciprocal ranks

The passages are cut from the files of the folder (the samples by default) by our chunker, so that each is one document
everywhere. A query is some words in a row of a passage; none comes twice. In each round every system is asked by one
client, then by 32. The client shares the machine: the processor time of a request is that of the server alone.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec

from app.main import SAMPLES
from benchmarks.load import Connection, Request, quantile
from benchmarks.processes import memory, processor_s
from benchmarks.service import REAL, Service
from indexing.chunking.chunker import ChunkOptions, chunk
from indexing.documents import Document
from indexing.embedding.loading import load_embedder
from indexing.embedding.model import Embedder, check_model
from indexing.errors import UnreadableDocument
from indexing.readers import ReadLimits, read
from indexing.settings import EmbeddingSettings
from tools.pip import pip_install
from tools.venvs import ROOT, Venv, stamp

LIMIT, WARM_UP = 10, 20
CLIENTS = (1, 32)
WORDS = (5, 12)
START_S = 900.0
REQUIREMENTS = {
    "txtai": ("torch==2.13.0", "txtai[api]==9.14.0"),
    "haystack": ("torch==2.13.0", "hayhooks==2.1.0", "haystack-ai==3.4.1", "sentence-transformers-haystack==2.0.0"),
}

Ask = Callable[[str], Request]


class Peer(msgspec.Struct, frozen=True):
    """A system under test: where it listens, its process, and how it is asked."""

    name: str
    port: int
    pid: int
    ask: Ask


class Measured(msgspec.Struct, frozen=True):
    """One system under one number of clients, for one turn."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    refused: int


def main() -> int:
    """Exit status 1 when a required ratio is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, default=SAMPLES)
    parser.add_argument("--passages", type=int, default=2000, help="at most")
    parser.add_argument("--seconds", type=float, default=15.0, help="of a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=REQUIREMENTS, default=list(REQUIREMENTS))
    parser.add_argument("--environments", type=Path, default=ROOT)
    parser.add_argument("--require", type=float, nargs=2, metavar=("ALONE", "MANY"), help="times txtai's rate")
    options = parser.parse_args()
    for peer in options.peers:
        if status := _install(peer, options.environments):
            return status
    model = check_model(EmbeddingSettings())
    passages = _passages(options.texts, options.passages, load_embedder(EmbeddingSettings()))
    print(f"{len(passages)} passages of {statistics.mean(map(len, passages)):.0f} characters", flush=True)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "passages.json"
        file.write_text(json.dumps(passages), "utf-8")
        systems = [stack.enter_context(_winnow(Path(folder), passages))]
        for peer in options.peers:
            systems.append(stack.enter_context(_served(peer, options.environments, model, file)))
        for system in systems:
            print(f"{system.name:9} {memory(system.pid).resident:6.0f} MB with its index", flush=True)
        turns = asyncio.run(_rounds(systems, passages, options.rounds, options.seconds))
    return _report(turns, options.require)


def _install(peer: str, environments: Path) -> int:
    venv = _venv(peer, environments)
    wanted = stamp("", (Path(__file__),))
    return venv.exit_status(wanted, lambda _: pip_install(venv.python, REQUIREMENTS[peer], progress="off"))


def _venv(peer: str, environments: Path) -> Venv:
    return Venv(environments / f".venv-{peer}", hint="This takes minutes and about 1 GB.")


def _passages(folder: Path, most: int, embedder: Embedder) -> list[str]:
    """Distinct ones, in the order of the files."""
    cut = ChunkOptions(max_tokens=embedder.max_tokens)
    found: dict[str, None] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            parts = read(path.read_bytes(), path.name, ReadLimits())
        except UnreadableDocument as refusal:
            print(f"{path.name} is left out: {refusal.detail}")
            continue
        for document in (part for part in parts if isinstance(part, Document)):
            found |= dict.fromkeys(one.text for one in chunk(document, embedder.token_spans, cut))
            if len(found) >= most:
                return list(found)[:most]
    return list(found)


@contextmanager
def _winnow(folder: Path, passages: Sequence[str]) -> Iterator[Peer]:
    service = Service(folder / "home", folder / "winnow.log", module=REAL)
    records = folder / "passages.jsonl"
    records.write_text("".join(json.dumps({"text": text}) + "\n" for text in passages), "utf-8")
    try:
        asyncio.run(_start(service, records))
        yield Peer("winnow", int(service.url.rpartition(":")[2]), service.pid, _ask_winnow)
    finally:
        asyncio.run(service.terminate())


async def _start(service: Service, records: Path) -> None:
    await service.start()
    await service.until_ready(START_S)
    status, said = await service.run("index", str(records), within_s=START_S)
    if status:
        raise SystemExit(said)
    async with service.client() as client:
        held = (await client.get("/collections")).json()["collections"][0]["passages"]
    print(f"winnow holds {held} passages", flush=True)


def _ask_winnow(query: str) -> Request:
    return Request("POST", "/search", {"query": query, "limit": LIMIT, "backend": "none"})


def _ask_txtai(query: str) -> Request:
    return Request("GET", f"/search?query={quote(query)}&limit={LIMIT}")


def _ask_haystack(query: str) -> Request:
    return Request("POST", "/search/run", {"query": query, "limit": LIMIT})


ASK: dict[str, Ask] = {"txtai": _ask_txtai, "haystack": _ask_haystack}


@contextmanager
def _served(peer: str, environments: Path, model: str, passages: Path) -> Iterator[Peer]:
    """The peer's server, in its environment, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # -P: the folder of the script, with a numbers.py, is no place to import from.
    command = [str(_venv(peer, environments).python), "-P", *_command(peer, model, passages, port)]
    log = passages.with_name(f"{peer}.log")
    private = {"HF_HUB_OFFLINE": "1", "HAYSTACK_TELEMETRY_ENABLED": "False", "PYTHONPATH": ""}
    environment = {**os.environ, **private, "PEERS_MODEL": model, "PEERS_PASSAGES": str(passages)}
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=passages.parent, env=environment, stdout=output, stderr=output)
    try:
        if not asyncio.run(_answers(peer, port, process)):
            raise SystemExit(f"{peer} does not serve: {log.read_text()[-3000:]}")
        yield Peer(peer, port, process.pid, ASK[peer])
    finally:
        process.terminate()
        process.wait(timeout=60)


def _command(peer: str, model: str, passages: Path, port: int) -> list[str]:
    folder = Path(__file__).parent
    if peer == "haystack":
        pipelines = str(folder / "peers_hayhooks")
        start = "from hayhooks.cli import hayhooks_cli; hayhooks_cli()"
        where = ["--host", "127.0.0.1", "--port", str(port), "--pipelines-dir", pipelines]
        return ["-c", start, "run", *where]
    return [str(folder / "peers_txtai.py"), model, str(passages), str(port)]


async def _answers(peer: str, port: int, process: "subprocess.Popen[bytes]") -> bool:
    """Whether it does, within START_S."""
    begun = time.monotonic()
    while process.poll() is None and time.monotonic() - begun < START_S:
        try:
            connection = Connection("127.0.0.1", port)
            status, _, content = await connection.send(ASK[peer]("first words"))
            connection.close()
            return status == 200 and len(content) > 2
        except OSError:
            await asyncio.sleep(0.5)
    return False


async def _rounds(
    systems: Sequence[Peer], passages: Sequence[str], rounds: int, seconds: float
) -> dict[tuple[str, int], list[Measured]]:
    """In turns; the order is turned around from round to round."""
    turns: dict[tuple[str, int], list[Measured]] = {(one.name, clients): [] for clients in CLIENTS for one in systems}
    for system in systems:
        await _turn(system, passages, 1, 3.0, random.Random(f"{system.name} warm-up"))
    for number in range(rounds):
        for clients in CLIENTS:
            for system in systems if number % 2 == 0 else reversed(systems):
                dice = random.Random(f"{number} {clients}")  # the same queries for all
                turns[system.name, clients].append(await _turn(system, passages, clients, seconds, dice))
    return turns


async def _turn(system: Peer, passages: Sequence[str], clients: int, seconds: float, dice: random.Random) -> Measured:
    times: list[float] = []
    refused = 0
    cpu, begun = processor_s(system.pid), time.perf_counter()

    async def client() -> None:
        nonlocal refused
        connection = Connection("127.0.0.1", system.port)
        while time.perf_counter() - begun < seconds:
            request, sent = system.ask(_query(passages, dice)), time.perf_counter()
            status, after, content = await connection.send(request)
            if status == 200 and len(content) > 2:
                times.append(time.perf_counter() - sent)
            else:
                refused += 1
                await asyncio.sleep(after or 0.1)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    wall = time.perf_counter() - begun
    spent = 1000 * (processor_s(system.pid) - cpu) / max(1, len(times))
    return Measured(len(times) / wall, quantile(times, 0.5), quantile(times, 0.99), spent, refused)


def _query(passages: Sequence[str], dice: random.Random) -> str:
    words = dice.choice(passages).split()
    count = dice.randint(*WORDS)
    start = dice.randrange(max(1, len(words) - count))
    return " ".join(words[start : start + count])


def _report(turns: dict[tuple[str, int], list[Measured]], require: Sequence[float] | None) -> int:
    """Medians over the rounds; ratios are the medians of the rounds' ratios."""
    good = True
    print("| clients | system | requests/s | p50 ms | p99 ms | CPU ms a request | refused | winnow's rate to its |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, clients), own in turns.items():
        ratio = statistics.median(
            ours.rate / theirs.rate for ours, theirs in zip(turns["winnow", clients], own, strict=True)
        )
        if name == "txtai" and require:
            good &= ratio >= require[CLIENTS.index(clients)]
        rate, p50 = statistics.median(one.rate for one in own), statistics.median(one.p50_ms for one in own)
        p99, cpu = statistics.median(one.p99_ms for one in own), statistics.median(one.cpu_ms for one in own)
        refused = sum(one.refused for one in own)
        print(f"| {clients} | {name} | {rate:.1f} | {p50:.1f} | {p99:.1f} | {cpu:.1f} | {refused} | {ratio:.2f} |")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
