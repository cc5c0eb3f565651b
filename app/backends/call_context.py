"""What goes along with every model call of one request: until when, for whom, and on whose account."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from app.domain import Caller, StageUsage, TokenCount, Usage, usage_of

Clock = Callable[[], float]
"""Seconds, never going back; the event loop's."""

ANONYMOUS = "anonymous"


def loop_time() -> float:
    """The running event loop's clock."""
    return asyncio.get_running_loop().time()


class Deadline:
    """A moment after which nothing is worth doing any more."""

    def __init__(self, seconds: float, clock: Clock = loop_time) -> None:
        self._clock = clock
        self.at = clock() + seconds

    def left(self) -> float:
        """Seconds; negative afterwards."""
        return self.at - self._clock()


class Account:
    """Collects what the model calls of one request used. One per request; not for several threads."""

    def __init__(self) -> None:
        self._stages: dict[str, StageUsage] = {}

    def add(self, stage: str, requests: int, tokens: TokenCount, cost_usd: float) -> None:
        """Book calls of a stage."""
        used = StageUsage(
            requests=requests,
            input_tokens=tokens.input,
            cached_tokens=tokens.cached,
            output_tokens=tokens.output + tokens.thinking,
            cost_usd=cost_usd,
        )
        self._stages[stage] = self._stages.get(stage, StageUsage()) + used

    def usage(self) -> Usage:
        """The sum so far, and each stage."""
        return usage_of(dict(self._stages))


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls a model and why. `stage` is "rank", "answer", "chat", ...; `key` names the API key of the caller."""

    stage: str
    deadline: Deadline
    account: Account
    key: str = ANONYMOUS
    request_id: str = ""


def call_of(stage: str, seconds: float, caller: Caller) -> Call:
    """A call of this caller's, from now on for so many seconds, on an account of its own."""
    return Call(
        stage=stage, deadline=Deadline(seconds), account=Account(), key=caller.key, request_id=caller.request_id
    )


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Which backend a call goes to, and under which model's name."""

    backend: str
    model: str


class Charge(Protocol):
    """One attempt that is being paid for. Ended exactly once."""

    async def end(
        self,
        tokens: TokenCount | None,
        *,
        outcome: str,
        requests: int = 1,
        estimate: TokenCount | None = None,
        first_token_s: float | None = None,
    ) -> None:
        """Book it: in the ledger, in the budgets, and on the call's account.

        `outcome` is "ok", "cancelled" or the code of the error. `tokens` None: the server did not tell; then `estimate`
        is booked and marked as an estimate (None: nothing was used, as when it was never reached).
        Returns when the row is safe from a kill of this process, but waits only briefly.
        """
        ...


class Meter(Protocol):
    """Lets attempts begin while there is money, and books what they used."""

    def begin(self, target: Target, call: Call, worst: TokenCount) -> Charge:
        """Start to pay for an attempt that may use up to `worst` tokens. Raises BudgetExceeded with the figures."""
        ...
