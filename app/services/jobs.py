"""Indexing that goes on after its request has been answered, and after a restart of the service."""

import asyncio
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path

import msgspec
import structlog

from app.errors import InvalidRequest, NotFound, Overloaded, WinnowError
from app.services.document_validation import Submission, SubmittedFile, Validated
from app.services.documents import Documents
from app.services.incoming import Incoming, sweep
from app.services.indexing_time import expected_passages
from app.services.job_records import MAX_ERRORS, UNFINISHED, JobRecord, JobRecords, JobState, Outcome
from app.services.spool import Spool, SpoolDamaged, Uploads
from indexing.concurrency import Resource, finish, in_threads, pauses
from indexing.disk import DiskGuard
from indexing.documents import EVERYTHING, Audience
from indexing.errors import DiskFull, EmbedderMismatch, EmbedderUnavailable, IndexBusy, StoreUnavailable
from indexing.pipeline.ingest import DocumentResult, SubmittedDocument, Versions
from indexing.pipeline.progress import Advanced, Event, Notice

JOBS_FILE = "jobs.sqlite3"
SPOOL_DIRECTORY = "jobs"

_SLICE_DOCUMENTS = 64
_SLICE_PASSAGES = 64
"""What is indexed before the counts move, and before a job that is cancelled ends."""

_PASSING = (DiskFull, EmbedderMismatch, EmbedderUnavailable, IndexBusy, Overloaded, StoreUnavailable)
"""Errors of the surroundings: the job waits and goes on, as it was promised to be done."""

_CURSOR = re.compile(r"[0-9]{0,18}")
_ALL = 10**9
_LONGEST_PAUSE_S = 60.0
_RETRY_AFTER_S = 10.0

log = structlog.get_logger()


class JobEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A large upload. `documents` is null until its files are read; the counts grow while it runs.

    `detail` says why the job as a whole failed, what it waits for, or how far OCR is; what it has written stays.
    `seconds_left` is an estimate, null while nothing is known.
    """

    id: str
    collection: str
    state: JobState
    documents: int | None = None
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: int = 0
    passages: int = 0
    detail: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    seconds_left: float | None = None


class Job(JobEntry, frozen=True, kw_only=True):
    """A large upload with its failed documents, the first 1000 of them."""

    errors: tuple[DocumentResult, ...] = ()


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, the newest first. `next_cursor` is null at the end."""

    jobs: list[JobEntry]
    next_cursor: str | None


class JobLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`at_once` jobs run, each of another collection; `unfinished` may exist, with `bytes` of uploads; `remembered`
    finished ones are kept. A job that has to wait tries again after `retry_s`, then more and more seldom. Whether the
    replica that runs the jobs is still there is looked at every `standby_s`.
    """

    at_once: int = 3
    unfinished: int = 100
    bytes: int = 2_000_000_000
    remembered: int = 1000
    retry_s: float = 1.0
    standby_s: float = 2.0


class JobCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs at this moment, the bytes of their uploads, and those that ended since the start of the process."""

    queued: int
    running: int
    bytes: int
    ended: Mapping[JobState, int]


class _ActiveJob:
    """A job that is not finished: its record, and since when it has been indexing in this process."""

    def __init__(self, record: JobRecord) -> None:
        self.record = record
        self.embedded = 0
        """Passages of the documents that are being indexed."""
        self.scan: str | None = None
        """How far the scan is that is being read."""
        self._begun: tuple[float, float] | None = None

    def advance(self, event: Event) -> None:
        """Hear how far the documents are that are being indexed."""
        if isinstance(event, Advanced):
            self.embedded = event.passages
        elif isinstance(event, Notice) and event.stage == "reading":
            self.scan = event.detail

    def begin(self) -> None:
        """Measure from now on."""
        self._begun = time.monotonic(), self.record.expected_done

    def seconds_left(self) -> float | None:
        """At the rate since the beginning."""
        if self._begun is None or self.record.state != "running":
            return None
        begun, done_before = self._begun
        done = self.record.expected_done + self.embedded - done_before
        left = max(0.0, self.record.expected_passages - self.record.expected_done - self.embedded)
        return round(left * (time.monotonic() - begun) / done, 1) if done > 0 else None


class SharedJobs(msgspec.Struct, frozen=True):
    """The uploads and the records of jobs that replicas share. `open` raises IndexBusy where another replica writes."""

    uploads: Uploads
    open: Callable[[], Awaitable[JobRecords]]


class Jobs:
    """Runs the jobs of one collection in the order in which they came, those of several side by side.

    A job is taken when its documents and its record are on the disk. From then on it survives restarts: `start`
    continues what an earlier process left. Raises StoreUnavailable where the records cannot be used.
    """

    def __init__(
        self,
        home: Path,
        documents: Documents,
        disk: DiskGuard,
        limits: JobLimits | None = None,
        shared: "SharedJobs | None" = None,
    ) -> None:
        """In the directory `home`, what is damaged there is moved to its directory `quarantine`; or `shared` by
        replicas, of which one runs them.
        """
        self._documents = documents
        self._limits = limits or JobLimits()
        self._directory, self._disk = home / SPOOL_DIRECTORY, disk
        self._spool: Uploads = shared.uploads if shared else Spool(self._directory, disk)
        in_file = partial(asyncio.to_thread, JobRecords.in_file, home / JOBS_FILE, home / "quarantine")
        self._records = Resource(shared.open if shared else in_file)
        self._is_shared = shared is not None
        self._resumed = Resource(self._resume)
        self._resuming: asyncio.Task[None] | None = None
        self._active: dict[str, _ActiveJob] = {}
        self._runners: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(self._limits.at_once)
        self._reserved: Counter[str] = Counter()
        """Bytes of each job that is unfinished, or about to be taken."""
        self._ended: Counter[JobState] = Counter()

    def incoming(self) -> Incoming:
        """Where large files of an upload are until `submit` has taken them."""
        return Incoming(self._directory, self._disk)

    def start(self) -> None:
        """Continue in the background what is unfinished."""
        self._resuming = asyncio.create_task(self._resume_at_last())

    async def close(self) -> None:
        """Stop. The next `start` continues from here."""
        tasks = [*self._runners.values(), *([self._resuming] if self._resuming else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if (records := await self._records.settled()) is not None:
            await records.close()

    async def submit(self, collection: str, submissions: Sequence[Submission], size: int, audience: Audience) -> Job:
        """Take a job whose upload has `size` bytes; files among the submissions are read later.

        Documents must have been validated. Raises Overloaded, DiskFull.
        """
        await self._resumed.get()
        job_id = secrets.token_hex(8)
        self._reserve(job_id, size)
        try:
            # To its end, even if the caller goes away: a record without documents would be a job that fails.
            return await finish(self._take(job_id, collection, submissions, size, audience))
        except BaseException:
            if job_id not in self._active:
                self._reserved.pop(job_id, None)
            raise

    async def page(
        self,
        audience: Audience,
        *,
        cursor: str = "",
        limit: int,
        state: JobState | None = None,
        collection: str | None = None,
    ) -> JobList:
        """Up to `limit` jobs that the audience may see, the newest first, after those of the page whose `next_cursor`
        is given.

        Raises InvalidRequest.
        """
        if not _CURSOR.fullmatch(cursor):
            raise InvalidRequest("invalid cursor: send the next_cursor of the page before")
        records = await self._records.get()
        if not audience.unrestricted:  # numbers count the jobs of others: a cursor says how many of one's own are left
            mine = await records.page(before=None, limit=_ALL, state=state, collection=collection, audience=audience)
            left = mine[max(0, len(mine) - int(cursor)) :] if cursor else mine
            more = str(len(left) - limit) if len(left) > limit else None
            return JobList(jobs=[self._shown(record) for record in left[:limit]], next_cursor=more)
        before = int(cursor) if cursor else None
        found = await records.page(
            before=before, limit=limit + 1, state=state, collection=collection, audience=audience
        )
        next_cursor = str(found[limit - 1].number) if len(found) > limit else None
        return JobList(jobs=[self._shown(record) for record in found[:limit]], next_cursor=next_cursor)

    async def find(self, job_id: str, audience: Audience) -> Job:
        """Raises NotFound."""
        found = await (await self._records.get()).find(job_id)
        if found is None or not found[0].is_shown_to(audience):
            raise _not_found(job_id)
        record, errors = found
        return Job(**msgspec.structs.asdict(self._shown(record)), errors=errors)

    async def cancel(self, job_id: str, audience: Audience) -> None:
        """End a job; what it has written stays. A finished one is forgotten. Raises NotFound."""
        if self._resuming is not None:
            await self._resumed.get()
        records = await self._records.get()
        found = await records.find(job_id)
        if found is None or not found[0].is_shown_to(audience):
            raise _not_found(job_id)
        if found[0].state not in UNFINISHED:
            await records.delete(job_id)
            return
        job = self._active.get(job_id) or _ActiveJob(found[0])
        collection = job.record.collection
        runs = self._first(collection) is job
        self._active.pop(job_id, None)
        if runs:
            await self._stop_runner(collection)
        try:
            await self._end(job, "cancelled")
        finally:
            self._run_collection(collection)

    async def overtake(self, collection: str, versions: Mapping[str, str]) -> None:
        """Hear what somebody who came after the jobs that are here is about to make of documents: id -> version, ""
        for none. If that becomes of them, jobs leave them so. Raises StoreUnavailable, DiskFull.
        """
        await (await self._records.get()).overtake(collection, versions)

    async def fault(self) -> str | None:
        """Why the records cannot be used, so that nothing is indexed by the API; None if they can, or if it is another
        replica that uses them.
        """
        if self._is_shared and self._records.opened is None:
            return None  # to open them is to take the other's place, were the database only just back
        try:
            await self.overtake("", {})
        except WinnowError as exc:
            return str(exc)
        return None

    def counts(self) -> JobCounts:
        """How many there are."""
        running = sum(job.record.state == "running" for job in self._active.values())
        return JobCounts(
            queued=len(self._active) - running,
            running=running,
            bytes=self._reserved.total(),
            ended=dict(self._ended),
        )

    async def cancel_all(self, collection: str) -> None:
        """End every job of a collection, as before it is deleted: they would bring it back."""
        records = await self._records.get()
        for record in await records.unfinished():
            if record.collection == collection:
                await self.cancel(record.id, EVERYTHING)

    def _reserve(self, job_id: str, size: int) -> None:
        full = len(self._reserved) >= self._limits.unfinished
        if full or (self._reserved and self._reserved.total() + size > self._limits.bytes):
            raise Overloaded("too many uploads are waiting to be indexed; try again later", _RETRY_AFTER_S)
        self._reserved[job_id] = size

    async def _take(
        self, job_id: str, collection: str, submissions: Sequence[Submission], size: int, audience: Audience
    ) -> Job:
        record = JobRecord(
            id=job_id,
            collection=collection,
            bytes=size,
            created_at=datetime.now(UTC),
            tenant=None if audience.unrestricted else audience.tenant,
            allowed=tuple(sorted({_groups_of(one) for one in submissions})),
        )
        if not any(isinstance(submission, SubmittedFile) for submission in submissions):
            record = _with_documents(record, submissions)
        moved = sum(one.length for one in submissions if isinstance(one, SubmittedFile) and one.path)
        await asyncio.to_thread(self._spool.write, job_id, collection, submissions, max(0, size - moved))
        try:
            await (await self._records.get()).save(record)
        except BaseException:
            await asyncio.to_thread(self._spool.delete, job_id)
            raise
        self._activate(record)
        return Job(**msgspec.structs.asdict(self._shown(record)))

    async def _resume(self) -> None:
        await asyncio.to_thread(sweep, self._directory)
        records = await self._records.get()
        unfinished = [*await records.unfinished(), *await self._unrecorded(records)]
        for record in unfinished:
            if record.id in self._active:  # by an attempt that a full disk cut off
                continue
            waiting = msgspec.structs.replace(record, state="queued")
            await records.save(waiting, durable=False)
            self._reserved[record.id] = record.bytes
            self._activate(waiting)
        if unfinished:
            log.info("continuing jobs of an earlier run", jobs=len(unfinished))

    async def _unrecorded(self, records: JobRecords) -> list[JobRecord]:
        """Jobs of which there is an upload and no record: the file of the records was lost. They begin anew.

        Removes uploads of jobs that are finished: a kill came before their end was complete.
        """
        lost: list[JobRecord] = []
        for job_id, size in (await asyncio.to_thread(self._spool.jobs)).items():
            if (found := await records.find(job_id)) is not None:
                if found[0].state not in UNFINISHED:
                    await asyncio.to_thread(self._spool.delete, job_id)
            elif collection := await asyncio.to_thread(self._spool.collection, job_id):
                lost.append(JobRecord(id=job_id, collection=collection, bytes=size, created_at=datetime.now(UTC)))
        return lost

    async def _resume_at_last(self) -> None:
        """As soon as it is possible: the disk may be full, and the next upload may be far."""
        # The replica that runs them may end while the database is away: whoever takes over must not come late.
        longest = self._limits.standby_s if self._is_shared else _LONGEST_PAUSE_S
        waits, said = pauses(self._limits.retry_s, longest), ""
        while True:
            try:
                await self._resumed.get()
            except IndexBusy:  # another replica runs them; this one does when that ends, which is no failure
                waits, said, pause = pauses(self._limits.retry_s, longest), "", self._limits.standby_s
            except WinnowError as exc:
                pause = next(waits)
                if str(exc) != said:
                    log.error("jobs wait to be continued", detail=str(exc), seconds=pause)
                said = str(exc)
            except Exception:
                log.exception("jobs cannot be continued")
                return
            else:
                return
            await asyncio.sleep(pause)

    def _activate(self, record: JobRecord) -> None:
        self._active[record.id] = _ActiveJob(record)
        self._run_collection(record.collection)

    def _first(self, collection: str) -> _ActiveJob | None:
        return next((job for job in self._active.values() if job.record.collection == collection), None)

    def _run_collection(self, collection: str) -> None:
        """See to it that the jobs of the collection run, if it has any."""
        if collection not in self._runners and self._first(collection) is not None:
            self._runners[collection] = asyncio.create_task(self._run_jobs(collection))

    async def _stop_runner(self, collection: str) -> None:
        if (runner := self._runners.get(collection)) is not None:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)
            self._runners.pop(collection, None)

    async def _run_jobs(self, collection: str) -> None:
        waits = pauses(self._limits.retry_s, _LONGEST_PAUSE_S)
        while (job := self._first(collection)) is not None:
            try:
                async with self._slots:
                    await self._run(job)
                waits = pauses(self._limits.retry_s, _LONGEST_PAUSE_S)
            except _PASSING as exc:
                pause = next(waits)
                log.warning("a job waits", job=job.record.id, detail=str(exc), seconds=pause)
                job.record = msgspec.structs.replace(job.record, state="queued", detail=f"waiting: {exc}")
                await asyncio.sleep(pause)
        del self._runners[collection]

    async def _run(self, job: _ActiveJob) -> None:
        """Work on the job to its end. Raises what may pass."""
        try:
            started = job.record.started_at or datetime.now(UTC)
            await self._change(job, state="running", started_at=started, detail=None)
            if job.record.documents is None:
                await self._read(job)
            job.begin()
            async for part, resumed in self._slices(job):
                await self._index(job, part, resumed=resumed)
        except _PASSING:
            raise
        except WinnowError as exc:
            await self._end(job, "failed", str(exc))
        except Exception:
            log.exception("a job failed", job=job.record.id)
            await self._end(job, "failed", "indexing failed inside the service; its log says more")
        else:
            await self._end(job, "done")

    async def _read(self, job: _ActiveJob) -> None:
        """Read the files, and keep what was read in their place, so that it is read once."""
        record, documents, passages = job.record, 0, 0.0
        async with self.incoming() as incoming:
            submissions = await finish(asyncio.to_thread(lambda: list(self._spool.read(record.id, incoming=incoming))))
            pieces = self._documents.read_in_pieces(submissions, job.advance)
            writing = self._spool.writing(record.id, record.collection, record.bytes)
            try:
                async with aclosing(pieces), in_threads(writing) as add:
                    async for piece in pieces:
                        await finish(asyncio.to_thread(add, piece))
                        documents, passages = documents + len(piece), passages + sum(map(expected_passages, piece))
            finally:
                job.scan = None
        await self._save(job, msgspec.structs.replace(record, documents=documents, expected_passages=passages))

    async def _slices(self, job: _ActiveJob) -> AsyncIterator[tuple[list[Validated], bool]]:
        """What is left, in slices; and whether a slice had been begun before, by a process that did not finish it."""
        total = job.record.documents or 0
        left = self._spool.read(job.record.id, job.record.position)
        count = len(job.record.intended)
        while job.record.position < total:
            part = await asyncio.to_thread(_next_slice, left, count)
            if not part:
                raise SpoolDamaged("some of its documents are missing on disk: upload them again; the others stay")
            yield part, count > 0
            count = 0

    async def _index(self, job: _ActiveJob, part: Sequence[Validated], *, resumed: bool) -> None:
        collection = job.record.collection
        if not resumed:
            await self._change(job, intended=tuple(await self._documents.intended(collection, part)))
        left: set[str] = set()

        async def overtaken(documents: Sequence[str]) -> Versions:
            found = await (await self._records.get()).overtaken(job.record.id, documents)
            left.update(found)
            return found

        await self._documents.room(collection)
        try:
            results = await self._documents.index(collection, part, job.advance, overtaken)
        finally:
            job.embedded = 0
        if resumed:
            keys = [one.key() if isinstance(one, SubmittedDocument) else None for one in part]
            rows = zip(results, keys, job.record.intended, strict=True)
            results = [result if key in left else _as_intended(result, intended) for result, key, intended in rows]
        record, count = job.record, Counter(result.status for result in results)
        counted = msgspec.structs.replace(
            record,
            created=record.created + count["created"],
            updated=record.updated + count["updated"],
            unchanged=record.unchanged + count["unchanged"],
            failed=record.failed + count["failed"],
            passages=record.passages + sum(result.passages for result in results),
            expected_done=record.expected_done + sum(map(expected_passages, part)),
            intended=(),
        )
        failures = [result for result in results if result.status == "failed"]
        await self._save(job, counted, failures[: max(0, MAX_ERRORS - record.failed)])

    async def _end(self, job: _ActiveJob, state: JobState, detail: str | None = None) -> None:
        ended = msgspec.structs.replace(job.record, state=state, detail=detail, finished_at=datetime.now(UTC))
        await self._save(job, ended, durable=True)
        self._ended[state] += 1
        job_id = ended.id
        self._active.pop(job_id, None)
        self._reserved.pop(job_id, None)
        await asyncio.to_thread(self._spool.delete, job_id)
        await (await self._records.get()).prune(self._limits.remembered)
        log.info("job ended", job=job_id, collection=ended.collection, state=state, documents=ended.documents)

    async def _change(self, job: _ActiveJob, **fields: object) -> None:
        await self._save(job, msgspec.structs.replace(job.record, **fields))

    async def _save(
        self, job: _ActiveJob, record: JobRecord, errors: Sequence[DocumentResult] = (), *, durable: bool = False
    ) -> None:
        """Not durable: after a power cut, documents are indexed again, and found unchanged."""
        await (await self._records.get()).save(record, errors, durable=durable)
        job.record = record

    def _shown(self, record: JobRecord) -> JobEntry:
        job = self._active.get(record.id)
        if job is None:  # finished, or waiting for a service to run it
            entry = msgspec.convert(record, JobEntry, from_attributes=True)
            return msgspec.structs.replace(entry, state="queued") if record.state == "running" else entry
        entry = msgspec.convert(job.record, JobEntry, from_attributes=True)
        passages = entry.passages + job.embedded
        return msgspec.structs.replace(
            entry, passages=passages, seconds_left=job.seconds_left(), detail=job.scan or entry.detail
        )


def _groups_of(submission: Submission) -> tuple[str, ...]:
    if isinstance(submission, SubmittedDocument):
        return submission.document.allowed
    return submission.allowed if isinstance(submission, SubmittedFile) else ()


def _with_documents(record: JobRecord, documents: Sequence[Submission]) -> JobRecord:
    expected = sum(map(expected_passages, documents))
    return msgspec.structs.replace(record, documents=len(documents), expected_passages=expected)


def _next_slice(submissions: Iterator[Submission], count: int) -> list[Validated]:
    """So many documents, or if `count` is 0, as many as take about a second or two."""
    if count:
        return [document for document in islice(submissions, count) if not isinstance(document, SubmittedFile)]
    part: list[Validated] = []
    passages = 0.0
    while len(part) < _SLICE_DOCUMENTS and passages < _SLICE_PASSAGES:
        document = next(submissions, None)
        if document is None or isinstance(document, SubmittedFile):  # files have been read by now
            break
        part.append(document)
        passages += expected_passages(document)
    return part


def _as_intended(result: DocumentResult, intended: Outcome) -> DocumentResult:
    """A document that is unchanged because an earlier process had indexed it counts as what it became then."""
    if result.status == "unchanged" and intended in ("created", "updated"):
        return msgspec.structs.replace(result, status=intended)
    return result


def _not_found(job_id: str) -> NotFound:
    return NotFound(f"job {job_id[:100]!r} not found; of finished jobs, the last 1000 are remembered")
