"""Many questions, a few at once."""

import asyncio
from pathlib import Path

import pytest

from app.domain import BackendUse, Fallback, Usage
from app.errors import BudgetExceeded, UnknownBackend, UpstreamTimeout
from app.evaluation.data import EvalQuestion
from app.evaluation.models import EvaluationProgress
from app.evaluation.runner import Journal, Record, ask_all, check_budget, with_error_record

pytestmark = pytest.mark.anyio

QUESTIONS = [EvalQuestion(id=str(number), text="?") for number in range(10)]


class Oracle:
    """Answers; notes who was asked and how many at once. What is in `failing` raises."""

    def __init__(self, failing: dict[str, Exception] | None = None) -> None:
        self.failing = failing or {}
        self.asked: list[str] = []
        self.busy = self.most_busy = 0

    async def ask(self, asked: EvalQuestion) -> Record:
        return await with_error_record(self._ask(asked), lambda code: Record(id=asked.id, error=code))

    async def _ask(self, asked: EvalQuestion) -> Record:
        self.asked.append(asked.id)
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        try:
            await asyncio.sleep(0)
            if asked.id in self.failing:
                raise self.failing[asked.id]
        finally:
            self.busy -= 1
        return Record(id=asked.id, usage=Usage(cost_usd=0.5))


def journal(tmp_path: Path) -> Journal[Record]:
    return Journal(tmp_path / "j.jsonl", Record)


async def test_all_are_asked_a_few_at_once(tmp_path: Path) -> None:
    """No more than were allowed; the progress counts them and their cost."""
    oracle, told = Oracle(), list[EvaluationProgress]()
    found = await ask_all("asking", QUESTIONS, oracle.ask, journal(tmp_path), concurrency=3, show=told.append)
    assert sorted(found) == sorted(asked.id for asked in QUESTIONS)
    assert oracle.most_busy == 3
    assert [progress.done for progress in told] == list(range(11))
    assert told[-1] == EvaluationProgress(step="asking", done=10, total=10, usd=5.0)


async def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """What was answered before the end is not asked twice."""
    first, second = Oracle({"4": RuntimeError("killed")}), Oracle()
    with pytest.raises(RuntimeError, match="killed"):
        await ask_all("asking", QUESTIONS, first.ask, journal(tmp_path), concurrency=1)
    found = await ask_all("asking", QUESTIONS, second.ask, journal(tmp_path), concurrency=1)
    assert len(found) == 10
    assert second.asked == ["4", "5", "6", "7", "8", "9"]
    third = Oracle()
    await ask_all("asking", QUESTIONS, third.ask, journal(tmp_path), concurrency=1)
    assert third.asked == []
    await ask_all("asking", QUESTIONS, third.ask, journal(tmp_path), concurrency=1, fresh=True)
    assert len(third.asked) == 10


async def test_a_failed_question_ends_nothing(tmp_path: Path) -> None:
    """It is counted, and asked again by the next run."""
    told: list[EvaluationProgress] = []
    oracle = Oracle({"3": UpstreamTimeout("gemma", "late")})
    found = await ask_all("asking", QUESTIONS, oracle.ask, journal(tmp_path), concurrency=2, show=told.append)
    assert found["3"] == Record(id="3", error="timeout")
    assert (told[-1].done, told[-1].failed) == (10, 1)
    again = Oracle()
    found = await ask_all("asking", QUESTIONS, again.ask, journal(tmp_path), concurrency=2)
    assert again.asked == ["3"]
    assert not found["3"].error


async def test_a_spent_budget_ends_the_run_and_keeps_what_is_there(tmp_path: Path) -> None:
    """What is under way is waited for, nothing more is asked, and the error says how to go on."""
    oracle = Oracle({"5": BudgetExceeded("the budget is spent", 60.0)})
    with pytest.raises(BudgetExceeded, match=r"results of 5 of 10 questions are kept") as raised:
        await ask_all("asking", QUESTIONS, oracle.ask, journal(tmp_path), concurrency=1)
    assert raised.value.retry_after == 60.0
    assert oracle.asked == ["0", "1", "2", "3", "4", "5"]
    assert len(journal(tmp_path).begin(fresh=False)) == 5


async def test_what_was_paid_for_is_kept_at_the_end(tmp_path: Path) -> None:
    """A question that was under way when another found the budget spent counts."""
    under_way, spent = asyncio.Event(), asyncio.Event()

    async def ask(asked: EvalQuestion) -> Record:
        if asked.id == "0":
            under_way.set()
            await spent.wait()
            return Record(id="0")
        await under_way.wait()
        spent.set()
        raise BudgetExceeded("the budget is spent")

    with pytest.raises(BudgetExceeded, match="1 of 10"):
        await ask_all("asking", QUESTIONS, ask, journal(tmp_path), concurrency=2)
    assert journal(tmp_path).begin(fresh=False) == [Record(id="0")]


async def test_what_no_question_can_change_ends_the_run(tmp_path: Path) -> None:
    """A backend that is not there is not asked ten times; nothing goes on in the background."""
    oracle = Oracle({"1": UnknownBackend("no backend 'x'")})
    with pytest.raises(UnknownBackend):
        await ask_all("asking", QUESTIONS, oracle.ask, journal(tmp_path), concurrency=2)
    assert oracle.busy == 0
    assert len(oracle.asked) < len(QUESTIONS)


def test_a_search_that_had_no_money_is_no_result() -> None:
    """Where the backend that was asked for is passed over for its budget; another's reason is none of ours."""
    spent = Fallback(backend="gemma", reason="over_budget")
    with pytest.raises(BudgetExceeded, match="gemma"):
        check_budget(BackendUse(requested="gemma", used="none", fallbacks=(spent,)))
    check_budget(BackendUse(requested="gemma", used="none", fallbacks=(Fallback(backend="gemma", reason="timeout"),)))
    check_budget(BackendUse(requested="auto", used="flash", fallbacks=(spent,)))
