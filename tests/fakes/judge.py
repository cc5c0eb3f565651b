"""A judge of texts that calls nobody."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable

import msgspec

from app.backends.base import Call, call_of
from app.domain import ANONYMOUS, BackendUse, TokenCount
from app.services.batches import Entry, Judged


class Length(msgspec.Struct, frozen=True, kw_only=True):
    """How long a text is."""

    length: int


class MeasuringJudge:
    """Says how long a text is, for a dollar. Raises the next of `faults[text]` instead, as long as there is one.

    While `open` is not set it keeps everybody waiting.
    """

    def __init__(self, faults: dict[str, list[Exception]] | None = None) -> None:
        self.faults = faults or {}
        self.open = asyncio.Event()
        self.open.set()
        self.asked: Counter[str] = Counter()
        self._heard = asyncio.Event()
        self.at_once = self.most_at_once = self.cancelled = 0

    async def one(self, text: str, call: Call) -> Judged[Length]:
        self.asked[text] += 1
        self._heard.set()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.open.wait()
            await asyncio.sleep(0)
            call.account.add(call.stage, 1, TokenCount(input=len(text)), 1.0)
            if faults := self.faults.get(text):
                raise faults.pop(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_once -= 1
        return Judged(result=Length(length=len(text)), backend=BackendUse(requested="auto", used="fake"))

    async def until_asked(self, times: int) -> None:
        """Wait until it has been asked so often."""
        while self.asked.total() < times:
            self._heard.clear()
            await self._heard.wait()


def fake_call(seconds: float = 60.0) -> Call:
    """A call for one text."""
    return call_of("measure", seconds, ANONYMOUS)


async def entries(texts: Iterable[str]) -> AsyncGenerator[Entry, None]:
    """The texts, with ids from 1."""
    for number, text in enumerate(texts, 1):
        yield Entry(id=number, text=text)
