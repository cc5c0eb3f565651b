"""A meter that remembers."""

import asyncio
from collections import Counter

import msgspec

from app.backends.base import Call, Target
from app.domain import TokenCount
from app.errors import BudgetExceeded


class Booked(msgspec.Struct, frozen=True, kw_only=True):
    """What a charge was ended with."""

    backend: str
    replica: int
    outcome: str
    tokens: TokenCount | None
    requests: int
    estimate: TokenCount | None
    first_token_s: float | None


class RecordedCharge:
    """Takes `seconds` to book, and must be ended once."""

    def __init__(self, meter: "RecordingMeter", target: Target, call: Call) -> None:
        self._meter, self._target, self._call = meter, target, call
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
        assert not self._ended, "a charge was ended twice"
        self._ended = True
        await asyncio.sleep(self._meter.seconds)
        booked = Booked(
            backend=self._target.backend,
            replica=self._target.replica,
            outcome=outcome,
            tokens=tokens,
            requests=requests,
            estimate=estimate,
            first_token_s=first_token_s,
        )
        self._meter.note(booked)
        self._call.account.add(self._call.stage, requests, tokens or estimate or TokenCount(), 0.0)


class RecordingMeter:
    """Keeps what was booked. Lets `attempts` begin; None: any number. The backends in `spent` are over their budget.

    `keep` False: only sums are kept, for runs whose memory is measured.
    """

    def __init__(self, *, attempts: int | None = None, seconds: float = 0.0, keep: bool = True) -> None:
        self.attempts, self.seconds, self.spent = attempts, seconds, set[str]()
        self.begun = 0
        self.outcomes: Counter[str] = Counter()
        self.tokens = TokenCount()
        self.booked: list[Booked] = []
        self._keep = keep

    async def begin(self, target: Target, call: Call, worst: TokenCount) -> RecordedCharge:
        assert worst.input >= 0
        assert worst.output >= 0
        if target.backend in self.spent or (self.attempts is not None and self.begun >= self.attempts):
            raise BudgetExceeded("the budget of today, 1 USD, is spent", 3600.0)
        self.begun += 1
        return RecordedCharge(self, target, call)

    def note(self, booked: Booked) -> None:
        """A charge has been ended."""
        self.outcomes[booked.outcome] += 1
        if booked.outcome == "ok" and booked.tokens is not None:
            self.tokens = self.tokens + booked.tokens
        if self._keep:
            self.booked.append(booked)

    def check(self) -> None:
        """Whatever was begun has been ended."""
        assert self.outcomes.total() == self.begun

    def story(self) -> list[str]:
        """The outcomes in order."""
        return [booked.outcome for booked in self.booked]
