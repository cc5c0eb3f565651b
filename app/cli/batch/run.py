"""One run over a file: feeds the texts that are left, writes a row for each, and stops in good order."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import msgspec

from app.cli.batch.journal import Journal, Written
from app.cli.batch.texts import Item
from app.errors import WinnowError

AHEAD = 4
"""For each text that may be judged at once, so many are sent before the first of them is back."""

IN_VAIN = 20
"""So many failures in a row that are not the texts' own end a run."""

_NOT_THE_TEXTS = (
    "budget-exceeded",
    "overloaded",
    "resting",
    "upstream-rate-limited",
    "upstream-rejected",
    "upstream-timeout",
    "upstream-unavailable",
)
_AT_ONCE = ("budget-exceeded",)
"""Waiting for more of these would be in vain."""

Judge = Callable[[AsyncGenerator[bytes, None]], AsyncGenerator[bytes, None]]
"""Sends rows to be judged, and gives the rows of the response."""


class Stopped(WinnowError):
    """The run ended before the file did; what it has written stays, and the next run goes on there."""


class _Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a response: of a text, or the ending."""

    id: int | str = ""
    error: dict[str, Any] | None = None
    cost_usd: float = 0.0
    done: bool | None = None


_ROWS = msgspec.json.Decoder(_Answered)


class Run:
    """Takes the items that are left to the journal.

    Failures that are not the texts' own (no room, no connection, no money) are not written while nothing but such
    failures follows: the next run tries these texts again. `budget_usd` is for the whole output.
    """

    def __init__(
        self,
        journal: Journal,
        items: Iterator[Item],
        concurrency: int,
        budget_usd: float | None,
        report: Callable[[], None],
    ) -> None:
        self._journal, self._items = journal, items
        self._concurrency, self._budget_usd, self._report = concurrency, budget_usd, report
        self._sent: deque[Item] = deque()
        self._held: list[tuple[bytes, Written]] = []
        self._judged = self._in_vain = 0
        self._answered = asyncio.Event()
        self.over_budget = False

    @property
    def cost_usd(self) -> float:
        """Of all that is written, and of what is held back."""
        return self._journal.cost_usd + sum(written.cost_usd for _, written in self._held)

    async def work(self, judge: Judge) -> None:
        """Until the file or the budget ends. Raises Stopped, and what `judge` raises."""
        async with aclosing(judge(self._rows())) as answers:
            async for line in answers:
                answered = _ROWS.decode(line)
                if answered.done is None:
                    self._take(line, answered)
                elif answered.done is False:
                    raise Stopped(_detail(answered))
        if self._sent:
            raise Stopped("the connection ended before all texts were judged")
        self._end()

    async def _rows(self) -> AsyncGenerator[bytes, None]:
        """What is sent: never more than can be answered soon, or than the budget has room for."""
        for at, item in enumerate(self._items, self._journal.done):
            if item.settled:
                self._sent.append(item)
                self._write_unasked()
                continue
            while not self._may_send():
                if self.over_budget:
                    return
                self._answered.clear()
                await self._answered.wait()
            self._sent.append(item)
            yield msgspec.json.encode({"id": item.id, "text": item.text, "at": at}) + b"\n"

    def _may_send(self) -> bool:
        """Whether one more text has room; sets `over_budget` once none ever will."""
        waiting = len(self._sent)
        if self._budget_usd is None:
            return waiting < AHEAD * self._concurrency
        known = self._journal.done + len(self._held)
        mean_usd = self.cost_usd / known if known else 0.0
        self.over_budget = self.cost_usd + mean_usd > self._budget_usd or self.cost_usd >= self._budget_usd
        if self.over_budget:
            return False
        expected_usd = self.cost_usd + (waiting + 1) * mean_usd
        most = self._concurrency if known else 1
        return waiting < most and (waiting == 0 or expected_usd <= self._budget_usd)

    def _take(self, line: bytes, answered: _Answered) -> None:
        if not self._sent or self._sent[0].id != answered.id:
            raise Stopped(f"the service answered a text that was not asked, {answered.id!r}")
        self._sent.popleft()
        self._judged += 1
        written = Written(id=answered.id, error=answered.error, cost_usd=answered.cost_usd)
        self._write(line if line.endswith(b"\n") else line + b"\n", written)
        self._write_unasked()
        self._answered.set()
        self._report()

    def _write_unasked(self) -> None:
        """Rows for those at the head of the line that were not sent."""
        while self._sent and self._sent[0].settled:
            row, written = _unasked(self._sent.popleft())
            if self._held:
                self._held.append((row, written))
            else:
                self._journal.append(row, written)

    def _write(self, row: bytes, written: Written) -> None:
        self._held.append((row, written))
        kind = _kind(written)
        self._in_vain = self._in_vain + 1 if kind in _NOT_THE_TEXTS else 0
        if not self._in_vain:
            self._let_go()
        elif kind in _AT_ONCE or self._in_vain >= IN_VAIN:
            self._give_up()

    def _let_go(self) -> None:
        for earlier in self._held:
            self._journal.append(*earlier)
        self._held.clear()

    def _end(self) -> None:
        """What is held back at the end is tried again by the next run; but if nothing else was tried, it has been."""
        if self._in_vain and self._in_vain < self._judged:
            self._give_up()
        self._let_go()

    def _give_up(self) -> None:
        detail = next(str((written.error or {}).get("detail")) for _, written in reversed(self._held) if _kind(written))
        texts = f"{self._in_vain} texts in a row" if self._in_vain > 1 else "one text"
        raise Stopped(f"{detail} ({texts}; the next run tries again)")


def _unasked(item: Item) -> tuple[bytes, Written]:
    if item.row:
        return item.row, msgspec.json.decode(item.row, type=Written)
    error = {"type": "urn:winnow:problem:invalid-request", "title": "Invalid request", "detail": item.problem}
    row = msgspec.json.encode({"id": item.id, "error": error, "cost_usd": 0.0}) + b"\n"
    return row, Written(id=item.id, error=error)


def _kind(written: Written) -> str:
    """The last word of its error's type."""
    return str((written.error or {}).get("type", "")).rpartition(":")[2]


def _detail(answered: _Answered) -> str:
    return str((answered.error or {}).get("detail", "the service stopped"))
