"""A run over a file: rows in order, problems in their place, budgets, failures that are nobody's own."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.cli.batch.journal import Journal, Origin
from app.cli.batch.run import IN_VAIN, Run, Stopped
from app.cli.batch.texts import fingerprint, items_of, rest_of

pytestmark = pytest.mark.anyio

DOWN = {"type": "urn:winnow:problem:upstream-unavailable", "detail": "flash is down"}
REFUSED = {"type": "urn:winnow:problem:refused", "detail": "declined"}
SPENT = {"type": "urn:winnow:problem:budget-exceeded", "detail": "the budget of today is spent"}


class Service:
    """Answers each row, for a cent, with the error that `faults` has for its text; `at_once` rows behind."""

    def __init__(self, faults: Callable[[str], Any] = lambda _text: None, at_once: int = 8) -> None:
        self.faults, self.at_once = faults, at_once
        self.asked: list[str] = []
        self.most_waiting = 0

    async def judge(self, rows: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        line: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

        async def read() -> None:
            async for row in rows:
                line.put_nowait(msgspec.json.decode(row))
                self.most_waiting = max(self.most_waiting, line.qsize())
            line.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            while (row := await line.get()) is not None:
                await asyncio.sleep(0)
                self.asked.append(row["text"])
                fault = self.faults(row["text"])
                result = {"error": fault} if fault else {"label": row["text"].upper(), "backend": "fake"}
                yield msgspec.json.encode({"id": row["id"], **result, "cost_usd": 0.0 if fault else 0.01})
            yield b'{"done":true,"items":1}'
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


class Bench:
    """A file, an output, and runs between them."""

    def __init__(self, home: Path, texts: list[str], name: str = "texts.txt") -> None:
        self.source, self.out = home / name, home / "out.jsonl"
        self.source.write_text("\n".join(texts))
        self.over_budget = False

    async def run(self, service: Service, budget_usd: float | None = None) -> None:
        origin = Origin(
            command="c", input=str(self.source), field="text", options={}, fingerprint=fingerprint(self.source)
        )
        journal = Journal(self.out, origin)
        items = rest_of(self.source, "text", journal.done, journal.last_id)
        run = Run(journal, items, 4, budget_usd, lambda: None)
        try:
            await run.work(service.judge)
        finally:
            journal.close()
            self.over_budget = run.over_budget

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in self.out.read_bytes().splitlines()]

    def complete(self) -> bool:
        return [row["id"] for row in self.rows] == [item.id for item in items_of(self.source, "text")]


async def test_every_text_has_its_row_in_order(tmp_path: Path) -> None:
    """No more texts are on their way than the service works on soon."""
    bench, service = Bench(tmp_path, [f"text {number}" for number in range(100)]), Service()
    await bench.run(service)
    assert bench.complete()
    assert bench.rows[41] == {"id": 42, "label": "TEXT 41", "backend": "fake", "cost_usd": 0.01}
    assert service.most_waiting <= 16


async def test_what_is_no_text_has_its_error_in_its_place(tmp_path: Path) -> None:
    """At the start, at the end, many in a row, and nobody is asked."""
    lines = ["[0]", '"one"', *["[0]"] * 50, '"two"', '"three"', "[0]"]
    bench, service = Bench(tmp_path, lines, "texts.jsonl"), Service()
    await bench.run(service)
    assert bench.complete()
    assert service.asked == ["one", "two", "three"]
    assert sum("error" in row for row in bench.rows) == 52


async def test_a_file_without_any_text_ends(tmp_path: Path) -> None:
    """With rows for what it has."""
    bench = Bench(tmp_path, ["[0]"] * 100, "texts.jsonl")
    await bench.run(Service())
    assert bench.complete()


async def test_errors_of_texts_are_written(tmp_path: Path) -> None:
    """However many there are in a row: they are results."""
    bench = Bench(tmp_path, [f"text {number}" for number in range(3 * IN_VAIN)])
    await bench.run(Service(lambda text: REFUSED))
    assert bench.complete()


async def test_a_backend_that_is_down_ends_the_run(tmp_path: Path) -> None:
    """What failed for that is tried again by the next run, and a failure between successes is written."""
    texts = [f"text {number}" for number in range(100)]
    bench = Bench(tmp_path, texts)
    with pytest.raises(Stopped, match=f"flash is down \\({IN_VAIN} texts in a row"):
        await bench.run(Service(lambda text: DOWN if text == "text 3" or int(text[5:]) >= 50 else None))
    assert len(bench.rows) == 50
    assert [row["id"] for row in bench.rows if "error" in row] == [4]
    await bench.run(Service())
    assert bench.complete()


async def test_the_last_texts_are_tried_once_more(tmp_path: Path) -> None:
    """A run that could not end them says so; if the next one fails as well, that is their result."""
    bench = Bench(tmp_path, ["a", "b", "c"])
    hopeless = Service(lambda text: DOWN if text == "c" else None)
    with pytest.raises(Stopped, match="one text"):
        await bench.run(hopeless)
    assert len(bench.rows) == 2
    await bench.run(hopeless)
    assert bench.complete()


async def test_a_spent_budget_of_the_service_ends_the_run_at_once(tmp_path: Path) -> None:
    """Nothing of it is written."""
    bench = Bench(tmp_path, [f"text {number}" for number in range(100)])
    with pytest.raises(Stopped, match="budget of today"):
        await bench.run(Service(lambda text: SPENT if int(text[5:]) >= 10 else None))
    assert len(bench.rows) == 10


async def test_a_budget_is_not_exceeded(tmp_path: Path) -> None:
    """It is for the whole output, whatever runs wrote it; what is on its way is counted."""
    bench = Bench(tmp_path, [f"text {number}" for number in range(100)])
    for budget_usd, done in ((0.105, 10), (0.105, 10), (0.30001, 30)):
        await bench.run(Service(), budget_usd)
        assert (len(bench.rows), bench.over_budget) == (done, True)
    await bench.run(Service(), 5.0)
    assert bench.complete()
    assert not bench.over_budget


async def test_a_service_that_stops_ends_the_run(tmp_path: Path) -> None:
    """With what it said; and a connection that ends early is no end of the file."""

    async def stops(rows: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        await anext(rows)
        yield b'{"done":false,"items":0,"error":{"detail":"the service is stopping"}}'

    async def ends(rows: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        yield b'{"id":%d,"cost_usd":0}' % msgspec.json.decode(await anext(rows))["id"]
        await anext(rows)

    bench = Bench(tmp_path, ["a", "b", "c"])
    for judge, said in ((stops, "is stopping"), (ends, "connection ended")):
        service = Service()
        service.judge = judge  # type: ignore[method-assign]
        with pytest.raises(Stopped, match=said):
            await bench.run(service)
    assert len(bench.rows) == 1
