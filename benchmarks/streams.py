"""Memory while a large file is indexed: `python -m benchmarks.streams --data DIR [--megabytes 82] [--csv] [--upload]`.

Writes JSON lines, or with `--csv` a table, of so many megabytes from the passages of the evaluation sets in DIR, each
with a number of its own; has a running service index it, by `winnow index`, with `--rebuild` too, or with `--upload` by
POST /documents; and samples the memory of the service, of its reader and of what builds the graph above what the
service had after a first small file. What is anonymous counts: pages of the store's files are the system's to take
back, and are printed apart. At the end the service is started again and searched, which tells what the index alone
needs. The embedder is a fake one of 64 dimensions unless `--model` is given. After `--minutes` the service is killed,
and what was seen by then counts.
"""

import argparse
import asyncio
import csv
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

from app.evaluation.data import read_rows
from benchmarks.processes import Memory, children, memory
from benchmarks.service import QUICK, REAL, Service, found

_ROLES = (("reader", b"sandbox.child"), ("graph build", b"edge_process"))
_POLL_S = 0.1


def main() -> int:
    """Exit status 1 if more than --most anonymous megabytes were needed, or not every record is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--megabytes", type=int, default=82)
    parser.add_argument("--csv", action="store_true")
    parser.add_argument("--upload", action="store_true")
    parser.add_argument("--rebuild", action="store_true")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--model", action="store_true", help="with the configured model")
    parser.add_argument("--most", type=int, default=250)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return int(not asyncio.run(measure(Path(folder), options)))


def texts_of(data: Path) -> list[str]:
    """Every passage of the sets in the folder, in a fixed order."""
    corpora = sorted(path for path in data.rglob("corpus.jsonl*") if path.is_file())
    return [row["text"] for corpus in corpora for row in read_rows(corpus)]


def write(path: Path, megabytes: float, texts: list[str], prefix: str) -> int:
    """The file; returns how many records it has."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        if path.suffix == ".csv":
            rows.writerow(["id", "title", "text"])
        for number, text in zip(itertools.count(), itertools.cycle(texts)):
            row = {"_id": f"{prefix}{number}", "title": f"Record {number}", "text": f"{number}: {text}"}
            if path.suffix == ".csv":
                rows.writerow(row.values())
            else:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            if number % 100 == 0 and file.tell() > 1e6 * megabytes:
                return number + 1
    raise ValueError("there are no texts")


async def measure(folder: Path, options: argparse.Namespace) -> bool:
    """Print a line whenever the peak has risen, and at the end what each process needed."""
    home, kind = folder / "home", "csv" if options.csv else "jsonl"
    service = Service(home, folder / "log", module=REAL if options.model else QUICK)
    await service.start()
    await service.until_ready(600)
    texts = texts_of(options.data)
    write(folder / f"small.{kind}", 0.2, texts, "first-")
    await send(service, folder / f"small.{kind}", options, 600)
    base, large = memory(service.pid), folder / f"large.{kind}"
    count = write(large, options.megabytes, texts, "r")
    size = large.stat().st_size / 1e6
    print(f"{count} records, {size:.0f} MB; service: {base.anonymous:.0f} MB anonymous, {base.files:.0f} of files")
    begun = time.monotonic()
    running = asyncio.create_task(send(service, large, options, 60 * options.minutes))
    peaks: dict[str, Memory] = {}
    shown = 0.0
    while not running.done():
        sample(service.pid, peaks)
        if peaks["service"].anonymous > 1.1 * shown:
            shown = peaks["service"].anonymous
            print(f"{time.monotonic() - begun:6.0f} s: {_said(peaks, base)}", flush=True)
        await asyncio.sleep(_POLL_S)
    print(f"{time.monotonic() - begun:6.0f} s: {running.result()}; {_said(peaks, base)}", flush=True)
    async with service.client() as client:
        held = (await client.get("/collections")).json()["collections"][0]
    service.kill()
    print(f"{held['documents']} documents, {held['passages']} passages; {await _rest(service, base)}")
    needed = max(peaks["service"].anonymous - base.anonymous, peaks.get("reader", Memory()).anonymous)
    print(f"needed: {needed:.0f} MB (at most {options.most})")
    return bool(needed <= options.most and (options.csv or held["documents"] > count))


async def send(service: Service, path: Path, options: argparse.Namespace, within_s: float) -> str:
    """Have the service index the file to its end; returns what was said of it."""
    if not options.upload:
        how = ["--rebuild"] if options.rebuild else []
        status, said = await service.run("index", str(path), *how, within_s=within_s)
        return f"exit status {status}: {said.strip()[-200:]}"
    async with service.client(timeout_s=within_s) as client, asyncio.timeout(within_s):
        with path.open("rb") as file:
            reply = await client.post("/documents", files={"files": (path.name, file)}, params={"wait": "false"})
        reply.raise_for_status()
        job = reply.json()
        while job["state"] in ("queued", "running"):
            await asyncio.sleep(_POLL_S)
            job = (await client.get(f"/jobs/{job['id']}")).json()
    return f"job {job['state']}: {job['documents']} documents, {job['failed']} failed, {job['detail']}"


async def _rest(service: Service, base: Memory) -> str:
    """Of a service that has only opened the index and searched it."""
    await service.start()
    await service.until_ready(600)
    async with service.client(timeout_s=600) as client:
        await found(client, "default", "garden river winter")
    rest = memory(service.pid)
    service.kill()
    return f"started again and searched: {rest.anonymous - base.anonymous:+.0f} MB anonymous, {rest.files:.0f} of files"


def sample(pid: int, peaks: dict[str, Memory]) -> None:
    """Raise the peaks of the service and of each kind of its children."""
    processes = {pid: "service"} | {child: _role(command) for child, command in children(pid)}
    for process, role in processes.items():
        peaks[role] = Memory(*map(max, memory(process), peaks.get(role, Memory())))


def _role(command: bytes) -> str:
    return next((role for role, mark in _ROLES if mark in command), "other")


def _said(peaks: dict[str, Memory], base: Memory) -> str:
    own = peaks["service"]
    parts = [f"service {own.anonymous - base.anonymous:+.0f} MB anonymous, {own.files - base.files:+.0f} of files"]
    parts += [f"{role} {one.anonymous:.0f} and {one.files:.0f}" for role, one in peaks.items() if role != "service"]
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
