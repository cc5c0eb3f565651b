"""Memory while a large file is indexed: `python -m benchmarks.streams [--megabytes 82] [--model] [--minutes 30]`.

Writes JSON lines of so many megabytes, has a service index them, and samples the memory of its process and of the
reader (VmRSS; the share that is no file's, RssAnon, apart) above what it was after a first small file. The embedder is
a fake one unless `--model` is given: what is measured is what holds the file. After `--minutes` the service is killed,
and what it says by then counts.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.service import QUICK, REAL, Service, text_of

RECORDS = 2000
"""Different texts; each comes with a number of its own."""


def main() -> int:
    """Exit status 1 if more than --most megabytes were needed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=82)
    parser.add_argument("--sentences", type=int, default=20, help="of a record, some 75 characters each")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--model", action="store_true", help="with the configured model")
    parser.add_argument("--most", type=int, default=250)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        needed = asyncio.run(measure(Path(folder), options))
    return int(needed > options.most)


def write(path: Path, megabytes: float, sentences: int, prefix: str) -> int:
    """The file; returns how many records it has."""
    dice = random.Random(7)
    texts = [text_of(f"word{number}", sentences) for number in range(RECORDS)]
    count, left = 0, 1e6 * megabytes
    with path.open("w", encoding="utf-8") as file:
        while left > 0:
            left -= file.write(
                json.dumps(
                    {"_id": f"{prefix}{count}", "title": f"Record {count}", "text": f"{count}: {dice.choice(texts)}"}
                )
                + "\n"
            )
            count += 1
    return count


async def measure(folder: Path, options: argparse.Namespace) -> float:
    """Print a line whenever the peak has risen by a tenth, and at the end; megabytes above the model."""
    service = Service(folder / "home", folder / "log", module=REAL if options.model else QUICK)
    await service.start()
    await service.until_ready(600)
    write(folder / "small.jsonl", 0.2, options.sentences, "first-")
    await service.run("index", str(folder / "small.jsonl"))
    base, large = memory(service.pid, "VmRSS"), folder / "large.jsonl"
    count = write(large, options.megabytes, options.sentences, "r")
    print(f"{count} records, {large.stat().st_size / 1e6:.0f} MB; the service has {base:.0f} MB", flush=True)
    running = asyncio.create_task(service.run("index", str(large), within_s=60 * options.minutes))
    begun, peak, anon, reader, shown = time.monotonic(), 0.0, 0.0, 0.0, 0.0
    while not running.done():
        peak, anon = max(peak, memory(service.pid, "VmRSS")), max(anon, memory(service.pid, "RssAnon"))
        reader = max([reader, *(memory(child, "VmHWM") for child in children(service.pid))])
        if peak > 1.1 * shown:
            shown = peak
            print(f"{time.monotonic() - begun:6.0f} s: {peak - base:5.0f} MB more, reader {reader:.0f} MB", flush=True)
        await asyncio.sleep(0.1)
    status, said = running.result()
    async with service.client() as client:
        held = (await client.get("/collections")).json()["collections"][0]
    service.kill()
    print(f"exit status {status}; {held['documents']} documents, {held['passages']} passages: {said.strip()[-200:]}")
    print(f"peak {peak - base:.0f} MB above {base:.0f} (anonymous {anon:.0f} in all); reader {reader:.0f} MB")
    return max(peak - base, reader)


def memory(pid: int, field: str) -> float:
    """In megabytes; 0 of a process that is gone."""
    try:
        found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def children(pid: int) -> list[int]:
    """Those that it has at the moment."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main())
