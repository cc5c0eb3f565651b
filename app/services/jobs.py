"""Indexing that goes on after its request has been answered. Jobs live in memory: a restart forgets them."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
import structlog

from app.errors import NotFound, Overloaded, WinnowError
from indexing.pipeline.ingest import DocumentResult

MAX_ERRORS = 1000
"""Failed documents that a job lists; it counts all of them."""

_RETRY_AFTER_S = 10.0

log = structlog.get_logger()


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A large upload. `documents` is null until its files are read; the counts grow while it runs.

    `errors` are the failed documents, the first 1000 of them. `detail` says why the job as a whole failed; what it had
    written until then stays. Jobs are forgotten when the service restarts.
    """

    id: str
    collection: str
    state: Literal["queued", "running", "done", "failed"]
    documents: int | None = None
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: int = 0
    passages: int = 0
    errors: tuple[DocumentResult, ...] = ()
    detail: str | None = None
    created_at: datetime
    finished_at: datetime | None = None


class Progress:
    """Where a job's work reports what it has done."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def total(self, documents: int) -> None:
        """Set the number of documents."""
        self.change(documents=documents)

    def add(self, results: Sequence[DocumentResult]) -> None:
        """Count finished documents."""
        job, count = self.job, Counter(result.status for result in results)
        failed = [result for result in results if result.status == "failed"]
        self.change(
            created=job.created + count["created"],
            updated=job.updated + count["updated"],
            unchanged=job.unchanged + count["unchanged"],
            failed=job.failed + count["failed"],
            passages=job.passages + sum(result.passages for result in results),
            errors=(*job.errors, *failed)[:MAX_ERRORS],
        )

    def change(self, **fields: object) -> None:
        """Replace these fields of the job."""
        self.job = msgspec.structs.replace(self.job, **fields)


Work = Callable[[Progress], Awaitable[None]]


class Jobs:
    """Runs one job at a time, in the order in which they came. `close` before what they write to is closed.

    `remembered` counts all jobs, `queued` those that have not begun, and `max_bytes` limits what they and the running
    one hold. A job that would be alone is always taken.
    """

    def __init__(self, *, remembered: int = 1000, queued: int = 100, max_bytes: int = 500_000_000) -> None:
        self._remembered, self._queued, self._max_bytes = remembered, queued, max_bytes
        self._jobs: dict[str, Progress] = {}
        self._waiting: asyncio.Queue[tuple[str, Work, int]] = asyncio.Queue()
        self._bytes = 0
        self._worker: asyncio.Task[None] | None = None

    def submit(self, collection: str, work: Work, size: int) -> Job:
        """Queue it; `size` is the bytes that it holds. Raises Overloaded."""
        if self._waiting.qsize() >= self._queued or (self._bytes and self._bytes + size > self._max_bytes):
            raise Overloaded("too many uploads are waiting to be indexed; try again later", _RETRY_AFTER_S)
        job = Job(id=uuid.uuid4().hex, collection=collection, state="queued", created_at=datetime.now(UTC))
        self._jobs[job.id] = Progress(job)
        self._waiting.put_nowait((job.id, work, size))
        self._bytes += size
        self._forget_oldest()
        if self._worker is None:
            self._worker = asyncio.create_task(self._run_all())
        return job

    def find(self, job_id: str) -> Job:
        """Raises NotFound."""
        if job_id not in self._jobs:
            raise NotFound(f"job {job_id!r} not found; old jobs are forgotten, and a restart forgets all")
        return self._jobs[job_id].job

    async def close(self) -> None:
        """Stop. What has been written stays; what has not begun fails."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        while not self._waiting.empty():
            _end(self._jobs[self._waiting.get_nowait()[0]], "the service was stopped before it began")

    async def _run_all(self) -> None:
        while True:
            job_id, work, size = await self._waiting.get()
            await _run(self._jobs[job_id], work)
            self._bytes -= size
            del work  # it holds the upload

    def _forget_oldest(self) -> None:
        """Only finished jobs: the others are bounded by the queue."""
        finished = [job_id for job_id, progress in self._jobs.items() if progress.job.finished_at is not None]
        for job_id in finished[: max(0, len(self._jobs) - self._remembered)]:
            del self._jobs[job_id]


async def _run(progress: Progress, work: Work) -> None:
    progress.change(state="running")
    try:
        await work(progress)
    except WinnowError as exc:
        _end(progress, str(exc))
    except asyncio.CancelledError:
        _end(progress, "the service was stopped while it ran; what was written stays")
        raise
    except Exception:
        log.exception("a job failed", job=progress.job.id)
        _end(progress, "indexing failed inside the service; its log says more")
    else:
        _end(progress, None)


def _end(progress: Progress, detail: str | None) -> None:
    state = "done" if detail is None else "failed"
    progress.change(state=state, detail=detail, finished_at=datetime.now(UTC))
