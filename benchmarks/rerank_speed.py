"""How long a ranking takes: our own time without a model, or all of it on a real server.

    python -m benchmarks.rerank_speed                                        own time of the process, in ms
    python -m benchmarks.rerank_speed --real http://127.0.0.1:8000/v1        seconds on an OpenAI-style server
    python -m benchmarks.rerank_speed --gemma-4b DIR                         writes a model to measure a GPU with
    python -m benchmarks.rerank_speed --vllm [--smollm2] [--rounds 5]        what it asks of a vLLM that it starts

The last one is the configuration of Gemma 3 4B (text) with a small tokenizer and no weights: quality needs them, time
does not. On the machine with the GPU, then: `vllm serve DIR --load-format dummy --max-model-len 16384`.
Passages are sentences of common words, different for each ranking, 100 of 100 tokens and 50 of 250 (estimated).

`--vllm` compares the product with plain yes/no at 50 of 250: a model's first ranking, with controls, and a later one.
The vLLM is that of the tests with its tiny Gemma, or (later rankings alone) with SmolLM2, where `make test-real` has
brought it. Exits with 1 if graded has the server read more than 1.1 times the fresh tokens of yes/no, or auto 1.4.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from app.backends.base import ChatRequest, Conversation, Deadline, LabelScores, Reply, Scoring, Way
from app.backends.client import BackendClient
from app.backends.settings import BackendSettings
from app.domain import Strategy, TokenCount
from app.errors import UpstreamUntrusted
from app.ranking.cache import ScoreCache
from app.ranking.models import candidate_of
from app.ranking.reranker import RankingTask, Reranker
from app.ranking.trust import Owner, Topic, TopicReading, TrustBook
from benchmarks.processes import descendants_s
from benchmarks.rerank_data import Task
from benchmarks.rerank_peers import PEERS, TIMEOUT_S, Ports, Schedule, yes_no
from benchmarks.rerank_product import BY_LABELS, PortsReader
from benchmarks.rerank_runs import Run, run
from benchmarks.rerank_wire import ClientPorts, open_client, real_settings

ROOT = Path(__file__).resolve().parents[1]
SIZES = ((100, 100), (50, 250))
STRATEGIES: Sequence[Strategy] = ("graded", "duel", "auto")

GEMMA_3_4B = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "torch_dtype": "bfloat16",
    "vocab_size": 262_208,
    "hidden_size": 2_560,
    "intermediate_size": 10_240,
    "num_hidden_layers": 34,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131_072,
    "sliding_window": 1_024,
    "sliding_window_pattern": 6,
    "rope_theta": 1_000_000.0,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "query_pre_attn_scalar": 256,
    "bos_token_id": 2,
    "eos_token_id": [1, 5],
    "pad_token_id": 0,
}


class Instant:
    """A label scorer that takes no time and finds many passages alike, so that there is something to duel about."""

    name = model = "instant"
    way: Way = "scorer"

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str]) -> Scoring:
        """The same for every prompt, nearly."""
        scores = [LabelScores(logprobs=_falling(len(labels), n), floor=-9.0) for n in range(len(prompts))]
        return Scoring(scores=tuple(scores), tokens=TokenCount())

    async def complete(self, request: ChatRequest) -> Reply:
        """Never asked by strategies that score."""
        raise NotImplementedError


def main() -> int:
    """Print a table, or write the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=0, help="rankings of each kind (200; 5 on a real server)")
    parser.add_argument("--real", metavar="URL", help="VLLM_API_KEY holds its key, if it wants one")
    parser.add_argument("--model")
    parser.add_argument("--gemma-4b", type=Path, metavar="DIR")
    parser.add_argument("--vllm", action="store_true")
    parser.add_argument("--smollm2", action="store_true")
    args = parser.parse_args()
    if args.gemma_4b:
        write_gemma(args.gemma_4b)
    elif args.vllm:
        return asyncio.run(beside_yes_no(args.rounds or 5, smollm2=args.smollm2))
    elif args.real:
        print(asyncio.run(on_server(args.real, args.model, args.rounds or 5)))
    else:
        print(asyncio.run(own_time(args.rounds or 200)))
    return 0


def write_gemma(folder: Path) -> None:
    """Configuration, tokenizer and chat template."""
    from tests.vllm.tiny_gemma import make_tokenizer  # takes seconds to import

    make_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(GEMMA_3_4B, indent=1), encoding="utf-8")


async def own_time(rankings: int) -> str:
    """Of the process (what others do on the machine does not count), with passages new and seen before."""
    lines = ["| ms | new: p50 | p95 | seen: p50 | p95 |", "|---|---|---|---|---|"]
    for place, strategy in enumerate(STRATEGIES):
        fresh: list[float] = []
        seen: list[float] = []
        for number in range(rankings):
            found = task_of(rankings * place + number, *SIZES[0])
            fresh.append(await _took_ms(strategy, found))
            seen.append(await _took_ms(strategy, found))
        lines.append(f"| {strategy} | {_quantiles(fresh)} | {_quantiles(seen)} |")
    return "\n".join(lines)


async def _took_ms(strategy: Strategy, found: Task) -> float:
    reranker = Reranker(ScoreCache(1_000))
    asked = RankingTask(query=found.query, candidates=found.candidates, strategy=strategy, depth=100)
    begun = time.process_time()
    await reranker.rank(asked, Instant(), Deadline(60.0))
    return 1_000 * (time.process_time() - begun)


def _quantiles(took: Sequence[float]) -> str:
    return f"{statistics.median(took):.1f} | {statistics.quantiles(took, n=20)[-1]:.1f}"


async def on_server(address: str, model: str | None, rankings: int) -> str:
    """Medians; one ranking after another, each of passages that the server has not seen."""
    schedules: Mapping[str, Schedule] = {
        "rankgpt": PEERS["rankgpt"],
        "first": PEERS["first"],
        "yes_no": PEERS["yes_no"],
        **{name: BY_LABELS[name] for name in ("ours: graded", "ours: auto", "ours: duel")},
    }
    lines = [
        "| passages | schedule | p50 s | rounds | requests | input tokens | output |",
        "|---|---|---|---|---|---|---|",
    ]
    async with open_client("real", real_settings(address, model, os.environ)) as client:
        for count, tokens in SIZES:
            for place, (name, schedule) in enumerate(schedules.items()):
                tasks = [task_of(rankings * place + number, count, tokens) for number in range(rankings)]
                runs = [await run(schedule, ClientPorts(client), task) for task in tasks]
                lines.append(f"| {count} of {tokens} | {name} | {_medians(runs)} |")
    return "\n".join(lines)


def _medians(runs: Sequence[Run]) -> str:
    seconds = statistics.median(one.seconds for one in runs)
    counts = (
        statistics.median(one.rounds for one in runs),
        statistics.median(one.requests for one in runs),
        statistics.median(one.tokens.input for one in runs),
        statistics.median(one.tokens.output for one in runs),
    )
    return " | ".join([f"{seconds:.2f}", *(f"{count:,.0f}" for count in counts)])


class Believing(TrustBook):
    """Takes whatever a model makes of controls for the best that it could make of them."""

    def add(self, owner: Owner, readings: Mapping[Topic, TopicReading]) -> None:
        """As if all had been right."""
        right = {topic: TopicReading((4.0,) * len(topic.answers), (-4.0,) * len(topic.others)) for topic in readings}
        super().add(owner, right)


def by_book(strategy: Strategy, book: TrustBook | None) -> Schedule:
    """The product's own, as much as `book` believes of the model; without one all of it."""

    async def rank(ports: Ports, task: Task) -> list[str]:
        reranker = Reranker(ScoreCache(1_000), trust=book)
        asked = RankingTask(query=task.query, candidates=task.candidates, strategy=strategy)
        try:
            ranking = await reranker.rank(asked, PortsReader(ports, "scorer"), Deadline(TIMEOUT_S))
        except UpstreamUntrusted:
            return [candidate.passage.id for candidate in task.candidates]
        return [place.id for place in ranking.order]

    return rank


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Of one ranking, or of several in the mean. Seconds are those of processors."""

    calls: float
    prompt: float
    fresh: float
    completion: float
    ours_s: float
    server_s: float

    @property
    def seconds(self) -> float:
        """Of both."""
        return self.ours_s + self.server_s


GRADED_AT_MOST, AUTO_AT_MOST = 1.1, 1.4
"""Times the fresh tokens of yes/no: the second look shows ten passages twice."""


async def beside_yes_no(rounds: int, *, smollm2: bool) -> int:
    """Print what each schedule asks of the server, in turns, each time about passages that the server has not seen."""
    from tests.real.running import SMOL, VLLM_OPTIONS, converted
    from tests.vllm.running import KEY, real_vllm
    from tests.vllm.tiny_gemma import make_tiny_gemma

    def make(folder: Path) -> Path:
        return converted(SMOL) if smollm2 else make_tiny_gemma(folder)

    costs: dict[str, list[Cost]] = {}
    with TemporaryDirectory() as folder, real_vllm(Path(folder), os.environ, make, VLLM_OPTIONS) as server:
        settings = BackendSettings(kind="vllm", url=server.url, api_key=KEY, timeout_s=TIMEOUT_S)
        async with open_client("vllm", settings) as client:
            for number in range(rounds + 1):
                size = SIZES[1] if number else (8, 50)  # the first round warms up
                for place, (name, schedule) in enumerate((_later() if smollm2 else _beside()).items()):
                    task = task_of(1_000 * number + place, *size)
                    cost = await _cost(schedule, client, task, lambda: server.metric(HITS))
                    if number:
                        costs.setdefault(name, []).append(cost)
    means = {name: _mean(rows) for name, rows in costs.items()}
    plain = means["yes/no"]
    print(
        "| 50 of 250 | calls | prompt tokens | completion | fresh | x yes/no | our CPU s | server's CPU s | x yes/no |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, cost in means.items():
        counts = " | ".join(f"{count:,.0f}" for count in (cost.calls, cost.prompt, cost.completion, cost.fresh))
        times = f"{cost.ours_s:.3f} | {cost.server_s:.2f} | {cost.seconds / plain.seconds:.2f}"
        print(f"| {name} | {counts} | {cost.fresh / plain.fresh:.2f} | {times} |")
    fine = (
        means["graded, later"].fresh <= GRADED_AT_MOST * plain.fresh
        and means["auto, later"].fresh <= AUTO_AT_MOST * plain.fresh
    )
    return 0 if fine else 1


HITS = "vllm:prefix_cache_hits_total"


PLAIN: Schedule = partial(yes_no, labels=("1", "0"))
"""With digits, since "no" may be two tokens of the tiny Gemma."""


def _later() -> Mapping[str, Schedule]:
    return {"yes/no": PLAIN, "graded, later": by_book("graded", None), "auto, later": by_book("auto", None)}


def _beside() -> Mapping[str, Schedule]:
    """In their order: the second of each pair knows the model from the first."""
    graded, auto, doubting = Believing(), Believing(), TrustBook()
    return {
        "yes/no": PLAIN,
        "graded, first": by_book("graded", graded),
        "graded, later": by_book("graded", graded),
        "auto, first": by_book("auto", auto),
        "auto, later": by_book("auto", auto),
        "not believed, first": by_book("auto", doubting),
        "not believed, second": by_book("auto", doubting),
        "not believed, later": by_book("auto", doubting),
    }


async def _cost(schedule: Schedule, client: BackendClient, task: Task, hits: Callable[[], float]) -> Cost:
    cached, ours, server = hits(), time.process_time(), descendants_s(os.getpid())
    ran = await run(schedule, ClientPorts(client), task)
    ours = time.process_time() - ours
    return Cost(
        calls=ran.requests,
        prompt=ran.tokens.input,
        fresh=ran.tokens.input - (hits() - cached),
        completion=ran.tokens.output,
        ours_s=ours,
        server_s=descendants_s(os.getpid()) - server,
    )


def _mean(rows: Sequence[Cost]) -> Cost:
    return Cost(**{name: statistics.fmean(getattr(row, name) for row in rows) for name in Cost.__struct_fields__})


def task_of(number: int, count: int, tokens: int) -> Task:
    """`count` passages of about `tokens` each, the same ones for the same number."""
    chance = random.Random(f"{number} {count} {tokens}")
    words = sorted(set(re.findall(r"[a-z]{3,}", (ROOT / "LICENSE").read_text(encoding="utf-8").lower())))
    candidates = [
        candidate_of(id=f"p{n}", title="A title", text=_text(chance, words, 4 * tokens), prior=1 - n / (count + 1))
        for n in range(count)
    ]
    return Task(
        id=str(number), query=" ".join(chance.sample(words, 6)), candidates=tuple(candidates), grades={}, evidence={}
    )


def _text(chance: random.Random, words: Sequence[str], size: int) -> str:
    text = ""
    while len(text) < size:
        text += f"{' '.join(chance.choices(words, k=chance.randint(6, 18))).capitalize()}. "
    return text[:size].strip()


def _falling(labels: int, number: int) -> tuple[float, ...]:
    return tuple(-1.5 - 0.2 * label - 0.003 * (number % 25) * label for label in range(labels))


if __name__ == "__main__":
    sys.exit(main())
