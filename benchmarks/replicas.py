"""Kills replicas of the service under load, and compares ledger and budgets with what clients and the model saw.

    python -m benchmarks.replicas [--kills 20] [--seed 1] [--budget-calls 120]

Two services in processes of their own share one real PostgreSQL (Debian's programs are needed), and take turns at the
requests, as behind a balancer. First 200 requests come at once; the budget pays for `--budget-calls`, some of which
finding out about the model has used. Then
eight clients call without end, and one replica after the other is killed (SIGKILL) at a random moment and started
again. Each call costs the same. Afterwards: no call is in the ledger twice, each answered one is in it, what was spent
is the sum of the rows, the model's server saw as many calls as the ledger says or a killed replica had under way, and
no reservation is left but of those. Exit status 1 if there was a fault.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from itertools import count
from pathlib import Path

import httpx

from benchmarks.service import Service
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.postgres import Postgres, running_postgres

REPLICAS, CLIENTS, AT_ONCE = 2, 8, 200
CALL_USD = 0.001
"""Of one token of output at a thousand dollars a million, which is all that a call may make."""
SHORTEST_S, LONGEST_S = 0.2, 1.5
"""Between a kill and the next."""


class Site:
    """Two replicas over one database and one model, and what their clients got. `budget_usd` is that of a day."""

    def __init__(self, folder: Path, postgres: Postgres, model_url: str, budget_usd: float) -> None:
        self._postgres, self._url = postgres, postgres.database()
        settings = {
            "WINNOW_DATABASE_URL": self._url,
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
        self._turns = count()

    async def start(self) -> None:
        """Until both serve, and know their model: finding out costs some tokens."""
        await asyncio.gather(*(replica.start() for replica in self.replicas))
        await asyncio.gather(*(until_up(replica) for replica in self.replicas))

    def kill(self) -> None:
        """Both."""
        for replica in self.replicas:
            replica.kill()

    async def call(self, client: httpx.AsyncClient) -> int | str:
        """A call of the model by the replica whose turn it is: the status, or "lost" where it was killed."""
        number = next(self._turns)
        request_id = f"call-{number:06}"
        body = {"message": f"Number {number}", "backend": "model", "max_output_tokens": 1}
        url = f"{self.replicas[number % REPLICAS].url}/chat"
        try:
            response = await client.post(url, json=body, headers={"X-Request-Id": request_id})
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
        found = []
        calls = self.number("SELECT sum(requests) FROM calls WHERE stage <> 'probe'")
        if twice := self.ask("SELECT request_id FROM calls GROUP BY request_id HAVING count(*) > 1"):
            found.append(f"in the ledger twice: {twice.split()}")
        spent = self.number("SELECT sum(pico) FROM spending WHERE scope = 'total' AND length(period) = 10")
        if (rows := self.number("SELECT sum(pico) FROM calls")) != spent:
            found.append(f"spent {spent}, and the rows add up to {rows}")
        if not calls <= seen_by_model <= calls + killed_under_way:
            found.append(f"the model saw {seen_by_model} calls, the ledger {calls}")
        return found


async def spend_a_budget(folder: Path, postgres: Postgres, calls: int) -> tuple[Site, list[str]]:
    """Many calls at once, and as many faults as calls too many or too few were let in."""
    async with OpenAIServer(dialect="openai", api_key="k", token_s=0.05) as model:
        site = Site(folder, postgres, model.url, calls * CALL_USD)
        try:
            await site.start()
            async with _client() as client:
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
        site = Site(folder, postgres, model.url, 10**6)
        lost = 0
        try:
            await site.start()
            ending = asyncio.Event()

            async def call() -> None:
                async with _client() as client:
                    while not ending.is_set():
                        if await site.call(client) == "lost":
                            await asyncio.sleep(0.2)

            clients = [asyncio.create_task(call()) for _ in range(CLIENTS)]
            for number in range(kills):
                await asyncio.sleep(dice.uniform(SHORTEST_S, LONGEST_S))
                victim = site.replicas[number % REPLICAS]
                victim.kill()
                await victim.start()
                await until_up(victim)
            await asyncio.sleep(SHORTEST_S)
            ending.set()
            await asyncio.gather(*clients)
            await site.settled(5)
            lost = site.statuses["lost"]
            faults = site.faults(_asked(model), lost)
            held = site.number("SELECT count(*) FROM reservations")
            if held > lost:
                faults.append(f"{held} reservations are left, of {lost} calls that were lost")
        finally:
            site.kill()
    return site, faults, site.missing()


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


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None), trust_env=False)


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
        print(f"{arguments.kills} kills: {dict(site.statuses)}; {rows} rows, {held} reservations to lapse,")
        print(f"    {len(missing)} answered and not booked; faults: {more or 'none'}")
    return 1 if faults or more or missing else 0


if __name__ == "__main__":
    sys.exit(main())
