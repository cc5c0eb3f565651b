"""Prices each model call and books it."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from app.accounting.budgets import Budgets, Reservation, in_usd
from app.accounting.ledger import CallRecord, Ledger
from app.accounting.prices import Price, Prices
from app.backends.base import Call, Clock, Target
from app.backends.registry import is_local
from app.backends.settings import BackendSettings
from app.domain import TokenCount

Observe = Callable[[CallRecord, TokenCount, float], None]
"""Hears of each call that is over: its row, its tokens, its dollars."""


class GpuShare:
    """Processor sharing: at any moment each of the n calls in flight has 1/n of the server.

    A call's share is the integral of dt/n(t) over its life, so the shares of all calls add up to the time in which any
    ran: dollars by share are the GPU's price over its measured throughput. Both events take constant time, because
    the integral over [a, b) is its value at b less that at a. Times are seconds that never go back.
    """

    def __init__(self) -> None:
        self.running = 0
        self._integral = 0.0
        self._at = 0.0

    def begin(self, at: float) -> float:
        """A call begins; `end` wants the mark that is returned."""
        self._advance(at)
        self.running += 1
        return self._integral

    def end(self, mark: float, at: float) -> float:
        """The seconds that the call had to itself, so to speak."""
        self._advance(at)
        self.running -= 1
        return max(0.0, self._integral - mark)

    def _advance(self, at: float) -> None:
        if self.running:
            self._integral += max(0.0, at - self._at) / self.running
        self._at = max(self._at, at)


_MAX_TOKENS = 10**12
"""More than that, or less than none, is a server's mistake."""


class LedgerMeter:
    """`app.backends.base.Meter`: over the ledger, for one event loop.

    `clock` times the calls, in seconds; `now` dates them, in seconds since 1970.
    """

    def __init__(
        self,
        ledger: Ledger,
        prices: Prices,
        budgets: Budgets,
        backends: Mapping[str, BackendSettings],
        clock: Clock = time.monotonic,
        now: Callable[[], float] = time.time,
        observe: Observe | None = None,
    ) -> None:
        self.ledger = ledger
        self.observe = observe
        self.budgets = budgets
        self.clock = clock
        self.now = now
        self._prices = prices
        self._kinds = {name: settings.kind for name, settings in backends.items()}
        self._local = {name for name, kind in self._kinds.items() if is_local(kind)}
        self._shares: defaultdict[tuple[str, int], GpuShare] = defaultdict(GpuShare)
        """Of each server."""

    async def begin(self, target: Target, call: Call, worst: TokenCount) -> "LedgerCharge":
        """Raises BudgetExceeded, StoreUnavailable.

        A GPU costs no more when several calls run at once, so each of n calls sets aside the n-th part of what its GPU
        can cost until the call's deadline.
        """
        price = self._prices.of(target.backend, target.model)
        price = price.halved() if target.batch else price
        kind = self._kinds.get(target.backend, "")
        by_time = target.backend in self._local or price.gpu_usd_per_hour
        share = self._shares[target.backend, target.replica] if by_time else None
        left_s = max(0.0, call.deadline.left())
        gpu_s = left_s / (share.running + 1) if share else 0.0
        reserved = await self.budgets.admit(target.backend, call.key, price.pico(worst, gpu_s), left_s)
        return LedgerCharge(self, target, call, kind, price, reserved, share)


class LedgerCharge:
    """`app.backends.base.Charge`: what is known of an attempt when it begins."""

    def __init__(
        self,
        meter: LedgerMeter,
        target: Target,
        call: Call,
        kind: str,
        price: Price,
        reserved: Reservation,
        share: GpuShare | None,
    ) -> None:
        self._meter, self._target, self._call = meter, target, call
        self._kind, self._price = kind, price
        self._reserved, self._share = reserved, share
        self._begun = meter.clock()
        self._mark = share.begin(self._begun) if share else 0.0
        self._ended = False

    async def end(
        self,
        tokens: TokenCount | None,
        *,
        outcome: str,
        requests: int = 1,
        estimate: TokenCount | None = None,
        first_token_s: float | None = None,
    ) -> None:
        """All is booked before it first waits, so cancelling it loses nothing. Raises RuntimeError when ended twice."""
        if self._ended:
            raise RuntimeError("a charge is ended once")
        self._ended = True
        used = _plausible(tokens or estimate or TokenCount())
        estimated = tokens is None and estimate is not None
        record = self._record(used, outcome, requests, first_token_s, estimated=estimated)
        call = self._call
        self._meter.budgets.settle(self._reserved, record.pico, record.at_ms / 1000)
        replicas = (self._target.replica,) if self._target.replica else ()
        call.account.add(call.stage, requests, used, in_usd(record.pico), replicas)
        if self._meter.observe is not None:
            self._meter.observe(record, used, in_usd(record.pico))
        await self._meter.ledger.append(record, self._reserved.id)

    def _record(
        self, used: TokenCount, outcome: str, requests: int, first_token_s: float | None, *, estimated: bool
    ) -> CallRecord:
        ended = self._meter.clock()
        gpu_s = self._share.end(self._mark, ended) if self._share else None
        return CallRecord(
            at_ms=round(self._meter.now() * 1000),
            request_id=self._call.request_id,
            stage=self._call.stage,
            backend=self._target.backend,
            kind=self._kind,
            model=self._target.model,
            key=self._call.key,
            outcome=outcome,
            requests=requests,
            input=used.input,
            cached=used.cached or 0,
            output=used.output,
            thinking=used.thinking,
            estimated=estimated,
            # What failed is not billed, except for the tokens that were read.
            pico=self._price.pico(used, gpu_s or 0.0, requests if outcome == "ok" else 0),
            price_source=self._price.source,
            gpu_s=gpu_s,
            latency_ms=_ms(ended - self._begun),
            first_token_ms=None if first_token_s is None else _ms(first_token_s),
            replica=self._target.replica,
        )


def _plausible(tokens: TokenCount) -> TokenCount:
    """Whatever the server said, counts that can be added up."""

    def plausible(count: int) -> int:
        return min(max(count, 0), _MAX_TOKENS)

    read = plausible(tokens.input)
    return TokenCount(
        input=read,
        cached=None if tokens.cached is None else min(plausible(tokens.cached), read),
        output=plausible(tokens.output),
        thinking=plausible(tokens.thinking),
    )


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
