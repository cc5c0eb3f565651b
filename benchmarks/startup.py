"""Start-up, warm and from a cold page cache: `python -m benchmarks.startup [--cold] [--rounds 3]`.

The samples are indexed with the configured model, exported beforehand, from a copy of this user's exports. Each round
starts `winnow serve` and waits until it listens, until /health/ready says so, and for a first search; then
`winnow search` runs where no service does. With `--cold` each is done twice, in changing order: as it is, and after the
files of the environment, of this checkout, of the home and of the exports have been dropped from the page cache. What
other processes have mapped stays there, and is printed: run it in an environment that nobody else uses. Required, warm:
ready within 3 s, a search within 2 s of processor time.
"""

import argparse
import asyncio
import ctypes
import mmap
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from app.config.validation import load_settings
from app.main import SAMPLES
from benchmarks.processes import processor_s
from benchmarks.service import REAL, ROOT, Service

READY_S, SEARCH_CPU_S = 3.0, 2.0
QUERY = "How long may guests keep the key?"
START_S = 300.0

Figures = dict[str, float]


def main() -> int:
    """Exit status 1 when a warm start takes too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cold", action="store_true", help="beside warm starts, from a cold page cache")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="winnow-startup-") as scratch:
        measured = asyncio.run(_rounds(Path(scratch), options.rounds, cold=options.cold))
    medians = {way: {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
               for way, rounds in measured.items()}  # fmt: skip
    print(f"{'':28}" + "".join(f"{way:>9}" for way in medians) + f"   median of {options.rounds}")
    for name in medians["warm"]:
        print(f"{name:28}" + "".join(f"{figures[name]:9.2f}" for figures in medians.values()))
    warm = medians["warm"]
    return int(warm["serve: ready, s"] > READY_S or warm["search: s of CPU"] > SEARCH_CPU_S)


async def _rounds(scratch: Path, rounds: int, *, cold: bool) -> dict[str, list[Figures]]:
    exports = scratch / "models"
    made = load_settings(os.environ, Path.cwd()).embedding.exports
    if made is not None and made.is_dir():
        shutil.copytree(made, exports)
    settings = {"WINNOW_EMBEDDING_EXPORTS": str(exports)}
    service = Service(scratch / "home", scratch / "log", module=REAL, settings=settings)
    status, said = await service.run("index", str(SAMPLES), within_s=START_S)
    if status:
        raise SystemExit(said)
    ways = ("warm", "cold") if cold else ("warm",)
    await _measured(service, scratch, "warm")
    measured: dict[str, list[Figures]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            measured[way].append(await _measured(service, scratch, way))
    return measured


async def _measured(service: Service, scratch: Path, way: str) -> Figures:
    """Of one start of the service, and of one search without."""
    _prepare(scratch, way)
    begun = time.perf_counter()
    listens = await service.start(START_S)
    await service.until_ready(START_S)
    ready, ready_cpu = time.perf_counter() - begun, processor_s(service.pid)
    async with service.client() as client:
        (await client.post("/search", json={"query": QUERY, "backend": "none"})).raise_for_status()
    searched = time.perf_counter() - begun
    read = _read_mb(service.pid)
    await service.terminate()
    _prepare(scratch, way)
    begun, spent = time.perf_counter(), _children_s()
    status, said = await service.run("search", QUERY, "--backend", "none", within_s=START_S)
    if status:
        raise SystemExit(said)
    return {
        "serve: listens, s": listens,
        "serve: ready, s": ready,
        "serve: ready, s of CPU": ready_cpu,
        "serve: first search, s": searched,
        "serve: read from disk, MB": read,
        "search: s": time.perf_counter() - begun,
        "search: s of CPU": _children_s() - spent,
    }


def _prepare(scratch: Path, way: str) -> None:
    if way == "cold":
        os.sync()
        kept = sum(evict(path) for path in _files(scratch))
        print(f"cold: {kept / 1e6:.0f} MB stay in the page cache", flush=True)


def _files(scratch: Path) -> Iterator[Path]:
    """Of the environment, the standard library, the checkout, the home and the exports."""
    for root in (Path(sys.prefix), Path(os.__file__).parent, ROOT / "app", ROOT / "indexing", scratch):
        for folder, folders, names in os.walk(root.resolve()):
            if "site-packages" in folders and root == Path(os.__file__).parent:
                folders.remove("site-packages")
            yield from (path for name in names if not (path := Path(folder, name)).is_symlink())


def evict(path: Path) -> int:
    """Drop a file from the page cache; bytes of it that are in use elsewhere, and stay."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return 0
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return _resident_bytes(file.fileno(), size)


def _resident_bytes(descriptor: int, size: int) -> int:
    """By mincore, which Python does not offer."""
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(size), pages)
        del view
        if failed:
            raise OSError(f"mincore failed, after {size} bytes were mapped")
        return sum(page & 1 for page in pages) * mmap.PAGESIZE


def _read_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith("read_bytes:"))


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
