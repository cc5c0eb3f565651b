"""What a request costs beside every model: `python -m benchmarks.own_time --data DIR [--beside CHECKOUT]`.

DIR: corpus.jsonl and queries.jsonl, as squad2_dev. A server process on a real socket holds its passages; the embedder
counts words, and a fake vLLM on the client's side replies to those who ask for one. Processor time of the server, in
ms of all its threads, for each kind of request, sent one after another on one kept connection:

search         POST /search, hybrid, 10 results, no model
answer         POST /answer, extractive, over such a search
rerank         POST /v1/rerank, 100 passages, no model
rerank-model   the same by a model that gives log-probabilities: each passage is a prompt

With `--beside` the code of another checkout serves the same in turns, and responses that are not alike are counted,
but for ids, times and costs; a count says nothing about why. `--requests 80000` sends one server a mixture of
all that and of errors, no question twice, and prints what it holds of memory that is no file's (RssAnon) on the way;
exit status 1 if the second half adds more than `FLAT_MB`. Fewer than 80,000 do not fill the caches in the first half.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load import Connection, Request
from benchmarks.processes import memory, processor_s
from benchmarks.service import ROOT, Service
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

BATCH, TEXTS = 20, 100
KINDS = ("search", "answer", "rerank", "rerank-model")
BLOCKS: Mapping[str, int] = {"search": 50, "answer": 25, "rerank": 10, "rerank-model": 5}
"""Requests of a turn: the system counts processor time in hundredths of a second."""

MARKS = (200, 2_000, 10_000, 20_000, 30_000, 40_000, 60_000)
FLAT_MB = 10.0
BY_CHANCE = ("timings_ms", "id", "latency_ms", "cost_usd")
"""What differs between two responses that are the same."""


class Data(msgspec.Struct, frozen=True):
    """Passages and questions."""

    passages: list[dict[str, str]]
    questions: list[str]


class Side(msgspec.Struct, frozen=True):
    """One server."""

    name: str
    pid: int
    connection: Connection


def main() -> int:
    """Exit status 1 when memory grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--beside", type=Path, help="another checkout")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--requests", type=int, default=0, help="of the mixture")
    options = parser.parse_args()
    data = _read(options.data)
    return asyncio.run(_mixed(data, options.requests) if options.requests else _compared(data, options))


def _read(folder: Path) -> Data:
    passages, questions = (
        [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]
        for name in ("corpus.jsonl", "queries.jsonl")
    )
    fields = ("_id", "title", "text")
    return Data(
        [dict(zip(("id", "title", "text"), (row[field] for field in fields), strict=True)) for row in passages],
        [row["text"] for row in questions],
    )


@asynccontextmanager
async def _serving(data: Data, roots: Mapping[str, Path]) -> AsyncIterator[list[Side]]:
    """A server of each checkout, with the passages."""
    with tempfile.TemporaryDirectory() as scratch:
        likely = {"": {"3": -0.4, "2": -1.6, "1": -2.5, "0": -4.0}}
        async with OpenAIServer("vllm", model=FakeModel(name="fake", context=100_000, likely=likely)) as model:
            services: list[Service] = []
            sides: list[Side] = []
            try:
                for name, root in roots.items():
                    file = str(Path(__file__).with_name("own_time_server.py"))
                    settings = {"VLLM_URL": model.url, "WINNOW_SERVICE_LOG_FORMAT": "json"}
                    folder = Path(scratch) / name
                    folder.mkdir()
                    service = Service(folder / "home", folder / "log", module=file, settings=settings, root=root)
                    services.append(service)
                    await service.start()
                    await service.until_ready()
                    connection = Connection("127.0.0.1", int(service.url.rpartition(":")[2]))
                    await _fill(connection, data.passages)
                    sides.append(Side(name, service.pid, connection))
                yield sides
            finally:
                for side in sides:
                    side.connection.close()
                for service in services:
                    await service.terminate()


async def _fill(connection: Connection, passages: Sequence[Mapping[str, str]]) -> None:
    for start in range(0, len(passages), BATCH):
        documents = passages[start : start + BATCH]
        status, _, content = await connection.send(Request("POST", "/documents", {"documents": documents}))
        if status != 200:
            raise SystemExit(f"the passages were not indexed: {status} {content.decode()}")


def request_of(kind: str, data: Data, dice: random.Random) -> Request:
    """A new one of its kind."""
    question = dice.choice(data.questions)
    match kind:
        case "search":
            return Request("POST", "/search", {"query": question, "backend": "none", "limit": 10})
        case "answer":
            return Request("POST", "/answer", {"query": question, "backend": "none", "answer_backend": "extractive"})
        case "rerank" | "rerank-model":
            texts = [row["text"] for row in dice.sample(data.passages, TEXTS)]
            model = "winnow-rerank@none" if kind == "rerank" else "winnow-rerank@vllm"
            return Request("POST", "/v1/rerank", {"model": model, "query": question, "documents": texts})
        case "document":
            return Request("GET", f"/documents/{dice.choice(data.passages)['id']}")
        case "put":
            row = dice.choice(data.passages)
            return Request("POST", "/documents", {"documents": [{**row, "text": f"{row['text']} {dice.random()}"}]})
        case "unknown":
            return Request("GET", f"/{dice.random()}")
        case "malformed":
            return Request("POST", "/search", {"query": question, f"field-{dice.random()}": 1})
        case "missing":
            return Request("POST", "/search", {"query": question, "collection": f"c{dice.randrange(10**9)}"})
        case _:
            raise ValueError(f"unknown kind of request {kind!r}")


async def _compared(data: Data, options: argparse.Namespace) -> int:
    roots = {"this": ROOT} | ({"other": options.beside.resolve()} if options.beside else {})
    async with _serving(data, roots) as sides:
        print("| kind | " + " | ".join(f"CPU ms, {side.name} | p50 ms" for side in sides) + " | ratio | different |")
        print("|---|" + "---|---|" * len(sides) + "---|---|")
        for kind in options.kinds:
            spent: dict[str, list[float]] = {side.name: [] for side in sides}
            waited: dict[str, list[float]] = {side.name: [] for side in sides}
            unlike = 0
            for turn in range(-1, options.turns):
                said = []
                for side in sides if turn % 2 else reversed(sides):
                    dice = random.Random(f"{kind} {turn}")
                    asked = [request_of(kind, data, dice) for _ in range(BLOCKS[kind])]
                    cpu, waits, replies = await _asked(side, asked)
                    said.append(replies)
                    if turn >= 0:
                        spent[side.name].append(cpu)
                        waited[side.name] += waits
                unlike += sum(one != another for one, another in zip(said[0], said[-1], strict=True))
            row = [f"{statistics.median(spent[s.name]):.2f} | {statistics.median(waited[s.name]):.2f}" for s in sides]
            ratio = statistics.median(spent["this"]) / statistics.median(spent[sides[-1].name])
            print(f"| {kind} | {' | '.join(row)} | {ratio:.2f} | {unlike} |", flush=True)
    return 0


async def _asked(side: Side, requests: Sequence[Request]) -> tuple[float, list[float], list[object]]:
    """CPU ms of a request, what the client waited for each, and what was replied."""
    before, waits, replies = processor_s(side.pid), list[float](), list[object]()
    for request in requests:
        began = time.perf_counter()
        status, _, content = await side.connection.send(request)
        waits.append(1000 * (time.perf_counter() - began))
        replies.append((status, content))
    cpu = 1000 * (processor_s(side.pid) - before) / len(requests)
    return cpu, waits, [(status, _lasting(json.loads(content))) for status, content in replies]


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _lasting(one)
            for key, one in value.items()
            if key not in BY_CHANCE or (key == "id" and "rank" in value)
        }
    return [_lasting(one) for one in value] if isinstance(value, list) else value


MIXTURE = (
    ("search",) * 8 + ("answer",) * 4 + ("rerank", "document", "document", "put", "unknown", "malformed", "missing")
)


async def _mixed(data: Data, requests: int) -> int:
    statuses: Counter[tuple[str, int]] = Counter()
    marks: dict[int, float] = {}
    async with _serving(data, {"this": ROOT}) as (side,):
        dice, begun = random.Random(19), time.perf_counter()
        questions = _mixed_questions(data.questions, dice)
        for number in range(1, requests + 1):
            kind = dice.choice(MIXTURE)
            asked = msgspec.structs.replace(data, questions=[next(questions)])
            status, _, _ = await side.connection.send(request_of(kind, asked, dice))
            statuses[kind, status] += 1
            if number in MARKS or number == requests or number == requests // 2:
                marks[number] = memory(side.pid).anonymous
                print(f"{number:6} requests  {marks[number]:6.1f} MB  {time.perf_counter() - begun:5.0f} s", flush=True)
    print(dict(sorted(statuses.items())))
    return 1 if marks[requests] - marks[requests // 2] > FLAT_MB else 0


def _mixed_questions(questions: Sequence[str], dice: random.Random) -> Iterator[str]:
    """The beginning of one and the end of another; no two are the same."""
    asked: set[str] = set()
    while True:
        first, second = (dice.choice(questions).split() for _ in range(2))
        question = " ".join([*first[: len(first) // 2], *second[len(second) // 2 :]])
        if question not in asked:
            asked.add(question)
            yield question


if __name__ == "__main__":
    sys.exit(main())
