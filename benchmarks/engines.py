"""Both engines of the embedding model on this processor, in turns: `python -m benchmarks.engines [--rounds 3]`.

Each round starts a process for each engine, which loads the model, embeds 40 questions one by one and 64 passages of
256 tokens in bulk, and reports wall time, processor time and memory. The exported model is made beforehand.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

QUERIES, PASSAGES = 40, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "EXPORTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measure(options.one[0], Path(options.one[1]))))
        return
    with tempfile.TemporaryDirectory() as exports:
        _run("auto", exports)
        rounds = [{engine: _run(engine, exports) for engine in ("torch", "auto")} for _ in range(options.rounds)]
    print(f"{'':28}{'torch':>10}{'OpenVINO':>10}{'ratio':>8}   median of {options.rounds}")
    for figure in rounds[0]["torch"]:
        torch, ours = (statistics.median(one[engine][figure] for one in rounds) for engine in ("torch", "auto"))
        ratio = statistics.median(one["torch"][figure] / one["auto"][figure] for one in rounds)
        print(f"{figure:28}{torch:10.2f}{ours:10.2f}{ratio:8.2f}")


def _run(engine: str, exports: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.engines", "--one", engine, exports]
    measured: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return measured


def _measure(engine: Any, exports: Path) -> dict[str, float]:
    began, spent = time.monotonic(), time.process_time()
    from indexing.embedding.loading import load_embedder
    from indexing.settings import EmbeddingSettings

    embedder = load_embedder(EmbeddingSettings(engine=engine, exports=exports))
    embedder.embed_queries(["Is it ready?"])
    ready, ready_cpu = time.monotonic() - began, time.process_time() - spent
    queries = [f"How long may guest number {number} keep the key of the harbour house?" for number in range(QUERIES)]
    passages = [
        f"Rule {number}. " + "Guests return the key of the harbour house by noon. " * 25 for number in range(PASSAGES)
    ]
    for query in queries[:5]:
        embedder.embed_queries([query])
    times = []
    spent = time.process_time()
    for query in queries:
        at = time.perf_counter()
        embedder.embed_queries([query])
        times.append(1000 * (time.perf_counter() - at))
    query_cpu = 1000 * (time.process_time() - spent) / QUERIES
    embedder.embed_documents(passages[:8], "bulk")
    at, spent = time.perf_counter(), time.process_time()
    embedder.embed_documents(passages, "bulk")
    bulk, bulk_cpu = time.perf_counter() - at, time.process_time() - spent
    return {
        "ready, s": ready,
        "ready, s of CPU": ready_cpu,
        "a query, ms": statistics.median(times),
        "a query, ms of CPU": query_cpu,
        "a passage, ms": 1000 * bulk / PASSAGES,
        "a passage, ms of CPU": 1000 * bulk_cpu / PASSAGES,
        "memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
