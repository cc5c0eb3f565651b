"""How many calls and tokens a backend gets at once and per minute; other calls queue, first come first served."""

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from itertools import chain, repeat

import msgspec

from app.backends.attempt import Outcome, Release, Terms
from app.backends.base import Clock, loop_time, total
from app.backends.settings import BackendSettings
from app.errors import Overloaded

WINDOW_S = 60.0

TICK_S = 0.001
"""The shortest wait for a minute to pass; timers may come a rounding error early."""

RECENT = 0.1
"""The weight of the latest call in the typical time that calls take."""


class Taken(msgspec.Struct, eq=False):
    """An amount taken from a window, and when."""

    at: float
    amount: int


class Window:
    """At most `limit` in any 60 seconds; None: no limit. An amount above the limit goes alone."""

    def __init__(self, limit: int | None, clock: Clock = loop_time) -> None:
        self._limit = math.inf if limit is None else limit
        self._clock = clock
        self._taken: deque[Taken] = deque()
        self._used = 0

    def take(self, amount: int) -> Taken:
        """Count `amount` from now on, whether it fits or not."""
        taken = Taken(self._clock(), amount)
        if self._limit < math.inf:
            self._forget()
            self._taken.append(taken)
            self._used += amount
        return taken

    def correct(self, taken: Taken, amount: int) -> None:
        """Replace the estimate by the true `amount`."""
        self._forget()
        if self._taken and taken.at >= self._taken[0].at:
            self._used += amount - taken.amount
        taken.amount = amount

    def wait_s(self, amounts: Iterable[int]) -> float:
        """Seconds until the last of the amounts fits, if all are taken in order and each as early as it fits."""
        self._forget()
        now = at = self._clock()
        used, later = self._used, list[Taken]()
        leaving = chain(self._taken, later)
        for amount in amounts:
            while used and used + amount > self._limit:
                first = next(leaving)
                used -= first.amount
                at = max(at, first.at + WINDOW_S)
            later.append(Taken(at, amount))
            used += amount
        return at - now

    def _forget(self) -> None:
        while self._taken and self._taken[0].at + WINDOW_S <= self._clock():
            self._used -= self._taken.popleft().amount


class Slot:
    """The right to one call; given back exactly once."""

    def __init__(self, gate: "Gate", request: Taken, tokens: Taken) -> None:
        self._gate, self._request, self._tokens = gate, request, tokens

    def release(self, outcome: Outcome | None) -> None:
        """See `app.backends.attempt.Release`."""
        if outcome is None:
            self.unused()
            return
        used = outcome.tokens or outcome.estimate
        self.leave(None if used is None else total(used), outcome.requests)

    def leave(self, tokens: int | None = None, requests: int = 1) -> None:
        """The call is over and took so many tokens; None: unknown, so what was reserved stands."""
        self._gate.left(self._request, requests, self._tokens, self._tokens.amount if tokens is None else tokens)

    def unused(self) -> None:
        """The call was never made."""
        self._gate.left(self._request, 0, self._tokens, 0)


class _Waiter:
    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.slot: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()


class Gate:
    """Lets `concurrency` calls in at once and as many a minute as the settings say; `queue` more may wait."""

    def __init__(self, name: str, settings: BackendSettings, clock: Clock = loop_time) -> None:
        self._name, self._settings, self._clock = name, settings, clock
        self._requests = Window(settings.requests_per_minute, clock)
        self._tokens = Window(settings.tokens_per_minute, clock)
        self._queue: deque[_Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._typical_s = 0.0
        self.in_flight = 0

    @property
    def waiting(self) -> int:
        """How many calls are waiting."""
        return len(self._queue)

    async def guard(self, terms: Terms) -> Release:
        """Take a slot for an attempt. Raises Overloaded: a spare one at once when it would have to wait."""
        tokens = total(terms.worst)
        if not terms.spare:
            return (await self.enter(tokens, terms.patience())).release
        if (slot := self.enter_now(tokens)) is None:
            raise Overloaded(f"{self._name} has no slot to spare")
        return slot.release

    async def enter(self, tokens: int, patience_s: float) -> Slot:
        """Wait for a slot for a call of about `tokens`.

        Raises Overloaded: at once when too many wait already or the wait is known to be longer than `patience_s`, else
        when it has become that long.
        """
        if (slot := self.enter_now(tokens)) is not None:
            return slot
        self._refuse_in_vain(tokens, patience_s)
        waiter = _Waiter(tokens)
        self._queue.append(waiter)
        self._admit()
        timer = asyncio.get_running_loop().call_later(patience_s, self._turn_away, waiter)
        try:
            return await waiter.slot
        except BaseException:
            self._forget(waiter)
            raise
        finally:
            timer.cancel()

    def enter_now(self, tokens: int) -> Slot | None:
        """A slot if it is free at once, else None."""
        if self._queue or self._is_full() or self._wait_s((tokens,)) > 0:
            return None
        return self._slot(tokens)

    def minute_wait_s(self, tokens: int) -> float:
        """Seconds until the limits per minute let a call of so many tokens in, after those that wait."""
        if self._settings.requests_per_minute is None and self._settings.tokens_per_minute is None:
            return 0.0
        return self._wait_s([*(waiter.tokens for waiter in self._queue), tokens])

    def left(self, request: Taken, requests: int, reserved: Taken, tokens: int) -> None:
        """A slot is given back."""
        self.in_flight -= 1
        if requests:
            self._typical_s += RECENT * (self._clock() - request.at - self._typical_s)
        self._requests.correct(request, requests)
        self._tokens.correct(reserved, tokens)
        self._admit()

    def _slot(self, tokens: int) -> Slot:
        self.in_flight += 1
        return Slot(self, self._requests.take(1), self._tokens.take(tokens))

    def _admit(self) -> None:
        """Let in the calls that fit, in order; set a timer for when the next one will."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and not self._is_full():
            waiter = self._queue[0]
            if not waiter.slot.done():
                wait_s = self._wait_s((waiter.tokens,))
                if wait_s > 0:
                    self._timer = asyncio.get_running_loop().call_later(max(wait_s, TICK_S), self._admit)
                    return
                waiter.slot.set_result(self._slot(waiter.tokens))
            self._queue.popleft()

    def _forget(self, waiter: _Waiter) -> None:
        """It was cancelled or turned away, perhaps at the very moment at which it was let in."""
        slot = waiter.slot
        if slot.done() and not slot.cancelled() and slot.exception() is None:
            slot.result().unused()
            return
        if waiter in self._queue:
            self._queue.remove(waiter)
        self._admit()

    def _turn_away(self, waiter: _Waiter) -> None:
        if not waiter.slot.done():
            waiter.slot.set_exception(
                Overloaded(f"{self._name} is busy: no call ended in time to let this one in", self._retry_after())
            )

    def _refuse_in_vain(self, tokens: int, patience_s: float) -> None:
        if self.waiting >= self._settings.queue:
            raise Overloaded(f"{self._name} is busy: {self.waiting} calls are already waiting", self._retry_after())
        wait_s = self.minute_wait_s(tokens)
        if wait_s > patience_s:
            raise Overloaded(f"{self._name} has used up its limits per minute", wait_s)

    def _retry_after(self) -> float:
        """At least a second; longer when the typical call takes long and many wait, or the minute is used up."""
        turn_s = self._typical_s * (self.waiting + 1) / self._settings.concurrency
        return max(1.0, turn_s, self._wait_s((1,)))

    def _wait_s(self, tokens: Iterable[int]) -> float:
        amounts = list(tokens)
        return max(self._requests.wait_s(repeat(1, len(amounts))), self._tokens.wait_s(amounts))

    def _is_full(self) -> bool:
        return self.in_flight >= self._settings.concurrency
