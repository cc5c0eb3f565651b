"""Fills the disk under a service, and empties it again: nothing acknowledged is lost, and no process is killed by it.

    sudo python -m benchmarks.disk_full [--megabytes 160]

As root: a tmpfs of so many megabytes is mounted in a temporary folder and holds the home. Documents are written until
they are refused; the service is asked, and started again; space is freed, and another program takes the rest to the
last byte while documents are written; started again on no space at all; space is freed. The embedder is a fake one.
Exit status 1 if a document was lost, a signal ended a process, or a traceback was logged.
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.acknowledged import History, look
from benchmarks.service import DidNotStart, Service, detail, documents, found, put, rare_word

COLLECTION = "default"
RESERVE_MB, ROOM_MB = 12, 60
"""What the service is told to leave free, and what it may fill before it comes to that."""

SENTENCES, BATCH = 60, 4
REFUSALS = 6
"""So many in a row, and the disk counts as full."""

WRITING_S = 5.0


class Disk:
    """A small file system, with a ballast that another program would have written there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ballast = root / "ballast"

    @property
    def free_mb(self) -> float:
        return shutil.disk_usage(self.root).free / 1e6

    def leave(self, megabytes: float) -> None:
        """Write or shorten the ballast so that this much is free, if it can be."""
        size = self._ballast.stat().st_size if self._ballast.exists() else 0
        wanted = int(size + (self.free_mb - megabytes) * 1e6)
        if wanted <= size:
            with self._ballast.open("ab") as file:
                file.truncate(max(0, wanted))
            return
        try:
            with self._ballast.open("ab", buffering=0) as file:
                while size < wanted:
                    size += file.write(bytes(min(1 << 16, wanted - size)))
        except OSError:  # full
            return


class Attack:
    """The service, what it has acknowledged, and what went wrong."""

    def __init__(self, disk: Disk, scratch: Path) -> None:
        self.disk = disk
        settings = {"WINNOW_INDEX_DISK_RESERVE_MB": str(RESERVE_MB)}
        self.service = Service(disk.root / "home", scratch / "service.log", settings=settings)
        self.histories: list[History] = []
        self.troubles: list[str] = []
        self._written = 0

    async def run(self) -> None:
        """All phases."""
        self.disk.leave(RESERVE_MB + ROOM_MB)
        await self._start("on an empty disk")
        await self._fill("until it is refused")
        await self._doctor()
        await self._stop("when full")
        await self._start("when full")
        await self._use("started when full", writes=False)
        self.disk.leave(RESERVE_MB + ROOM_MB)
        await self._revive()
        await self._use("space is free again", writes=True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fill("while another program takes the rest", seconds=WRITING_S))
            tasks.create_task(self._take_all())
        await self._use("not a byte is free", writes=False)
        await self._stop("on no space")
        await self._start("on no space", may_fail=True)
        await self._use("started on no space", writes=False)
        await self._stop("again")
        self.disk.leave(RESERVE_MB + ROOM_MB)
        await self._start("when space is free again")
        await self._use("at the end", writes=True)
        await self._check()
        await self._stop("at the end")

    async def _start(self, when: str, *, may_fail: bool = False) -> None:
        try:
            seconds = await self.service.start(30)
            self._say(f"start {when}", f"listens after {seconds:.1f} s")
        except DidNotStart as exc:
            self._say(f"start {when}", str(exc)[-300:].strip())
            self._note_status(f"start {when}")
            if not may_fail:
                raise
            if "Traceback" in str(exc):
                self.troubles.append(f"start {when}: a traceback")
            return
        try:
            await self.service.until_ready(10)
        except TimeoutError:
            async with self.service.client() as client:
                self._say(f"start {when}", f"not ready: {(await client.get('/health/ready')).text[:300]}")
        except httpx.TransportError as exc:
            self._say(f"start {when}", f"{type(exc).__name__}; exit status {self.service.exit_status}")

    async def _revive(self) -> None:
        """Go on after a fault."""
        if self.service.exit_status is not None:
            self._note_status("when full")
            await self._start("after it had died")

    async def _stop(self, when: str) -> None:
        if self.service.exit_status is None:
            seconds, status = await self.service.terminate()
            self._say(f"SIGTERM {when}", f"status {status} after {seconds:.1f} s")
        self._note_status(f"until SIGTERM {when}")

    def _note_status(self, when: str) -> None:
        status = self.service.exit_status
        if status is not None and status < 0:
            self.troubles.append(f"{when}: ended by signal {-status}")
        if self.service.unexpected:
            self.troubles.append(f"{when}: a traceback in the log: {self.service.unexpected}")

    async def _fill(self, when: str, seconds: float = 60) -> None:
        """Write until it has been refused a few times in a row, or so long."""
        outcomes, text, refusals = Counter[str](), "", 0
        try:
            async with asyncio.timeout(seconds), self.service.client() as client:
                while refusals < REFUSALS or seconds == WRITING_S:
                    status, said = await self._put(client)
                    outcomes[str(status)] += 1
                    refusals, text = (refusals + 1, said) if status != 200 else (0, text)
                    if refusals:
                        await asyncio.sleep(0.1)
        except TimeoutError:
            pass
        except httpx.TransportError as exc:
            outcomes[type(exc).__name__] += 1
        self._say(f"writing {when}", f"{dict(outcomes)}, {self.disk.free_mb:.1f} MB free; {text}")
        for outcome in set(outcomes) - {"200", "507", "503"}:
            self.troubles.append(f"writing {when}: {outcome}: {text}")

    async def _put(self, client: httpx.AsyncClient) -> tuple[int, str]:
        """New documents, and an update of an older one: the status in the end, and what a refusal says."""
        chosen = [History(COLLECTION, f"d{self._written}-{number}") for number in range(BATCH)]
        if self.histories:
            chosen.append(self.histories[self._written % len(self.histories)])
        self._written += 1
        words = {history.id: rare_word(self._written, history.id) for history in chosen}
        self.histories += chosen[:BATCH]
        attempts = [(history, history.attempt(words[history.id], SENTENCES)) for history in chosen]
        response = await put(client, COLLECTION, documents(words, SENTENCES))
        if response.status_code == 202:
            return await self._finished(client, response.json()["id"], attempts)
        if response.status_code == 200:
            failed = {result["id"] for result in response.json()["results"] if result["status"] == "failed"}
            for history, place in attempts:
                if history.id not in failed:
                    history.acknowledge(place)
        return response.status_code, detail(response)

    async def _finished(
        self, client: httpx.AsyncClient, job_id: str, attempts: list[tuple[History, int]]
    ) -> tuple[int, str]:
        """Wait for a job: 200, or 507 while it waits for space, which it will find."""
        while True:
            job = (await client.get(f"/jobs/{job_id}")).json()
            if job["state"] == "done" and not job["failed"]:
                for history, place in attempts:
                    history.acknowledge(place)
                return 200, ""
            if job["detail"]:
                return 507, f"the job: {job['detail']}"
            await asyncio.sleep(0.1)

    async def _take_all(self) -> None:
        """In steps, so that some writes still succeed."""
        for megabytes in (RESERVE_MB + 4, RESERVE_MB, 4, 1, 0):
            await asyncio.sleep(WRITING_S / 8)
            await asyncio.to_thread(self.disk.leave, megabytes)

    async def _use(self, when: str, *, writes: bool) -> None:
        """Search, read, delete and write."""
        said: list[str] = []
        if self.service.exit_status is not None:
            self._say(f"use: {when}", "it does not run")
            return
        async with self.service.client(timeout_s=20) as client:
            try:
                acknowledged = [history for history in self.histories if history.states[history.floor]]
                hits = [
                    await found(client, COLLECTION, h.states[h.floor])
                    for h in acknowledged[:: max(1, len(acknowledged) // 10)]
                ]
                said.append(f"{sum(bool(hit) for hit in hits)} of {len(hits)} searches find")
                ready = await client.get("/health/ready")
                said.append(f"ready {ready.status_code}")
                status, text = await self._put(client)
                said.append(f"write {status} {text[:160]}")
                if writes and status != 200:
                    self.troubles.append(f"{when}: a write is refused: {text}")
                if not all(hits):
                    self.troubles.append(f"{when}: searches find nothing")
            except httpx.HTTPStatusError as exc:
                said.append(f"a search: {exc.response.status_code} {detail(exc.response)[:200]}")
                if "full" not in detail(exc.response):
                    self.troubles.append(f"{when}: a search is refused: {detail(exc.response)}")
            except httpx.TransportError as exc:
                said.append(f"{type(exc).__name__} {exc}")
                self.troubles.append(f"{when}: {type(exc).__name__} {exc}")
        self._say(f"use: {when}", "; ".join(said))

    async def _doctor(self) -> None:
        status, output = await self.service.run("doctor")
        warned = [line.strip() for line in output.splitlines() if "disk" in line.lower() or "free" in line.lower()]
        self._say("winnow doctor", f"status {status}: {' / '.join(warned)[:300]}")

    async def _check(self) -> None:
        async with self.service.client() as client:
            faults = [fault for history in self.histories if (fault := await look(client, history))]
        kinds = Counter(fault.kind for fault in faults)
        self._say("compared", f"{len(self.histories)} documents: {dict(kinds) or 'no fault'}")
        self.troubles += [f"{fault.kind}: {fault.document}: {fault.what}" for fault in faults[:10]]

    def _say(self, what: str, outcome: str) -> None:
        print(f"{what}: {outcome}", flush=True)


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[Path]:
    """A tmpfs; the caller must be root."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "winnow-full", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def attack(disk: Disk, scratch: Path) -> list[str]:
    """All phases; what went wrong."""
    run = Attack(disk, scratch)
    try:
        await run.run()
    except DidNotStart as exc:
        run.troubles.append(f"it does not start: {str(exc)[-500:]}")
    except httpx.TransportError as exc:
        run.troubles.append(f"{type(exc).__name__}; exit status {run.service.exit_status}")
    finally:
        run.service.kill()
    return run.troubles


def main() -> int:
    """Mount, fill, empty, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=160)
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="winnow-disk-full-"))
    (scratch / "disk").mkdir()
    try:
        with mounted(scratch / "disk", arguments.megabytes) as root:
            troubles = asyncio.run(attack(Disk(root), scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for trouble in dict.fromkeys(troubles):
        print(f"TROUBLE {trouble}")
    print("survived" if not troubles else f"{len(troubles)} troubles")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
