"""Orders of 100 passages by a simulated judge: our strategies against the schedules of others, and what each step adds.

    python -m benchmarks.rerank --data DIR [--sets noveleval scifact] [--server gpu api] [--seeds 3] [--ablation]
    python -m benchmarks.rerank --data DIR --wire                      the same judge over HTTP, against in process
    python -m benchmarks.rerank --data DIR --real http://127.0.0.1:8000/v1 | gemini      a real model, real seconds

DIR holds BEIR-style sets; the first stage is BM25 (`indexing.retrieval.bm25`). The judge is a simulation: relevance
judgements with noise of a stated strength (rerank_opinion), on servers of stated speed (rerank_server), in virtual
time. It can say which schedule makes more of one and the same judge, and what that costs. It cannot say how good a
model is.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.rerank_data import PARTS, RerankSet, load_set
from benchmarks.rerank_opinion import NONE, SMALL, Noise, Reader
from benchmarks.rerank_ours import ablation, rank_by
from benchmarks.rerank_peers import NEED_LOGPROBS, PEERS, Schedule
from benchmarks.rerank_product import BY_JUDGE, BY_LABELS
from benchmarks.rerank_runs import Result, Run, result_of, simulate, table
from benchmarks.rerank_server import FLASH_LITE, RTX_4090, Speed

SERVERS = {speed.name: speed for speed in (RTX_4090, FLASH_LITE)}


def main() -> int:
    """Run what was asked for and print tables."""
    args = _arguments()
    for name in args.sets:
        found = load_set(args.data, name, depth=args.depth, limit=args.queries, part=args.part)
        if args.real or args.wire:
            from benchmarks.rerank_wire import over_wire, with_model

            text = asyncio.run(with_model(found, args.real, args.model) if args.real else over_wire(found))
            print(f"\n### {name}, {text}", flush=True)
            continue
        for server in args.server:
            _simulated(found, SERVERS[server], args)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=["noveleval", "scifact"])
    parser.add_argument("--server", nargs="*", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--queries", type=int, default=0, help="only the first so many of each set")
    parser.add_argument("--part", choices=PARTS, default="all", help="every other query")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="schedules, as in the table")
    parser.add_argument("--ablation", action="store_true", help="our steps one by one instead of the peers")
    parser.add_argument("--perfect", action="store_true", help="a judge without errors")
    parser.add_argument("--error", type=float, default=SMALL.error, help="standard deviation of its belief, in grades")
    parser.add_argument("--shared", type=float, default=SMALL.shared, help="part of it that all ways of asking share")
    parser.add_argument("--lexical", type=float, default=SMALL.lexical, help="its correlation with BM25")
    parser.add_argument("--wire", action="store_true")
    parser.add_argument("--real", help="the address of an OpenAI-style server, or gemini")
    parser.add_argument("--model")
    return parser.parse_args()


def schedules_of(speed: Speed, *, ablated: bool) -> Mapping[str, Schedule]:
    """What can run on such a server, by name."""
    if ablated:
        return {name: partial(rank_by, recipe=recipe) for name, recipe in ablation(scores=speed.scores).items()}
    if speed.scores:
        return {**PEERS, **BY_LABELS}
    return {**{name: peer for name, peer in PEERS.items() if name not in NEED_LOGPROBS}, **BY_JUDGE}


def measure(
    of: RerankSet, schedules: Mapping[str, Schedule], noise: Noise, seeds: Sequence[int], speed: Speed
) -> dict[str, Result]:
    """Each schedule before the same judges; task by task, since a task's reader remembers what it has read."""
    runs: dict[str, list[list[Run]]] = {name: [[] for _ in seeds] for name in schedules}
    for task in of.tasks:
        reader = Reader(task)
        for name, schedule in schedules.items():
            for row, seed in zip(runs[name], seeds, strict=True):
                row.append(simulate(of, task, schedule, reader, noise, seed, speed))
    return {name: result_of(name, of, rows) for name, rows in runs.items()}


def _simulated(of: RerankSet, speed: Speed, args: argparse.Namespace) -> None:
    noise = (
        NONE
        if args.perfect
        else msgspec.structs.replace(SMALL, error=args.error, shared=args.shared, lexical=args.lexical)
    )
    chosen = schedules_of(speed, ablated=args.ablation)
    chosen = {name: schedule for name, schedule in chosen.items() if not args.only or name in args.only}
    begun = time.perf_counter()
    results = measure(of, chosen, noise, range(1, args.seeds + 1), speed)
    queries = f"{len(of.tasks)} queries, {args.seeds} seeds, in {time.perf_counter() - begun:.0f} s"
    print(
        f"\n### {of.name} ({args.part}), {speed.name}: {queries}\n\n{table(results, next(iter(results)))}", flush=True
    )


if __name__ == "__main__":
    sys.exit(main())
