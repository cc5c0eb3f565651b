"""Kills the service at random moments under eight writers, starts it again, and compares it with its acknowledgements.

    python -m benchmarks.service_kill [--kills 100] [--seed 1] [--passage-ms 4]

The writers create, update and delete documents: single ones, batches, large ones, files, and uploads that become jobs;
two searchers read meanwhile. SIGKILL, restart, and at once each document that was written to since the last kill is
asked for by GET and by the rare words of its versions (`benchmarks.acknowledged` says what a fault is). The embedder is
a fake that takes `--passage-ms` for a passage; all else is the real service. Exit status 1 if there was a fault.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import httpx

from benchmarks.acknowledged import Fault, History, look, shown
from benchmarks.service import Service, detail, documents, put, quantiles, rare_word, text_of
from indexing.pipeline.planning import file_document_id

WRITERS, SEARCHERS, CHECKERS = 8, 2, 8
COLLECTIONS = ("letters", "reports")
SHORTEST_S, LONGEST_S = 0.2, 2.5
"""From the first write to the kill."""

SIZES = (1, 3, 60, 300)
"""Sentences; some twenty make a passage."""

OVERTAKING = 0.5
"""The share of the requests for one document that go to one that an unfinished job holds, where there is one."""

JOBS_S = 90.0
OPERATIONS = {"update": 6, "large": 2, "batch": 4, "job": 2, "file": 3, "records": 2, "delete": 2}

Attempt = tuple[History, int]


class Ledger:
    """All histories, what was touched since the last look, and what went wrong."""

    def __init__(self) -> None:
        self.histories: list[History] = []
        self.touched: set[History] = set()
        self.faults: list[Fault] = []
        self.counts: Counter[str] = Counter()

    def history(self, collection: str, document_id: str) -> History:
        """A new one."""
        self.histories.append(History(collection, document_id))
        return self.histories[-1]

    def report(self, fault: Fault) -> None:
        """Count and print it."""
        self.faults.append(fault)
        healed = "for good" if fault.healed_s is None else f"for {fault.healed_s:.1f} s"
        print(f"     {fault.kind}: {fault.document}: {fault.what} ({healed})", flush=True)


class Writer:
    """Writes to documents of its own, one request at a time."""

    def __init__(self, number: int, ledger: Ledger, dice: random.Random) -> None:
        self._name, self._ledger, self._dice = f"w{number}", ledger, dice
        self._collection = COLLECTIONS[number % len(COLLECTIONS)]
        self._plain = [ledger.history(self._collection, f"{self._name}-d{n}") for n in range(8)]
        # Jobs write these, and who puts or deletes one meanwhile has the last word.
        self._large = [ledger.history(self._collection, f"{self._name}-j{n}") for n in range(8)]
        self._records = [ledger.history(self._collection, f"{self._name}-r{n}.jsonl") for n in range(4)]
        self._sources = {file_document_id(f"{self._name}-f{n}.txt", ""): f"{self._name}-f{n}.txt" for n in range(4)}
        self._files = [ledger.history(self._collection, document_id) for document_id in self._sources]
        self._jobs: dict[str, list[Attempt]] = {}
        self._written = 0
        self.operation = ""
        """What is under way; it stays when the service is killed."""

    async def write(self, client: httpx.AsyncClient) -> None:
        """Until the service is gone."""
        try:
            while True:
                await self.ask_for_jobs(client)
                self.operation = self._dice.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
                await self._operate(client)
                self.operation = ""
        except httpx.TransportError:
            return

    async def ask_for_jobs(self, client: httpx.AsyncClient) -> bool:
        """Acknowledge what finished jobs did; True when none is left. Raises httpx.TransportError."""
        for job_id, attempts in list(self._jobs.items()):
            response = await client.get(f"/jobs/{job_id}")
            if response.status_code == 200 and (job := response.json())["state"] in ("queued", "running"):
                continue
            del self._jobs[job_id]
            if response.status_code == 200 and job["state"] == "done" and not job["failed"]:
                self._acknowledge(attempts)
                continue
            what = f"job: status {response.status_code}, {detail(response)[:200]}"
            self._ledger.report(Fault(kind="lost", document=f"{self._collection}/{job_id}", what=what))
        return not self._jobs

    def give_up_jobs(self) -> None:
        """Report those that never ended."""
        for job_id in self._jobs:
            self._ledger.report(Fault(kind="lost", document=f"{self._collection}/{job_id}", what="job: never ended"))

    async def _operate(self, client: httpx.AsyncClient) -> None:
        held = sorted({history for attempts in self._jobs.values() for history, _ in attempts}, key=lambda one: one.id)
        overtakes = held and self._dice.random() < OVERTAKING
        one, sentences = self._dice.choice(held if overtakes else self._plain), self._dice.choice(SIZES[:3])
        match self.operation:
            case "update":
                await self._put(client, [one], sentences)
            case "large":
                await self._put(client, [one], SIZES[-1])
            case "batch":
                await self._put(client, self._dice.sample(self._plain, self._dice.randint(2, 5)), sentences)
            case "job":
                if free := [history for history in self._large if history not in held]:
                    await self._put(client, free[: self._dice.randint(2, 5)], SIZES[-1], wait="false")
            case "file":
                await self._upload(client, [self._dice.choice(self._files)])
            case "records":
                await self._upload(client, self._records)
            case _:
                await self._delete(client, one)

    async def _put(self, client: httpx.AsyncClient, chosen: Sequence[History], sentences: int, wait: str = "") -> None:
        words, attempts = self._attempt(chosen, sentences)
        if wait:
            body = {"collection": self._collection, "documents": documents(words, sentences)}
            response = await client.post("/documents", json=body, params={"wait": wait})
        else:
            response = await put(client, self._collection, documents(words, sentences))
        self._learn(response, attempts)

    async def _upload(self, client: httpx.AsyncClient, chosen: Sequence[History]) -> None:
        sentences = self._dice.choice(SIZES[:3])
        words, attempts = self._attempt(chosen, sentences)
        if name := self._sources.get(chosen[0].id):
            content, media_type = text_of(words[chosen[0].id], sentences), "text/plain"
        else:
            name, media_type = f"{self._name}.jsonl", "application/jsonl"
            content = "\n".join(json.dumps(document) for document in documents(words, sentences))
        files = {"files": (name, content.encode(), media_type)}
        self._learn(await client.post("/documents", files=files, data={"collection": self._collection}), attempts)

    async def _delete(self, client: httpx.AsyncClient, history: History) -> None:
        allowed, place = history.allowed, history.attempt("")
        self._ledger.touched.add(history)
        path, parameters = f"/documents/{quote(history.id, safe='')}", {"collection": self._collection}
        response = await client.delete(path, params=parameters)
        if response.status_code == 204:
            history.acknowledge(place)
            self._ledger.counts["deletions"] += 1
            self._ledger.counts["deletions that overtake a job"] += self._in_a_job(history)
        elif response.status_code != 404:
            self._refused(response)
        elif "" not in allowed:
            what = "404 by DELETE"
            self._ledger.report(Fault(kind="hidden", document=f"{self._collection}/{history.id}", what=what))

    def _attempt(self, chosen: Sequence[History], sentences: int) -> tuple[dict[str, str], list[Attempt]]:
        self._written += 1
        words = {history.id: rare_word(self._name, self._written, history.id) for history in chosen}
        self._ledger.touched.update(chosen)
        return words, [(history, history.attempt(words[history.id], sentences)) for history in chosen]

    def _learn(self, response: httpx.Response, attempts: list[Attempt]) -> None:
        if response.status_code == 202:
            self._jobs[response.json()["id"]] = attempts
            self._ledger.counts["jobs"] += 1
            return
        if response.status_code != 200:
            self._refused(response)
            return
        results = {result["id"]: result for result in response.json()["results"]}
        for history, place in attempts:
            result = results.get(history.id) or {"status": "failed", "detail": "no result"}
            if result["status"] == "failed":
                self._ledger.counts[f"failed: {result['detail']}"] += 1
                continue
            if result["status"] == "created" and "" not in history.states[history.floor : place]:
                what = "an update was answered with created"
                self._ledger.report(Fault(kind="lost", document=f"{self._collection}/{history.id}", what=what))
            self._acknowledge([(history, place)])
            self._ledger.counts["writes that overtake a job"] += self._in_a_job(history)

    def _in_a_job(self, history: History) -> bool:
        return any(history is held for attempts in self._jobs.values() for held, _ in attempts)

    def _acknowledge(self, attempts: list[Attempt]) -> None:
        for history, place in attempts:
            history.acknowledge(place)
        self._ledger.counts["writes"] += len(attempts)

    def _refused(self, response: httpx.Response) -> None:
        self._ledger.counts[f"refused: {response.status_code} {detail(response)[:80]}"] += 1


async def read(client: httpx.AsyncClient, ledger: Ledger, dice: random.Random) -> None:
    """Ask for documents that others write to, until the service is gone: each is always there as a whole."""
    try:
        while True:
            history = dice.choice(ledger.histories)
            floor = history.floor
            try:
                seen = await shown(client, history)
            except httpx.HTTPStatusError as exc:
                ledger.counts[f"reads refused: {exc.response.status_code}"] += 1
                continue
            ledger.counts["reads"] += 1
            if seen.fault or seen.word not in history.states[floor:]:
                what = seen.fault or ("an older version" if seen.word else "404 by GET")
                kind = "mixed" if seen.fault else "hidden"
                name = f"{history.collection}/{history.id}"
                ledger.report(Fault(kind=kind, document=name, what=f"while it was written to: {what}"))
    except httpx.TransportError:
        return


async def check(client: httpx.AsyncClient, ledger: Ledger, histories: Sequence[History]) -> None:
    """Look at these, several at a time."""
    todo = iter(histories)

    async def checker() -> None:
        for history in todo:
            if fault := await look(client, history):
                ledger.report(fault)

    await asyncio.gather(*(checker() for _ in range(CHECKERS)))


async def attack(home: Path, arguments: argparse.Namespace) -> Ledger:
    """All kills."""
    dice, ledger = random.Random(arguments.seed), Ledger()
    settings = {"WINNOW_TEST_PASSAGE_MS": str(arguments.passage_ms)}
    service = Service(home, home.parent / "service.log", settings=settings)
    writers = [Writer(number, ledger, random.Random(dice.random())) for number in range(WRITERS)]
    starts, caught = [], Counter[str]()
    try:
        for number in range(1, arguments.kills + 1):
            starts.append(await service.start() + await service.until_ready())
            touched = len(ledger.touched)
            async with service.client() as client:
                await check(client, ledger, list(ledger.touched))
                ledger.touched.clear()
                tasks = [asyncio.create_task(writer.write(client)) for writer in writers]
                tasks += [asyncio.create_task(read(client, ledger, dice)) for _ in range(SEARCHERS)]
                await asyncio.sleep(dice.uniform(SHORTEST_S, LONGEST_S))
                early = service.exit_status
                service.kill()
                await asyncio.gather(*tasks)
            assert early is None, f"the service ended by itself: {service.said[-2000:]}"
            caught.update(writer.operation for writer in writers if writer.operation)
            print(f"{number:4}: ready after {starts[-1]:.1f} s, looked at {touched} documents", flush=True)
        await _finish(service, ledger, writers)
    finally:
        service.kill()
    print(f"from start to ready: {quantiles(starts)}")
    print(f"requests that a kill met: {dict(caught.most_common())}")
    return ledger


async def _finish(service: Service, ledger: Ledger, writers: Sequence[Writer]) -> None:
    """Wait for the jobs, look at everything, and compare the counts of the store with those of the manifest."""
    await service.start()
    await service.until_ready()
    async with service.client() as client:
        deadline = time.perf_counter() + JOBS_S
        while not all([await writer.ask_for_jobs(client) for writer in writers]):
            if time.perf_counter() > deadline:
                break
            await asyncio.sleep(0.2)
        for writer in writers:
            writer.give_up_jobs()
        await check(client, ledger, ledger.histories)
        for collection in COLLECTIONS:
            while what := await _difference(client, ledger, collection):
                if time.perf_counter() > deadline:
                    ledger.report(Fault(kind="mixed", document=collection, what=what))
                    break
                await asyncio.sleep(0.5)
    print(f"SIGTERM: {await service.terminate()}")


async def _difference(client: httpx.AsyncClient, ledger: Ledger, collection: str) -> str:
    """What the list of documents or the number of passages in the store has too much or too little."""
    listed = (await client.get("/documents", params={"collection": collection, "limit": 1000})).json()["documents"]
    held = (await client.get(f"/collections/{collection}")).json()["passages"]
    expected = {h.id for h in ledger.histories if h.collection == collection and h.states[h.floor]}
    passages = sum(document["passages"] for document in listed)
    if {document["id"] for document in listed} == expected and held == passages:
        print(f"{collection}: {len(listed)} documents, {held} passages")
        return ""
    what = f"{len(listed)} documents listed, {len(expected)} expected"
    return f"{what}; {held} passages in the store, {passages} in the manifest"


def main() -> int:
    """Kill, compare, count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--passage-ms", type=float, default=4.0)
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="winnow-service-kill-"))
    begun = time.perf_counter()
    try:
        ledger = asyncio.run(attack(scratch / "home", arguments))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for name, count in sorted(ledger.counts.items()):
        print(f"{name}: {count}")
    kinds = Counter(fault.kind for fault in ledger.faults)
    healed = sum(fault.healed_s is not None for fault in ledger.faults)
    counted = ", ".join(f"{kinds[kind]} {kind}" for kind in ("lost", "hidden", "mixed", "resurrected"))
    print(f"{arguments.kills} kills in {time.perf_counter() - begun:.0f} s: {counted} ({healed} of them for a while)")
    return 1 if ledger.faults else 0


if __name__ == "__main__":
    sys.exit(main())
