"""A backend's SDK that plays a script."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

import msgspec

from app.backends.base import (
    Capability,
    ChatRequest,
    Conversation,
    Delta,
    FinishReason,
    LabelScorer,
    LabelScores,
    Message,
    Probed,
    Reply,
    Scoring,
)
from app.domain import TokenCount
from app.errors import UpstreamTimeout

EVERYTHING: frozenset[Capability] = frozenset(("chat", "structured", "images", "logprobs"))

TOKENS = TokenCount(input=10, output=3)

ASKED = ChatRequest(messages=(Message(role="user", content="What is the answer?"),), max_output_tokens=100)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of an attempt: after `seconds` a failure, if there is one, else a reply.

    A stream gives its first piece after `seconds`, the next ones each `apart` seconds later, and fails, if it does,
    after `pieces` of them; `finishes` False: it just ends. `reports_tokens` False: it does not. `reason` is
    why the reply ended.
    """

    seconds: float = 0.1
    failure: Exception | Callable[[], Exception] | None = None
    pieces: tuple[str, ...] = ("It ", "is ", "42.")
    apart: float = 0.01
    finishes: bool = True
    reports_tokens: bool = True
    reason: FinishReason = "stop"

    def fail(self) -> None:
        """If that is planned."""
        if self.failure is not None:
            raise self.failure if isinstance(self.failure, Exception) else self.failure()


FINE = Plan()


class ScriptedAdapter:
    """Plays `plans` in order, then `rest`; a plan may be made by a function. Counts what it was asked for.

    Like a real one it keeps to `timeout_s` unless `deaf`, and every call is `begun` and then one of `ended`, `stopped`.
    """

    def __init__(
        self,
        plans: Sequence[Plan] = (),
        rest: Plan | Callable[[], Plan] = FINE,
        *,
        probe: Probed | Callable[[], Exception] | None = None,
        scores: bool = True,
        deaf: bool = False,
    ) -> None:
        self.plans = list(plans)
        self.rest = rest
        self.found: Probed | Callable[[], Exception] = probe or Probed(model="fake-1", capabilities=EVERYTHING)
        self.away: Callable[[], Exception] | None = None
        self.begun = self.ended = self.stopped = self.most = 0
        self.tokens = TokenCount()
        self.times: deque[float] = deque(maxlen=100)
        self.probes = self.pings = 0
        self._scores, self._deaf = scores, deaf

    @property
    def under_way(self) -> int:
        """Calls that have neither ended nor been stopped."""
        return self.begun - self.ended - self.stopped

    decider = None
    reranker = None

    @property
    def scorer(self) -> LabelScorer | None:
        return self if self._scores else None

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        plan = self._begin()
        try:
            await self._wait(plan.seconds, timeout_s)
            plan.fail()
        except BaseException as exc:
            self._over(exc)
            raise
        self._over(None)
        self.tokens = self.tokens + TOKENS
        return Reply(text="".join(plan.pieces), finish_reason=plan.reason, tokens=TOKENS, model="fake-1")

    async def stream(self, request: ChatRequest, timeout_s: float) -> AsyncGenerator[Delta, None]:
        plan = self._begin()
        try:
            await self._wait(plan.seconds, timeout_s)
            for piece in plan.pieces:
                yield Delta(text=piece)
                await asyncio.sleep(plan.apart)
            plan.fail()
        except BaseException as exc:
            self._over(exc)
            raise
        self._over(None)
        if plan.finishes:
            self.tokens = self.tokens + (TOKENS if plan.reports_tokens else TokenCount())
            yield Delta(finish_reason=plan.reason, tokens=TOKENS if plan.reports_tokens else None)

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], timeout_s: float) -> Scoring:
        plan = self._begin()
        try:
            await self._wait(plan.seconds, timeout_s)
            plan.fail()
        except BaseException as exc:
            self._over(exc)
            raise
        self._over(None)
        self.tokens = self.tokens + TOKENS
        scores = LabelScores(logprobs=tuple(-1.0 for _ in labels), floor=-9.0)
        return Scoring(scores=tuple(scores for _ in prompts), tokens=TOKENS, requests=len(prompts))

    async def probe(self, timeout_s: float) -> Probed:
        self.probes += 1
        await asyncio.sleep(0.01)
        if self.away is not None:
            raise self.away()
        if not isinstance(self.found, Probed):
            raise self.found()
        return self.found

    async def ping(self, timeout_s: float) -> None:
        self.pings += 1
        await asyncio.sleep(0.01)
        if self.away is not None:
            raise self.away()

    async def aclose(self) -> None:
        pass

    def _begin(self) -> Plan:
        self.begun += 1
        self.most = max(self.most, self.under_way)
        self.times.append(asyncio.get_running_loop().time())
        if self.plans:
            return self.plans.pop(0)
        return self.rest if isinstance(self.rest, Plan) else self.rest()

    def _over(self, exc: BaseException | None) -> None:
        if isinstance(exc, asyncio.CancelledError | GeneratorExit):
            self.stopped += 1
        else:
            self.ended += 1

    async def _wait(self, seconds: float, timeout_s: float) -> None:
        if seconds > timeout_s and not self._deaf:
            await asyncio.sleep(timeout_s)
            raise UpstreamTimeout("fake", "fake did not answer in time")
        await asyncio.sleep(seconds)
