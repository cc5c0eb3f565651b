"""What small requests wait while somebody else indexes a lot.

    python -m benchmarks.interference [--megabytes 60] [--seconds 120] [--quick]

Every second a document of one sentence is written, one is deleted, and a search is made: with nothing else going on,
while so many megabytes are indexed as a job, and while `winnow index` reads them from files; each phase for at most so
long. /health/live, asked ten times a second, shows how long the event loop was held up. Then a document with 50 and one
with 1,000 keys of metadata is written to a new collection. The configured embedding model; `--quick`: a fake one.
Required: a small write and a delete within 2 s, the event loop never held up for more than 1 s. Exit status 1
otherwise.
"""

import argparse
import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from benchmarks.service import QUICK, REAL, Service, detail, documents, found, put, quantiles, rare_word, text_of

WRITE_S, HELD_UP_S = 2.0, 1.0
QUIET_S, SETTLING_S = 10.0, 3.0
SMALL, LARGE = "small", "large"
FILE_BYTES = 500_000
SENTENCE_BYTES = 75


class Bystander:
    """Small requests at regular times, and how long they took."""

    def __init__(self, service: Service, client: httpx.AsyncClient) -> None:
        self._service, self._client = service, client
        self._written = 0
        self.seconds: dict[str, list[float]] = {}
        self.refused: Counter[str] = Counter()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """All of them go on inside the block; their times are those of this block."""
        self.seconds, self.refused = {"write": [], "delete": [], "search": [], "live": []}, Counter()
        tasks = [asyncio.create_task(work()) for work in (self._write, self._search, self._live)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def report(self, phase: str) -> bool:
        """Print the phase's times; False if something required was missed."""
        for name, seconds in self.seconds.items():
            print(f"{phase:28} {name:7} {len(seconds):4} times, {quantiles(seconds)}")
        if self.refused:
            print(f"{phase:28} refused {dict(self.refused)}")
        writes = [*self.seconds["write"], *self.seconds["delete"]]
        return max(writes, default=99) <= WRITE_S and max(self.seconds["live"], default=99) <= HELD_UP_S

    async def _write(self) -> None:
        while True:
            self._written += 1
            key = f"d{self._written}"
            await self._timed("write", put(self._client, SMALL, documents({key: rare_word(key)}, 1)))
            await self._timed("delete", self._client.delete(f"/documents/{key}", params={"collection": SMALL}))
            await asyncio.sleep(1)

    async def _search(self) -> None:
        while True:
            body = {"query": "the silver letter", "collection": SMALL, "backend": "none"}
            await self._timed("search", self._client.post("/search", json=body))
            await asyncio.sleep(1)

    async def _live(self) -> None:
        while True:
            await self._timed("live", self._client.get("/health/live"))
            await asyncio.sleep(0.1)

    async def _timed(self, name: str, request: Awaitable[httpx.Response]) -> None:
        begun = time.perf_counter()
        try:
            response = await request
            if response.status_code >= 400:
                self.refused[f"{name}: {response.status_code} {detail(response)[:80]}"] += 1
        except httpx.HTTPError as exc:
            self.refused[f"{name}: {type(exc).__name__}"] += 1
        self.seconds[name].append(time.perf_counter() - begun)


def texts(megabytes: float) -> dict[str, bytes]:
    """Files of half a megabyte, by name."""
    count = max(1, round(megabytes * 1e6 / FILE_BYTES))
    names = (f"{number:03}.txt" for number in range(count))
    return {name: text_of(rare_word("large", name), FILE_BYTES // SENTENCE_BYTES).encode() for name in names}


async def upload(client: httpx.AsyncClient, files: Mapping[str, bytes]) -> str:
    """As a job; its id."""
    parts = [("files", (name, content, "text/plain")) for name, content in files.items()]
    response = await client.post("/documents", files=parts, data={"collection": LARGE}, params={"wait": "false"})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def job_done(client: httpx.AsyncClient, job_id: str) -> None:
    """Returns when it has ended."""
    while True:
        if (await client.get(f"/jobs/{job_id}")).json()["state"] not in ("queued", "running"):
            return
        await asyncio.sleep(0.5)


async def attack(scratch: Path, megabytes: float, seconds: float, *, quick: bool) -> bool:
    """All phases; False if something required was missed."""
    settings = {"WINNOW_TEST_PASSAGE_MS": "15"} if quick else {}
    service = Service(scratch / "home", scratch / "service.log", module=QUICK if quick else REAL, settings=settings)
    try:
        await service.start()
        await service.until_ready(120)
        async with service.client(timeout_s=600) as client:
            (await put(client, SMALL, documents({"first": "silver letter"}, 1))).raise_for_status()
            good = await _phases(service, client, scratch, texts(megabytes), seconds)
            for keys in (50, 1000):
                good &= await _many_keys(service, client, keys)
        print(f"SIGTERM: {await service.terminate()}")
    finally:
        service.kill()
    return good


async def _phases(
    service: Service, client: httpx.AsyncClient, scratch: Path, files: Mapping[str, bytes], seconds: float
) -> bool:
    bystander = Bystander(service, client)
    async with bystander.watching():
        await asyncio.sleep(QUIET_S)
    bystander.report("nothing else")

    begun = time.perf_counter()
    async with bystander.watching():
        job_id = await upload(client, files)
        size, took = sum(map(len, files.values())) / 1e6, time.perf_counter() - begun
        print(f"an upload of {size:.0f} MB is taken after {took:.1f} s")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(job_done(client, job_id), seconds)
    good = bystander.report("an upload is indexed")
    job = (await client.get(f"/jobs/{job_id}")).json()
    print(f"the job: {job['state']}, {job['passages']} passages after {time.perf_counter() - begun:.0f} s")
    await client.delete(f"/jobs/{job_id}")

    folder = scratch / "texts"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    async with bystander.watching():
        # Killed when its time is up, which ends the run in the service.
        status, output = await service.run("index", str(folder), "--collection", "files", within_s=seconds)
    good &= bystander.report("winnow index")
    print(f"winnow index: status {status}, {output.strip().splitlines()[-1][:100] if output.strip() else ''}")
    await asyncio.sleep(SETTLING_S)
    return good


async def _many_keys(service: Service, client: httpx.AsyncClient, keys: int) -> bool:
    """The first document of a new collection, with so many keys of metadata."""
    bystander, word = Bystander(service, client), rare_word("keys", keys)
    metadata = {f"key{number}": f"value {number}" for number in range(keys)}
    async with bystander.watching():
        begun = time.perf_counter()
        response = await put(client, f"keys-{keys}", documents({"one": word}, 1, metadata=metadata))
        took = time.perf_counter() - begun
    result = response.json()["results"][0] if response.status_code == 200 else {"status": detail(response)}
    held_up = max(bystander.seconds["live"], default=0.0)
    said = f"{response.status_code} {result['status']} {result.get('detail') or ''}"
    print(f"{keys} keys of metadata: {took:.2f} s, /health/live at most {held_up:.2f} s: {said}")
    if result["status"] == "created":
        assert await found(client, f"keys-{keys}", word)
    return took <= WRITE_S and held_up <= HELD_UP_S


def main() -> int:
    """Measure all phases."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--megabytes", type=float, default=60)
    parser.add_argument("--seconds", type=float, default=120, help="at most, of each phase")
    parser.add_argument("--quick", action="store_true", help="with a fake embedder")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="winnow-interference-"))
    try:
        good = asyncio.run(attack(scratch, arguments.megabytes, arguments.seconds, quick=arguments.quick))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
