"""Jobs in memory."""

import asyncio

import pytest

from app.errors import NotFound, Overloaded
from app.services.jobs import MAX_ERRORS, Jobs, Progress
from indexing.errors import StoreUnavailable
from indexing.pipeline.ingest import DocumentResult

pytestmark = pytest.mark.anyio


async def nothing(_: Progress) -> None:
    """Done at once."""


async def forever(_: Progress) -> None:
    await asyncio.Event().wait()


async def run_all() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_jobs_run_one_after_the_other() -> None:
    """In the order in which they came, never two at once."""
    jobs, log = Jobs(), []

    async def work(name: str) -> None:
        log.append(f"{name} begins")
        await asyncio.sleep(0)
        log.append(f"{name} ends")

    a = jobs.submit("c", lambda _: work("a"), 1)
    b = jobs.submit("c", lambda _: work("b"), 1)
    assert (a.state, b.state) == ("queued", "queued")
    await run_all()
    assert log == ["a begins", "a ends", "b begins", "b ends"]
    assert jobs.find(b.id).state == "done"
    await jobs.close()


@pytest.mark.parametrize(
    ("error", "says"), [(StoreUnavailable("the store is away"), "the store is away"), (KeyError("secret"), "log")]
)
async def test_a_job_that_fails_says_why(error: Exception, says: str) -> None:
    """Our own errors with their text, a programmer's without; the next job runs all the same."""
    jobs = Jobs()

    async def work(progress: Progress) -> None:
        progress.total(7)
        raise error

    failed, after = jobs.submit("c", work, 1), jobs.submit("c", nothing, 1)
    await run_all()
    job = jobs.find(failed.id)
    assert (job.state, job.documents, jobs.find(after.id).state) == ("failed", 7, "done")
    assert says in (job.detail or "")
    assert "secret" not in (job.detail or "")
    assert job.finished_at is not None
    await jobs.close()


async def test_errors_are_bounded_and_counts_are_not() -> None:
    """The first thousand failures are told, all are counted."""
    jobs = Jobs()
    failed = [DocumentResult(id=None, source="", status="failed", reason="empty")] * 400

    async def work(progress: Progress) -> None:
        for _ in range(4):
            progress.add(failed)

    job = jobs.submit("c", work, 1)
    await run_all()
    assert (jobs.find(job.id).failed, len(jobs.find(job.id).errors)) == (1600, MAX_ERRORS)
    await jobs.close()


async def test_the_queue_is_bounded_by_count_and_by_bytes() -> None:
    """Overloaded beyond either; a job that is alone is always taken."""
    jobs = Jobs(queued=2, max_bytes=100)
    jobs.submit("c", forever, 1000)
    with pytest.raises(Overloaded):
        jobs.submit("c", forever, 1)
    await jobs.close()
    jobs = Jobs(queued=2, max_bytes=100)
    for _ in range(2):
        jobs.submit("c", nothing, 1)
    with pytest.raises(Overloaded) as refused:
        jobs.submit("c", nothing, 1)
    assert refused.value.retry_after > 0
    await run_all()
    assert jobs.submit("c", nothing, 100).state == "queued"
    await jobs.close()


async def test_the_oldest_finished_jobs_are_forgotten() -> None:
    """Never one that is still to run."""
    jobs = Jobs(remembered=2)
    first = jobs.submit("c", nothing, 1)
    await run_all()
    kept = [jobs.submit("c", forever, 1) for _ in range(3)]
    with pytest.raises(NotFound):
        jobs.find(first.id)
    assert [jobs.find(job.id).id for job in kept] == [job.id for job in kept]
    await jobs.close()


async def test_closing_ends_every_job() -> None:
    """The running one is cancelled, those that wait fail, and both say so."""
    jobs = Jobs()
    running, waiting = jobs.submit("c", forever, 1), jobs.submit("c", forever, 1)
    await run_all()
    await jobs.close()
    assert [jobs.find(job.id).state for job in (running, waiting)] == ["failed", "failed"]
    assert "what was written stays" in (jobs.find(running.id).detail or "")
    assert "before it began" in (jobs.find(waiting.id).detail or "")
