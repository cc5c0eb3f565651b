"""Many clients at once: `python -m benchmarks.load [--clients 128] [--minutes 10] [--answerers 16]`.

Starts a service of its own with the samples and a generated corpus, without any language model. Each kind of request
(`--mix search,answer,rerank,put,get`) is first sent by one client alone (quiet), then by all clients at once, each with
its next request as soon as the last one is answered; one that is refused waits as long as Retry-After says. Prints per
kind and minute what the admitted took, the kinds of errors, and what the service's memory did. The client shares the
machine: its own processor time is printed beside the service's.

With `--answerers` instead: one client searches while so many ask for extractive answers.
"""

import argparse
import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from app.instance import find_service
from benchmarks.processes import memory, processor_s

DOCUMENTS, PUT_DOCUMENTS = 300, 100
QUIET_S, RAMP_S = 8.0, 3.0
MOST_TIMES_QUIET = 3.0

THINGS = ("harbour", "library", "museum", "tunnel", "orchard", "observatory", "market", "bridge", "theatre", "foundry")
PLACES = ("Arvik", "Belmora", "Castrin", "Dunhaven", "Elsby", "Farrow", "Gellin", "Hartwell", "Istria", "Jorvik")
FACTS = (
    "The {thing} of {place} was opened in {year} after {count} months of work.",
    "It is run by {count} people, most of whom live within walking distance of the {thing}.",
    "In {year} the council of {place} spent {count} thousand crowns on its repair.",
    "Visitors pay {count} crowns, and children under twelve are let in without a ticket.",
    "The oldest part, a wall of grey stone, is {count} metres long and was built in {year}.",
    "On winter days the {thing} closes at four, on all others at {hour} in the evening.",
)
QUESTIONS = (
    "When was the {thing} of {place} opened, and how long did it take?",
    "How many people run the {thing} in {place} {count}?",
    "What did {place} spend on the {thing} in {year}?",
    "What does a visitor of the {thing} in {place} pay in {year}?",
    "When does the {thing} of {place} close on day {count}?",
)


class Sample(msgspec.Struct, frozen=True):
    """One request: when it was sent, in seconds since the load began, how long it took, and its status (0: none)."""

    kind: str
    at: float
    seconds: float
    status: int
    told_when: bool = False


class Request(msgspec.Struct, frozen=True):
    """What is sent."""

    method: str
    path: str
    body: object = None


class Connection:
    """HTTP/1.1 over one kept connection, no more than this needs: a whole client would cost as much as the service."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: Request) -> tuple[int, float | None, bytes]:
        """Status, Retry-After, body."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        body = b"" if request.body is None else msgspec.json.encode(request.body)
        head = f"{request.method} {request.path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self.close()
        after = headers.get("retry-after")
        return int(lines[0].split()[1]), None if after is None else float(after), content

    def close(self) -> None:
        """Also after a failure: the next request opens a new one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def filled(template: str, rng: random.Random) -> str:
    """A sentence about some thing, with its own figures."""
    return template.format(
        thing=rng.choice(THINGS),
        place=rng.choice(PLACES),
        year=rng.randrange(1700, 2020),
        count=rng.randrange(3, 999),
        hour=rng.choice(("six", "seven", "eight")),
    )


def document(name: str, rng: random.Random) -> dict[str, str]:
    """A paragraph of a dozen sentences."""
    return {"id": name, "title": name, "text": " ".join(filled(rng.choice(FACTS), rng) for _ in range(12))}


def make_request(kind: str, rng: random.Random) -> Request:
    """A new one: hardly any question comes twice."""
    question = filled(rng.choice(QUESTIONS), rng)
    match kind:
        case "search":
            return Request("POST", "/search", {"query": question, "backend": "none"})
        case "answer":
            return Request("POST", "/answer", {"query": question, "backend": "none", "answer_backend": "extractive"})
        case "rerank":
            texts = [filled(rng.choice(FACTS), rng) for _ in range(20)]
            body = {"model": "winnow-rerank", "query": question, "documents": texts}
            return Request("POST", "/v1/rerank", body)
        case "put":
            name = f"put-{rng.randrange(PUT_DOCUMENTS)}"
            return Request("POST", "/documents", {"documents": [document(name, rng)]})
        case "get":
            return Request("GET", f"/documents/generated-{rng.randrange(DOCUMENTS)}")
        case _:
            raise ValueError(f"unknown kind of request {kind!r}")


class Load:
    """Clients of one service, and what they were answered."""

    def __init__(self, host: str, port: int, rng: random.Random) -> None:
        self._host, self._port, self._rng = host, port, rng
        self.samples: list[Sample] = []
        self.began = time.perf_counter()

    async def run(self, kinds: Sequence[str], seconds: float) -> list[Sample]:
        """A client for each of `kinds`, for so long; what was begun by then is awaited."""
        self.samples, self.began = [], time.perf_counter()
        await asyncio.gather(*(self._client(kind, seconds, random.Random(self._rng.random())) for kind in kinds))
        return self.samples

    async def _client(self, kind: str, seconds: float, rng: random.Random) -> None:
        connection = Connection(self._host, self._port)
        await asyncio.sleep(rng.random() * min(1.0, seconds / 10))
        while (at := time.perf_counter() - self.began) < seconds:
            sent = time.perf_counter()
            try:
                status, after, _ = await connection.send(make_request(kind, rng))
            except (OSError, EOFError):
                connection.close()
                status, after = 0, None
            self.samples.append(Sample(kind, at, time.perf_counter() - sent, status, after is not None))
            if status not in (200, 202):
                await asyncio.sleep((after or 1.0) * (1 + rng.random() / 4))
        connection.close()


@contextlib.contextmanager
def service(home: Path) -> Iterator[tuple[str, int, int]]:
    """Host, port and process id of `winnow serve` with the samples, once it is ready."""
    command = [sys.executable, "-m", "app.cli.main", "serve", "--port", "0", "--samples"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment | {"WINNOW_HOME": str(home)}, stderr=log, stdout=log)
    try:
        while (presence := find_service(home)) is None:
            if process.poll() is not None:
                raise SystemExit((home / "log").read_text())
            time.sleep(0.1)
        address = urlsplit(presence.url)
        yield address.hostname or "", address.port or 0, process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)


async def fill(host: str, port: int) -> None:
    """Wait until the service is ready, then index the generated corpus."""
    connection, rng = Connection(host, port), random.Random(7)
    while (await connection.send(Request("GET", "/health/ready")))[0] != 200:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.2)
    for start in range(0, DOCUMENTS, 20):
        documents = [document(f"generated-{number}", rng) for number in range(start, start + 20)]
        status, _, content = await connection.send(Request("POST", "/documents", {"documents": documents}))
        if status != 200:
            raise SystemExit(f"the corpus was not indexed: {content.decode()}")
    connection.close()


def quantile(values: Sequence[float], share: float) -> float:
    """In milliseconds; NaN of nothing."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def spread(times: Sequence[float]) -> str:
    """For a table."""
    return f"p50 {quantile(times, 0.5):5.0f} p99 {quantile(times, 0.99):5.0f} ms ({len(times)})"


def admitted(samples: Sequence[Sample], kind: str) -> list[float]:
    """The times of those that were served."""
    return [sample.seconds for sample in samples if sample.kind == kind and sample.status in (200, 202)]


def report(samples: Sequence[Sample], quiet: dict[str, list[float]], minute_s: float, seconds: float) -> bool:
    """The table of a load; whether the admitted kept within MOST_TIMES_QUIET and only 503 with a time was refused."""
    good = True
    for kind, alone in quiet.items():
        served = admitted(samples, kind)
        ratio = quantile(served, 0.99) / quantile(alone, 0.99)
        good &= ratio <= MOST_TIMES_QUIET
        print(
            f"\n{kind}: quiet p50 {quantile(alone, 0.5):.0f} p99 {quantile(alone, 0.99):.0f} ms ({len(alone)} requests)"
        )
        print(
            f"  load  p50 {quantile(served, 0.5):.0f} p99 {quantile(served, 0.99):.0f} ms, p99 {ratio:.1f} times quiet"
        )
        for start in range(0, max(1, round(seconds / minute_s))):
            part = [one for one in samples if start * minute_s <= one.at < (start + 1) * minute_s]
            times, sent = admitted(part, kind), sum(one.kind == kind for one in part)
            print(f"  {start * minute_s:4.0f} s  of {sent:5d} admitted {spread(times)}")
    failures = Counter((one.kind, one.status, one.told_when) for one in samples if one.status not in (200, 202))
    print("\nrefused or failed (kind, status, with Retry-After):")
    for (kind, status, told), count in sorted(failures.items()):
        good &= status == 503 and told
        print(f"  {kind:7} {status} {'yes' if told else 'no':3} {count}")
    return good


def watched(load: Load, pid: int, kinds: Sequence[str], seconds: float) -> list[Sample]:
    """What the clients were answered; prints the cores that both sides used."""
    used, own = processor_s(pid), time.process_time()
    samples = asyncio.run(load.run(kinds, seconds))
    wall = time.perf_counter() - load.began
    print(f"cores: service {(processor_s(pid) - used) / wall:.2f}, client {(time.process_time() - own) / wall:.2f}")
    return samples


def mixed(arguments: argparse.Namespace, load: Load, pid: int) -> bool:
    """All kinds, each alone and then all at once."""
    mix: list[str] = arguments.mix.split(",")
    quiet = {kind: admitted(asyncio.run(load.run([kind], arguments.quiet)), kind) for kind in mix}
    clients = [mix[number % len(mix)] for number in range(arguments.clients)]
    seconds = 60 * arguments.minutes
    before = memory(pid).resident
    samples = watched(load, pid, clients, seconds)
    good = report([one for one in samples if one.at >= RAMP_S], quiet, min(60.0, seconds), seconds)
    print(f"\nmemory of the service {before:.0f} MB before, {memory(pid).resident:.0f} MB after")
    return good


def behind_answers(arguments: argparse.Namespace, load: Load, pid: int) -> bool:
    """One client that searches, alone and beside those that ask."""
    quiet = admitted(asyncio.run(load.run(["search"], arguments.quiet)), "search")
    samples = watched(load, pid, ["search", *["answer"] * arguments.answerers], 60 * arguments.minutes)
    print(f"/search quiet {spread(quiet)}, behind {arguments.answerers} {spread(admitted(samples, 'search'))}")
    print(f"/answer {spread(admitted(samples, 'answer'))}")
    print("statuses", dict(Counter((one.kind, one.status) for one in samples)))
    return quantile(admitted(samples, "search"), 0.5) <= MOST_TIMES_QUIET * quantile(quiet, 0.5)


def main() -> None:
    """Start, fill, load, print; exit with 1 if a required figure was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--mix", default="search,answer,rerank,put,get")
    parser.add_argument("--quiet", type=float, default=QUIET_S, help="seconds of each kind alone")
    parser.add_argument("--answerers", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, service(Path(home)) as (host, port, pid):
        asyncio.run(fill(host, port))
        load = Load(host, port, random.Random(11))
        measure: Callable[[argparse.Namespace, Load, int], bool] = behind_answers if arguments.answerers else mixed
        good = measure(arguments, load, pid)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
