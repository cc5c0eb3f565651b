"""Use case: the metrics of the service, with its state at the moment at which somebody reads them."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from app.accounting.accounts import Accounts
from app.accounting.budgets import BudgetState
from app.backends.client import BackendClient
from app.errors import WinnowError
from app.observability import families
from app.observability.families import Family
from app.observability.metrics import OTHER, Metrics, Reading
from app.services.admission import Gates
from app.services.jobs import Jobs
from indexing.disk import DiskGuard
from indexing.store.base import VectorStore

MAX_COLLECTIONS = 50
"""The largest ones have series of their own; the others are added up."""

STORE_S = 2.0
"""How long the store may take to say what it holds."""

SIZES_S = 60.0
"""For so long the sizes on the disk are remembered: to look is to go through all files."""

BREAKER_STATES = ("closed", "half_open", "open")


class Counting(Protocol):
    """A cache that counts how often it helped."""

    hits: int
    misses: int


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of the running service. Nothing is opened or loaded to be read."""

    version: str
    gates: Gates
    accounts: Accounts
    jobs: Jobs
    disk: DiskGuard
    caches: Mapping[str, Counting]
    clients: Callable[[], Mapping[str, BackendClient]]
    store: Callable[[], VectorStore | None]
    ready: Callable[[], Awaitable[Mapping[str, bool]]]


class Monitoring:
    """Gathers the state and writes it out together with what was counted."""

    def __init__(self, metrics: Metrics, state: State, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._state, self._clock = metrics, state, clock
        self._sizes: dict[str, int | None] = {}
        self._sized_at: float | None = None

    async def text(self) -> bytes:
        """Everything, for Prometheus. A store that does not answer in time is left out; its dependency is not ready."""
        ready, index = await asyncio.gather(self._state.ready(), self._index())
        readings = [*self.readings(ready), *index]
        # Thousands of lines are a matter of many milliseconds: not in the event loop.
        return await asyncio.to_thread(self._text, readings)

    def readings(self, ready: Mapping[str, bool]) -> Iterator[Reading]:
        """What can be read at once: everything but what the index holds, and the disk."""
        yield families.BUILD, (self._state.version,), 1.0
        for name, is_ready in ready.items():
            yield families.READY, (name,), float(is_ready)
        yield from _gates(self._state.gates)
        yield from _backends(self._state.clients())
        for name, cache in self._state.caches.items():
            yield families.CACHE, (name, "hit"), float(cache.hits)
            yield families.CACHE, (name, "miss"), float(cache.misses)
        yield from _jobs(self._state.jobs)
        yield from _budgets(self._state.accounts.budgets.states(), self._state.accounts.budgets.named_keys)
        for scope, count in self._state.accounts.budgets.refused.items():
            yield families.BUDGET_REFUSED, (scope,), float(count)
        yield from _ledger(self._state.accounts)

    def _text(self, readings: Sequence[Reading]) -> bytes:
        disk = self._state.disk
        more = [(families.DISK_FREE, (), float(disk.free())), (families.DISK_RESERVE, (), float(disk.reserve_bytes))]
        return self._metrics.text([*readings, *more])

    async def _index(self) -> list[Reading]:
        store = self._state.store()
        if store is None:
            return []
        try:
            async with asyncio.timeout(STORE_S):
                collections, damaged = await store.collections(), await store.damaged()
                passages = {one.name: one.passages for one in collections}
                await self._measure(store, passages)
        except (TimeoutError, WinnowError):
            return []
        sizes = {name: size for name in passages if (size := self._sizes.get(name)) is not None}
        status = (("usable", len(collections)), ("damaged", len(damaged)))
        return [
            *((families.COLLECTIONS, (name,), float(count)) for name, count in status),
            *_largest(families.PASSAGES, passages),
            *_largest(families.INDEX_BYTES, sizes),
        ]

    async def _measure(self, store: VectorStore, passages: Mapping[str, int]) -> None:
        """Look at the sizes on the disk of the largest collections, unless that was done lately."""
        now = self._clock()
        if self._sized_at is None or now - self._sized_at >= SIZES_S:
            self._sizes, self._sized_at = {}, now
        for name, _ in _by_size(passages)[:MAX_COLLECTIONS]:
            if name not in self._sizes:
                self._sizes[name] = await _bytes(store, name)


async def _bytes(store: VectorStore, name: str) -> int | None:
    try:
        return await store.bytes_on_disk(name)
    except WinnowError:  # deleted meanwhile
        return None


def _largest(family: Family, sizes: Mapping[str, int]) -> Iterator[Reading]:
    """The largest by name, the rest in one."""
    ordered = _by_size(sizes)
    shown = Counter(dict(ordered[:MAX_COLLECTIONS]))
    if rest := ordered[MAX_COLLECTIONS:]:
        shown[OTHER] += sum(size for _, size in rest)
    for name, size in shown.items():
        yield family, (name,), float(size)


def _by_size(sizes: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0]))


def _gates(gates: Gates) -> Iterator[Reading]:
    for name, gate in gates.by_name().items():
        yield families.GATE_INSIDE, (name,), float(gate.inside)
        yield families.GATE_WAITING, (name,), float(gate.waiting)
        yield families.GATE_REFUSED, (name,), float(gate.refused)
        yield families.GATE_WAIT, (name,), gate.expected_wait_s


def _backends(clients: Mapping[str, BackendClient]) -> Iterator[Reading]:
    for name, client in clients.items():
        status = client.status()
        if status.health != "unknown":
            yield families.BACKEND_UP, (name,), float(status.health == "up")
        for state in BREAKER_STATES:
            yield families.BREAKER, (name, state), float(status.breaker == state)
        yield families.IN_FLIGHT, (name,), float(status.in_flight)
        yield families.WAITING, (name,), float(status.waiting)
        for replica in client.replicas.several:
            labels = (name, str(replica.number))
            if replica.state != "unknown":
                yield families.REPLICA_UP, labels, float(client.replicas.serves(replica))
            yield families.REPLICA_TOKENS, labels, float(replica.tokens_in_flight)
            yield families.REPLICA_CALLS, labels, float(replica.calls)


def _jobs(jobs: Jobs) -> Iterator[Reading]:
    counts = jobs.counts()
    yield families.JOBS, ("queued",), float(counts.queued)
    yield families.JOBS, ("running",), float(counts.running)
    yield families.JOB_BYTES, (), float(counts.bytes)
    for state in ("done", "failed", "cancelled"):
        yield families.JOBS_ENDED, (state,), float(counts.ended.get(state, 0))


def _budgets(states: Iterable[BudgetState], named: frozenset[str]) -> Iterator[Reading]:
    """Each budget of the settings. Of keys that the settings do not name, the one that has used the largest part."""
    shown = dict[tuple[str, ...], BudgetState]()
    for state in states:
        known = state.scope != "key" or state.name in named
        labels: tuple[str, ...] = (state.scope, state.name if known else OTHER, state.period)
        if labels not in shown or _share(state) > _share(shown[labels]):
            shown[labels] = state
    for labels, state in shown.items():
        yield families.BUDGET_LIMIT, labels, state.limit_usd
        yield families.BUDGET_SPENT, labels, state.spent_usd
        yield families.BUDGET_RESERVED, labels, state.reserved_usd


def _share(state: BudgetState) -> float:
    return (state.spent_usd + state.reserved_usd) / state.limit_usd if state.limit_usd else 1.0


def _ledger(accounts: Accounts) -> Iterator[Reading]:
    health = accounts.ledger.health()
    yield families.LEDGER_WRITTEN, (), float(health.written)
    yield families.LEDGER_LOST, (), float(health.lost)
    yield families.LEDGER_PENDING, (), float(health.pending)
    yield families.LEDGER_LAG, (), accounts.ledger.lag_s()
    yield families.LEDGER_FAILING, (), float(bool(health.failure))
