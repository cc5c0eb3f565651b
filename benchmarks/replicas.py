"""Kills replicas of the service under load, and compares ledger, budgets and jobs with what clients and the model saw.

    python -m benchmarks.replicas [--kills 20] [--seed 1] [--budget-calls 120]

Two services in processes of their own share one real PostgreSQL (Debian's programs are needed) and a server of the
index (`tests.fakes.qdrant_server`), behind a plain round-robin proxy. First 200 requests come at once; the budget pays
for `--budget-calls`, some of which finding out about the model has used. Then eight clients call without end, two
upload documents (half of them as jobs), and now this replica, now that is killed (SIGKILL) at a random moment, whether
it writes or not, and started again. Each call costs the same. Afterwards: no call is in the ledger twice, each answered
one is in it, what was spent is the sum of the rows, the model's server saw as many calls as the ledger says or a killed
replica had under way, and no reservation is left but of those; each job that was accepted ended with each of its
documents in the index once, and so did each upload that was answered. Exit status 1 if there was a fault.
"""

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from benchmarks.service import ROOT, Service, documents, found, rare_word
from tests.fakes.balancer import Balancer, balancing
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.postgres import Postgres, running_postgres

REPLICAS, CLIENTS, UPLOADERS, AT_ONCE = 2, 8, 2, 200
UPLOADED = 40
"""Documents of an upload: a second of work."""
SEARCHED = 200
"""Documents that are searched for afterwards; all of them must be listed."""
CALL_USD = 0.001
"""Of one token of output at a thousand dollars a million, which is all that a call may make."""
SHORTEST_S, LONGEST_S = 0.2, 1.5
"""Between a kill and the next."""


class Site:
    """Two replicas over one database and one model, and what their clients got. `budget_usd` is that of a day."""

    def __init__(
        self, folder: Path, postgres: Postgres, model_url: str, budget_usd: float, store: Mapping[str, str]
    ) -> None:
        self._postgres, self._url = postgres, postgres.database()
        settings = {
            **store,
            "WINNOW_DATABASE_URL": self._url,
            "WINNOW_TEST_PASSAGE_MS": "20",
            "WINNOW_BUDGETS_DAILY_USD": str(budget_usd),
            "WINNOW_BACKENDS_MODEL_KIND": "openai",
            "WINNOW_BACKENDS_MODEL_URL": model_url,
            "WINNOW_BACKENDS_MODEL_API_KEY": "k",
            "WINNOW_BACKENDS_MODEL_MODEL": "tiny",
            "WINNOW_BACKENDS_MODEL_PRICE": f'{{"input": 0, "output": {CALL_USD * 1e6}}}',
            "WINNOW_BACKENDS_MODEL_CONCURRENCY": "256",
        }
        self.replicas = [
            Service(folder / f"home{n}", folder / f"service{n}.log", settings=settings) for n in range(REPLICAS)
        ]
        self.statuses: Counter[int | str] = Counter()
        self.answered: set[str] = set()
        self.uploads: Counter[int | str] = Counter()
        self.words: dict[str, str] = {}
        """Of the documents that were accepted, by their ids."""
        self.jobs: list[str] = []
        self.writers_killed = 0
        self._numbers = count()

    async def start(self) -> None:
        """Until both serve, and know their model: finding out costs some tokens."""
        await asyncio.gather(*(replica.start() for replica in self.replicas))
        await asyncio.gather(*(until_up(replica) for replica in self.replicas))

    def urls(self) -> list[str]:
        """Of the replicas, for a proxy."""
        return [replica.url for replica in self.replicas]

    def kill(self) -> None:
        """Both."""
        for replica in self.replicas:
            replica.kill()

    async def kill_one(self, dice: random.Random) -> None:
        """Some replica, which is then started again."""
        victim = dice.choice(self.replicas)
        self.writers_killed += "the other replicas hand on to this one" in victim.said
        victim.kill()
        await victim.start()
        await until_up(victim)

    async def upload(self, client: httpx.AsyncClient) -> int | str:
        """Documents, each second time as a job. What is refused or lost is sent again by whoever needs it."""
        number = next(self._numbers)
        words = {f"u{number}-{n}": rare_word(number, n) for n in range(UPLOADED)}
        body = {"collection": "letters", "documents": documents(words, 1)}
        try:
            response = await client.post("/documents", json=body, params={"wait": "true" if number % 2 else "false"})
        except httpx.TransportError:
            self.uploads["lost"] += 1
            return "lost"
        self.uploads[response.status_code] += 1
        if response.is_success:
            self.words |= words
            if response.status_code == httpx.codes.ACCEPTED:
                self.jobs.append(response.json()["id"])
        return response.status_code

    async def call(self, client: httpx.AsyncClient) -> int | str:
        """A call of the model by the replica whose turn it is: the status, or "lost" where it was killed."""
        number = next(self._numbers)
        request_id = f"call-{number:06}"
        body = {"message": f"Number {number}", "backend": "model", "max_output_tokens": 1}
        try:
            response = await client.post("/chat", json=body, headers={"X-Request-Id": request_id})
        except httpx.TransportError:
            self.statuses["lost"] += 1
            return "lost"
        self.statuses[response.status_code] += 1
        if response.status_code == httpx.codes.OK:
            self.answered.add(request_id)
        return response.status_code

    def ask(self, sql: str) -> str:
        """What the database says."""
        database = self._url.rpartition("/")[2].partition("?")[0]
        return self._postgres.sql(database, f"SET search_path TO winnow; {sql}").partition("\n")[2]

    def number(self, sql: str) -> int:
        """As `ask`, for one number."""
        return int(self.ask(f"SELECT coalesce(({sql}), 0)"))

    async def settled(self, within_s: float = 30) -> None:
        """Wait until what was answered is booked: a call waits for its row, but not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.missing() or self.number("SELECT count(*) FROM reservations"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    def missing(self) -> set[str]:
        """Calls that were answered, and are not in the ledger."""
        return self.answered - set(self.ask("SELECT request_id FROM calls WHERE outcome = 'ok'").split())

    def faults(self, seen_by_model: int, killed_under_way: int) -> list[str]:
        """Where ledger, budgets, clients and the model's server do not agree."""
        faults = []
        calls = self.number("SELECT sum(requests) FROM calls WHERE stage <> 'probe'")
        if twice := self.ask("SELECT request_id FROM calls GROUP BY request_id HAVING count(*) > 1"):
            faults.append(f"in the ledger twice: {twice.split()}")
        spent = self.number("SELECT sum(pico) FROM spending WHERE scope = 'total' AND length(period) = 10")
        if (rows := self.number("SELECT sum(pico) FROM calls")) != spent:
            faults.append(f"spent {spent}, and the rows add up to {rows}")
        if not calls <= seen_by_model <= calls + killed_under_way:
            faults.append(f"the model saw {seen_by_model} calls, the ledger {calls}")
        return faults

    async def faults_of_jobs(self, client: httpx.AsyncClient) -> list[str]:
        """Jobs that did not end well, and documents that are not in the index once."""
        found_faults = []
        for job_id in self.jobs:
            job = await _ended(client, job_id)
            done = [job[name] for name in ("created", "updated", "unchanged", "failed")]
            if job["state"] != "done" or done != [UPLOADED, 0, 0, 0]:
                found_faults.append(f"job {job_id} is {job['state']}: {done}")
        listed = Counter(await _listed(client))
        found_faults += [f"document {key} is listed {listed[key]} times" for key in self.words if listed[key] != 1]
        for key in list(self.words)[:: max(1, len(self.words) // SEARCHED)]:
            if [hit["document_id"] for hit in await found(client, "letters", self.words[key])] != [key]:
                found_faults.append(f"document {key} is not found once")
        return found_faults


async def spend_a_budget(folder: Path, postgres: Postgres, calls: int) -> tuple[Site, list[str]]:
    """Many calls at once, and as many faults as calls too many or too few were let in."""
    async with OpenAIServer(dialect="openai", api_key="k", token_s=0.05) as model:
        site = Site(folder, postgres, model.url, calls * CALL_USD, {})
        try:
            await site.start()
            async with balancing(site.urls) as proxy, _client(proxy) as client:
                await asyncio.gather(*(site.call(client) for _ in range(AT_ONCE)))
                await site.settled()
                faults = site.faults(_asked(model), 0)
                faults += [f"{await site.call(client)} after the budget" for _ in range(REPLICAS)]
        finally:
            site.kill()
    faults = [fault for fault in faults if fault != "402 after the budget"]
    paid = calls - round(site.number("SELECT sum(pico) FROM calls WHERE stage = 'probe'") / (CALL_USD * 1e12))
    expected = Counter({200: paid, 402: AT_ONCE - paid + REPLICAS})
    if site.statuses != expected:
        faults.append(f"statuses {dict(site.statuses)} instead of {dict(expected)}")
    if missing := site.missing():
        faults.append(f"answered and not in the ledger: {sorted(missing)}")
    if held := site.number("SELECT count(*) FROM reservations"):
        faults.append(f"{held} reservations are left")
    return site, faults


async def kill_replicas(folder: Path, postgres: Postgres, kills: int, seed: int) -> tuple[Site, list[str], set[str]]:
    """Kills under load: the faults, and the answered calls that are not in the ledger."""
    dice = random.Random(seed)
    async with OpenAIServer(dialect="openai", api_key="k", token_s=0.02) as model:
        with qdrant(folder / "qdrant") as store:
            site = Site(folder, postgres, model.url, 10**6, store)
            try:
                await site.start()
                async with balancing(site.urls) as proxy, _client(proxy) as client:
                    ending = asyncio.Event()
                    works = [site.call] * CLIENTS + [site.upload] * UPLOADERS
                    clients = [asyncio.create_task(_again_and_again(work, client, ending)) for work in works]
                    for _ in range(kills):
                        await asyncio.sleep(dice.uniform(SHORTEST_S, LONGEST_S))
                        await site.kill_one(dice)
                    await asyncio.sleep(SHORTEST_S)
                    ending.set()
                    await asyncio.gather(*clients)
                    await site.settled(5)
                    lost = site.statuses["lost"]
                    faults = [*site.faults(_asked(model), lost), *await site.faults_of_jobs(client)]
                held = site.number("SELECT count(*) FROM reservations")
                if held > lost:
                    faults.append(f"{held} reservations are left, of {lost} calls that were lost")
            finally:
                site.kill()
    return site, faults, site.missing()


async def _again_and_again(
    work: Callable[[httpx.AsyncClient], Awaitable[int | str]], client: httpx.AsyncClient, ending: asyncio.Event
) -> None:
    while not ending.is_set():
        if await work(client) in ("lost", httpx.codes.SERVICE_UNAVAILABLE):
            await asyncio.sleep(0.2)


async def _ended(client: httpx.AsyncClient, job_id: str, within_s: float = 120) -> dict[str, Any]:
    async with asyncio.timeout(within_s):
        while True:
            response = await client.get(f"/jobs/{job_id}")
            if response.is_success and response.json()["finished_at"] is not None:
                return dict(response.json())
            await asyncio.sleep(0.1)


async def _listed(client: httpx.AsyncClient) -> list[str]:
    ids: list[str] = []
    cursor = ""
    while True:
        wanted = {"collection": "letters", "cursor": cursor, "limit": "1000"}
        page = (await client.get("/documents", params=wanted)).json()
        ids += [entry["id"] for entry in page["documents"]]
        if (cursor := page["next_cursor"] or "") == "":
            return ids


@contextmanager
def qdrant(folder: Path) -> Iterator[dict[str, str]]:
    """A server of the index in a process, and the settings that lead to it."""
    command = [sys.executable, "-m", "tests.fakes.qdrant_server", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port, grpc_port = server.stdout.readline().split()
            yield {"QDRANT_URL": f"http://127.0.0.1:{port}", "WINNOW_STORE_GRPC_PORT": grpc_port}
        finally:
            server.kill()


async def until_up(replica: Service) -> None:
    """Wait until it serves, and has found out about its model."""
    await replica.until_ready()
    async with replica.client() as client:
        while {"name": "model", "health": "up"}.items() - _backend(await client.get("/backends")):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def _backend(response: httpx.Response) -> set[tuple[str, str]]:
    backend = next(one for one in response.json()["backends"] if one["name"] == "model")
    return {(name, value) for name, value in backend.items() if isinstance(value, str)}


def _asked(model: OpenAIServer) -> int:
    """How many calls of ours it has seen: others are to find out what it can do."""
    return sum("Number " in str(body["messages"]) for body in model.bodies())


def _client(proxy: Balancer) -> httpx.AsyncClient:
    """Each request has a connection of its own, and goes to the next replica."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=proxy.url, timeout=60, limits=limits, trust_env=False)


def main() -> int:
    """Both attacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget-calls", type=int, default=120)
    arguments = parser.parse_args()
    with running_postgres() as postgres, tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder) / "one", Path(folder) / "two"
        one.mkdir()
        two.mkdir()
        site, faults = asyncio.run(spend_a_budget(one, postgres, arguments.budget_calls))
        print(f"{AT_ONCE} at once: {dict(site.statuses)}; faults: {faults or 'none'}")
        site, more, missing = asyncio.run(kill_replicas(two, postgres, arguments.kills, arguments.seed))
        rows, held = (site.number(f"SELECT count(*) FROM {table}") for table in ("calls", "reservations"))  # noqa: S608
        print(f"{arguments.kills} kills, {site.writers_killed} of the replica that wrote")
        print(f"    calls: {dict(site.statuses)}; {rows} rows, {held} reservations to lapse, {len(missing)} not booked")
        print(f"    uploads: {dict(site.uploads)}; {len(site.jobs)} jobs, {len(site.words)} documents")
        print(f"    faults: {more or 'none'}")
    return 1 if faults or more or missing else 0


if __name__ == "__main__":
    sys.exit(main())
