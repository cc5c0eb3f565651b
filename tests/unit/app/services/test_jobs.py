"""Jobs: on the disk before they are taken, continued after a restart."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from app.errors import InvalidRequest, NotFound, Overloaded
from app.services.document_validation import SubmittedFile, Validated
from app.services.job_records import MAX_ERRORS, SHARED_MIGRATIONS, JobRecords
from app.services.jobs import JOBS_FILE, Job, JobLimits, Jobs, SharedJobs
from app.services.spool import SharedSpool, Spool
from indexing.disk import DiskGuard
from indexing.documents import EVERYTHING, Audience, Document
from indexing.errors import DiskFull, IndexBusy, StoreUnavailable
from indexing.pipeline.ingest import DocumentResult, Overtaken, SubmittedDocument, none_overtaken
from indexing.pipeline.progress import Advanced, Notice, Report, say_nothing
from indexing.postgres import Database
from indexing.writer import PostgresTables
from tests.conftest import both

pytestmark = pytest.mark.anyio

FAILED = DocumentResult(id=None, source="", status="failed", reason="empty")


def submitted(document_id: str, text: str = "text") -> SubmittedDocument:
    return SubmittedDocument(writer=EVERYTHING, document=Document(text=text), id=document_id)


def many(count: int, prefix: str = "d") -> list[SubmittedDocument]:
    return [submitted(f"{prefix}{n}") for n in range(count)]


def content_of(file: SubmittedFile) -> bytes:
    return Path(file.path).read_bytes() if file.path else file.data


class Index:
    """Indexes documents in memory, as `Documents` does. Survives the jobs, as an index survives a process."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], str] = {}
        self.calls: list[tuple[str, int]] = []
        self.written: list[SubmittedDocument] = []
        self.reads = 0
        self.errors: list[Exception] = []
        self.stop_after: int | None = None
        """How many documents of a call are written before it waits for `go_on`."""
        self.scanning = False
        """Whether a read waits at a page of a scan for `go_on`."""
        self.hanging, self.go_on = asyncio.Event(), asyncio.Event()

    async def read_in_pieces(
        self, submissions: Sequence[object], report: Report = say_nothing
    ) -> AsyncGenerator[list[Validated]]:
        """A file has a document for each of its lines."""
        self.reads += 1
        for one in submissions:
            if not isinstance(one, SubmittedFile):
                yield [one]  # type: ignore[list-item]
                continue
            lines = content_of(one).count(b"\n")
            documents: list[Validated] = [submitted(f"{one.name}{n}") for n in range(lines)]
            yield documents[:50]
            if self.scanning:
                report(Notice(stage="reading", detail="s.pdf: 1 of 2 pages read by OCR"))
                self.hanging.set()
                await self.go_on.wait()
            yield documents[50:]

    async def room(self, collection: str) -> None:
        """There is always some."""

    async def intended(self, collection: str, part: Sequence[Validated]) -> list[str]:
        return [self._status(collection, one) for one in part]

    async def index(
        self,
        collection: str,
        part: Sequence[Validated],
        report: Report = say_nothing,
        overtaken: Overtaken = none_overtaken,
    ) -> list[DocumentResult]:
        self.calls.append((collection, len(part)))
        report(Advanced(bytes=0, documents=0, passages=5))
        if self.errors:
            raise self.errors.pop(0)
        return [await self._put(collection, one, place, overtaken) for place, one in enumerate(part)]

    async def _put(self, collection: str, one: Validated, place: int, overtaken: Overtaken) -> DocumentResult:
        if self.stop_after == place:
            self.hanging.set()
            await self.go_on.wait()
        if isinstance(one, DocumentResult):
            return one
        if self.versions.get((collection, one.id), "") in (await overtaken([one.id])).get(one.id, ()):
            return DocumentResult(id=one.id, source="", status="unchanged")
        status = self._status(collection, one)
        self.versions[collection, one.id] = one.document.content_hash()
        self.written.append(one)
        return DocumentResult(id=one.id, source="", status=status, passages=2)  # type: ignore[arg-type]

    def _status(self, collection: str, one: Validated) -> str:
        if isinstance(one, DocumentResult):
            return "failed"
        earlier = self.versions.get((collection, one.id))
        return "created" if earlier is None else "unchanged" if earlier == one.document.content_hash() else "updated"


@pytest.fixture
def index() -> Index:
    return Index()


class Place:
    """Where jobs are kept: in a directory, or in a database."""

    def __init__(self, home: Path, database: Database | None = None) -> None:
        self.home = home
        self.shared = None if database is None else SharedJobs(SharedSpool(database, home / "jobs"), self._open)
        self._database = database

    async def _open(self) -> JobRecords:
        assert self._database is not None
        return JobRecords(await asyncio.to_thread(PostgresTables, self._database, "jobs", SHARED_MIGRATIONS))


@pytest.fixture
def place(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    if kind == "sqlite":
        yield Place(tmp_path)
        return
    database = Database(request.getfixturevalue("database_url"))
    yield Place(tmp_path, database)
    database.close()


def jobs_of(place: Place, index: Index, **limits: float) -> Jobs:
    return Jobs(place.home, index, DiskGuard(place.home, 0), JobLimits(**limits), place.shared)  # type: ignore[arg-type]


@pytest.fixture
async def jobs(place: Place, index: Index) -> AsyncIterator[Jobs]:
    jobs = jobs_of(place, index)
    yield jobs
    await jobs.close()


async def ended(jobs: Jobs, job: Job) -> Job:
    return await seen(jobs, job, lambda found: found.finished_at is not None)


async def seen(jobs: Jobs, job: Job, what: Callable[[Job], bool]) -> Job:
    """The job as soon as it is like that."""
    async with asyncio.timeout(30):
        while True:
            if what(found := await jobs.find(job.id, EVERYTHING)):
                return found
            await asyncio.sleep(0.001)


async def emptied(directory: Path) -> None:
    """Wait until no upload is left there."""
    async with asyncio.timeout(30):
        while True:
            if not uploads(directory):
                return
            await asyncio.sleep(0.001)


def uploads(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def counts(job: Job) -> tuple[int | None, int, int, int, int, int]:
    return job.documents, job.created, job.updated, job.unchanged, job.failed, job.passages


@both()
async def test_a_job_counts_what_it_did_and_lists_what_failed(jobs: Jobs, index: Index) -> None:
    """In slices, with the times of its beginning and its end."""
    await index.index("c", [submitted("d0"), submitted("d1", "other")])
    job = await jobs.submit("c", [*many(150), FAILED], 1, EVERYTHING)
    assert (job.state, job.documents, job.started_at) == ("queued", 151, None)
    done = await ended(jobs, job)
    assert (done.state, counts(done)) == ("done", (151, 148, 1, 1, 1, 300))
    assert done.errors == (FAILED,)
    assert done.started_at is not None
    assert len(index.calls) > 2


@both()
async def test_files_are_read_once(jobs: Jobs, index: Index) -> None:
    """By the job; the number of documents is known when they are read."""
    job = await jobs.submit("c", [SubmittedFile(writer=EVERYTHING, name="f", data=b"\n" * 70)], 70, EVERYTHING)
    assert job.documents is None
    done = await ended(jobs, job)
    assert (done.documents, done.created, index.reads) == (70, 70, 1)


@both()
async def test_a_job_says_how_far_the_reading_of_a_scan_is(jobs: Jobs, index: Index) -> None:
    """While it is read, and no longer."""
    index.scanning = True
    job = await jobs.submit("c", [SubmittedFile(name="s.pdf", data=b"1\n", writer=EVERYTHING)], 1, EVERYTHING)
    await seen(jobs, job, lambda found: found.detail == "s.pdf: 1 of 2 pages read by OCR")
    index.go_on.set()
    assert (await ended(jobs, job)).detail is None


async def take_large_file(jobs: Jobs, lines: int) -> Job:
    """As the route does."""
    async with jobs.incoming() as incoming:
        path = incoming.new_file()
        incoming.append(path, b"\n" * lines)
        file = SubmittedFile(writer=EVERYTHING, name="f", path=str(path), length=lines)
        return await jobs.submit("c", [submitted("before"), file], lines, EVERYTHING)


@both()
async def test_a_large_file_is_read_in_pieces(place: Place, index: Index) -> None:
    """From where it is kept; nothing of it is left in the directory."""
    jobs = jobs_of(place, index)
    done = await ended(jobs, await take_large_file(jobs, 120))
    assert (done.state, done.documents, done.created) == ("done", 121, 121)
    await emptied(place.home / "jobs")
    await jobs.close()


@both()
@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_a_job_ends_in_the_midst_of_a_large_file(place: Place, index: Index, how: str) -> None:
    """Stopped, it reads the file from its beginning after the restart; cancelled, it leaves nothing."""
    index.scanning = True
    jobs = jobs_of(place, index)
    job = await take_large_file(jobs, 120)
    await index.hanging.wait()
    if how == "cancelled":
        await jobs.cancel(job.id, EVERYTHING)
    await jobs.close()
    index.go_on.set()
    again = jobs_of(place, index)
    again.start()
    done = await ended(again, job)
    assert (done.state, done.created) == (("done", 121) if how == "stopped" else ("cancelled", 0))
    await emptied(place.home / "jobs")
    await again.close()


async def test_what_a_killed_upload_left_is_deleted_at_the_next_start(tmp_path: Path, index: Index) -> None:
    """Its files are of no job."""
    left = tmp_path / "jobs" / "incoming-left"
    left.mkdir(parents=True)
    (left / "1").write_bytes(b"half")
    jobs = jobs_of(Place(tmp_path), index)
    jobs.start()
    await emptied(tmp_path / "jobs")
    await jobs.close()


async def test_a_job_that_was_stopped_in_its_midst_is_continued(tmp_path: Path, index: Index) -> None:
    """A restart goes on where it was, reads no file again, and counts each document once, as what it became."""
    await index.index("c", [submitted("f3", "earlier")])
    index.stop_after = 10
    jobs = jobs_of(Place(tmp_path), index)
    job = await jobs.submit("c", [SubmittedFile(writer=EVERYTHING, name="f", data=b"\n" * 150)], 150, EVERYTHING)
    behind = await jobs.submit("c", many(3, "behind"), 1, EVERYTHING)
    await index.hanging.wait()
    await jobs.close()
    index.stop_after = None
    again = jobs_of(Place(tmp_path), index)
    again.start()
    done = await ended(again, job)
    assert (done.state, counts(done)) == ("done", (150, 149, 1, 0, 0, 300))
    assert (await ended(again, behind)).created == 3
    assert index.reads == 1
    await emptied(tmp_path / "jobs")
    await again.close()


@both()
async def test_a_job_goes_on_for_its_tenant_and_groups_after_a_restart(place: Place, index: Index) -> None:
    """Others neither see nor cancel it before or after, nor a key of the tenant without the group."""
    jobs, owner = jobs_of(place, index), Audience(tenant="b", groups=("hr",))
    guarded = SubmittedDocument(
        writer=owner, tenant="b", id="same", document=Document(text="text", allowed=("hr", "legal"))
    )
    job = await jobs.submit("c", [guarded], 1, owner)
    await jobs.close()
    again = jobs_of(place, index)
    for stranger in (Audience(tenant="a", groups=("hr",)), Audience(tenant="b"), Audience(groups=("hr",))):
        with pytest.raises(NotFound):
            await again.find(job.id, stranger)
        with pytest.raises(NotFound):
            await again.cancel(job.id, stranger)
    again.start()
    assert (await ended(again, job)).created == 1
    assert index.written == [guarded]
    assert (await again.find(job.id, owner)).state == "done"
    await again.close()


@both()
async def test_jobs_of_a_collection_run_in_order_and_those_of_several_side_by_side(place: Place, index: Index) -> None:
    """No more than the limit at once."""
    jobs = jobs_of(place, index, at_once=2)
    index.stop_after = 0
    first, second, beside, waiting = [
        await jobs.submit(name, many(65, name), 1, EVERYTHING) for name in ("a", "a", "b", "c")
    ]
    for job in (first, beside):
        await seen(jobs, job, lambda found: found.state == "running")
    assert [(await jobs.find(job.id, EVERYTHING)).state for job in (second, waiting)] == ["queued"] * 2
    index.go_on.set()
    done = [await ended(jobs, job) for job in (first, second, beside, waiting)]
    assert [(job.state, job.created) for job in done] == [("done", 65), ("done", 0), ("done", 65), ("done", 65)]
    assert done[1].started_at >= done[0].finished_at  # type: ignore[operator]
    await jobs.close()


@both()
async def test_the_count_of_passages_moves_within_a_document(jobs: Jobs, index: Index) -> None:
    """A book is one document: what is embedded of it counts, and tells how long the rest will take."""
    index.stop_after = 0
    job = await jobs.submit("c", [submitted("book", "word " * 115_200)], 1, EVERYTHING)
    running = await seen(jobs, job, lambda found: found.passages > 0)
    assert (running.created, running.passages) == (0, 5)
    assert running.seconds_left is not None
    index.go_on.set()
    assert (await ended(jobs, job)).passages == 2


@both()
async def test_a_queued_job_is_cancelled(jobs: Jobs, index: Index) -> None:
    """It writes nothing; the others go on."""
    index.stop_after = 0
    running = await jobs.submit("c", many(2, "running"), 1, EVERYTHING)
    queued = await jobs.submit("c", many(2, "queued"), 1, EVERYTHING)
    await index.hanging.wait()
    await jobs.cancel(queued.id, EVERYTHING)
    assert (await jobs.find(queued.id, EVERYTHING)).state == "cancelled"
    assert (await jobs.find(running.id, EVERYTHING)).state == "running"
    assert not [key for key in index.versions if "queued" in key[1]]


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_running_job_is_cancelled(jobs: Jobs, index: Index, tmp_path: Path) -> None:
    """What it has written stays; the next one of its collection begins."""
    index.stop_after = 1
    running = await jobs.submit("c", many(2, "running"), 1, EVERYTHING)
    behind = await jobs.submit("c", many(2, "behind"), 1, EVERYTHING)
    await index.hanging.wait()
    index.stop_after = None
    await jobs.cancel(running.id, EVERYTHING)
    cancelled = await jobs.find(running.id, EVERYTHING)
    assert (cancelled.state, cancelled.seconds_left) == ("cancelled", None)
    assert ("c", "running0") in index.versions
    assert (await ended(jobs, behind)).created == 2
    await emptied(tmp_path / "jobs")


@both()
async def test_a_finished_job_is_forgotten_when_it_is_cancelled(jobs: Jobs) -> None:
    """Then it is not found, like one that never was."""
    job = await jobs.submit("c", many(1), 1, EVERYTHING)
    await ended(jobs, job)
    await jobs.cancel(job.id, EVERYTHING)
    for unknown in (job.id, "nope"):
        with pytest.raises(NotFound):
            await jobs.find(unknown, EVERYTHING)
        with pytest.raises(NotFound):
            await jobs.cancel(unknown, EVERYTHING)


@both()
async def test_the_jobs_of_a_collection_that_is_deleted_end(jobs: Jobs, index: Index) -> None:
    """They would bring it back; those of others go on."""
    index.stop_after = 0
    doomed = [await jobs.submit("c", many(2), 1, EVERYTHING) for _ in range(2)]
    other = await jobs.submit("o", many(2), 1, EVERYTHING)
    await index.hanging.wait()
    await jobs.cancel_all("c")
    assert [(await jobs.find(job.id, EVERYTHING)).state for job in doomed] == ["cancelled"] * 2
    assert (await jobs.find(other.id, EVERYTHING)).state in ("queued", "running")


@both()
async def test_a_cancelled_job_is_not_continued(place: Place, index: Index) -> None:
    """It stays cancelled after a restart, also where no service runs while it is cancelled."""
    index.stop_after = 0
    jobs = jobs_of(place, index)
    job = await jobs.submit("c", many(2), 1, EVERYTHING)
    await index.hanging.wait()
    await jobs.close()
    idle = jobs_of(place, index)
    assert (await idle.find(job.id, EVERYTHING)).state == "queued"
    await idle.cancel(job.id, EVERYTHING)
    await idle.close()
    index.stop_after = None
    again = jobs_of(place, index)
    again.start()
    await ended(again, await again.submit("c", many(1, "after"), 1, EVERYTHING))
    assert (await again.find(job.id, EVERYTHING)).state == "cancelled"
    assert set(index.versions) == {("c", "after0")}
    await again.close()


@pytest.mark.parametrize("damage", ["missing", "changed", "cut"])
async def test_a_damaged_upload_fails_its_job(tmp_path: Path, index: Index, damage: str) -> None:
    """With a line that says what to do; what was indexed before stays, and the next job runs."""
    index.stop_after = 0
    jobs = jobs_of(Place(tmp_path), index)
    job = await jobs.submit("c", many(100), 1, EVERYTHING)
    behind = await jobs.submit("c", many(1, "behind"), 1, EVERYTHING)
    await index.hanging.wait()
    await jobs.close()
    path = tmp_path / "jobs" / f"{job.id}.submissions"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-30] if damage == "cut" else data[:-30] + b"x" * 30)
    index.stop_after = None
    again = jobs_of(Place(tmp_path), index)
    again.start()
    failed = await ended(again, job)
    assert failed.state == "failed"
    assert "upload them again" in (failed.detail or "")
    assert (await ended(again, behind)).state == "done"
    await again.close()


async def test_jobs_outlive_their_records(tmp_path: Path, index: Index) -> None:
    """A damaged file is moved away, and what was not indexed is taken up again from the uploads."""
    index.stop_after = 0
    jobs = jobs_of(Place(tmp_path), index)
    job = await jobs.submit("c", many(3), 1, EVERYTHING)
    behind = await jobs.submit("c", [SubmittedFile(writer=EVERYTHING, name="f", data=b"\n\n")], 1, EVERYTHING)
    await index.hanging.wait()
    await jobs.close()
    index.stop_after = None
    damage(tmp_path / "jobs.sqlite3")
    again = jobs_of(Place(tmp_path), index)
    again.start()
    await seen_soon(again, job)
    done = [await ended(again, one) for one in (job, behind)]
    assert [(one.state, one.created, one.collection) for one in done] == [("done", 3, "c"), ("done", 2, "c")]
    assert [path.read_bytes()[:2] for path in (tmp_path / "quarantine").iterdir()] == [b"no"]
    await again.close()


def damage(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}-*"):
        each.unlink()
    path.write_bytes(b"no database " * 1000)


async def seen_soon(jobs: Jobs, job: Job) -> None:
    """Wait until it is known."""
    async with asyncio.timeout(30):
        while True:
            if any(one.id == job.id for one in (await jobs.page(EVERYTHING, limit=10)).jobs):
                return
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_an_upload_is_private_and_there_before_the_job_is_taken(tmp_path: Path, jobs: Jobs, index: Index) -> None:
    """Only the user who runs the service can read it."""
    index.stop_after = 0
    job = await jobs.submit("c", many(1), 1, EVERYTHING)
    (path,) = (tmp_path / "jobs").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert job.id in path.name


async def test_no_job_is_taken_on_a_full_disk(tmp_path: Path, index: Index) -> None:
    """DiskFull, and nothing of it is left."""
    jobs = Jobs(tmp_path, index, DiskGuard(tmp_path, 10**18))  # type: ignore[arg-type]
    with pytest.raises(DiskFull):
        await jobs.submit("c", many(1), 1, EVERYTHING)
    assert (await jobs.page(EVERYTHING, limit=10)).jobs == []
    await jobs.close()


@both()
async def test_a_job_waits_while_the_store_is_away(place: Place, index: Index) -> None:
    """It says so, and goes on by itself: it was promised to be done."""
    index.errors = [StoreUnavailable("the store is away")]
    jobs = jobs_of(place, index, retry_s=0.05)
    job = await jobs.submit("c", many(2), 1, EVERYTHING)
    waiting = await seen(jobs, job, lambda found: found.detail is not None)
    assert (waiting.state, waiting.detail) == ("queued", "waiting: the store is away")
    done = await ended(jobs, job)
    assert (done.state, done.created, done.detail) == ("done", 2, None)
    await jobs.close()


@pytest.mark.parametrize(
    ("error", "says"), [(InvalidRequest("the collection is odd"), "is odd"), (KeyError("secret"), "log")]
)
@both()
async def test_a_job_that_fails_says_why(jobs: Jobs, index: Index, error: Exception, says: str) -> None:
    """Our own errors with their text, a programmer's without; the next job runs all the same."""
    index.errors = [error]
    failed, after = await jobs.submit("c", many(1), 1, EVERYTHING), await jobs.submit("c", many(1), 1, EVERYTHING)
    job = await ended(jobs, failed)
    assert (job.state, (await ended(jobs, after)).state) == ("failed", "done")
    assert says in (job.detail or "")
    assert "secret" not in (job.detail or "")


@both()
async def test_errors_are_bounded_and_counts_are_not(jobs: Jobs) -> None:
    """The first thousand failures are listed, all are counted."""
    job = await ended(jobs, await jobs.submit("c", [FAILED] * 1600, 1, EVERYTHING))
    assert (job.failed, len(job.errors)) == (1600, MAX_ERRORS)


@both()
async def test_unfinished_jobs_are_bounded_by_count_and_by_bytes(place: Place, index: Index) -> None:
    """Overloaded beyond either; a job that is alone is always taken; there is room again when one ends."""
    index.stop_after = 0
    jobs = jobs_of(place, index, unfinished=2, bytes=100)
    large = await jobs.submit("c", many(1), 1000, EVERYTHING)
    with pytest.raises(Overloaded) as refused:
        await jobs.submit("c", many(1), 1, EVERYTHING)
    assert refused.value.retry_after > 0
    await jobs.cancel(large.id, EVERYTHING)
    for _ in range(2):
        await jobs.submit("c", many(1), 1, EVERYTHING)
    with pytest.raises(Overloaded):
        await jobs.submit("c", many(1), 1, EVERYTHING)
    await jobs.close()


@both()
async def test_the_oldest_finished_jobs_are_forgotten(place: Place, index: Index) -> None:
    """Never one that is still to run."""
    jobs = jobs_of(place, index, remembered=2)
    finished = [await jobs.submit("c", many(1), 1, EVERYTHING) for _ in range(4)]
    for job in finished[2:]:  # one of the others may be forgotten before it is asked for
        await ended(jobs, job)
    index.stop_after = 0
    unfinished = [await jobs.submit("c", many(1), 1, EVERYTHING) for _ in range(3)]
    await index.hanging.wait()  # the end of the job before is complete then
    listed = [job.id for job in (await jobs.page(EVERYTHING, limit=10)).jobs]
    assert listed == [job.id for job in reversed([*finished[2:], *unfinished])]
    await jobs.close()


@both()
async def test_jobs_are_listed_newest_first(jobs: Jobs) -> None:
    """Page by page, of one state and one collection."""
    submitted_jobs = [await jobs.submit(name, many(1), 1, EVERYTHING) for name in ("a", "b", "a", "b", "a")]
    for job in submitted_jobs:
        await ended(jobs, job)
    newest_first = [job.id for job in reversed(submitted_jobs)]
    seen, cursor = [], ""
    while True:
        page = await jobs.page(EVERYTHING, cursor=cursor, limit=2)
        seen += [job.id for job in page.jobs]
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert seen == newest_first
    assert [job.collection for job in (await jobs.page(EVERYTHING, limit=9, collection="b", state="done")).jobs] == [
        "b",
        "b",
    ]
    assert (await jobs.page(EVERYTHING, limit=9, state="failed")).jobs == []
    with pytest.raises(InvalidRequest):
        await jobs.page(EVERYTHING, cursor="x", limit=2)


@both()
async def test_a_job_leaves_alone_what_was_written_after_it_had_come(jobs: Jobs, index: Index) -> None:
    """Also what it would have made anew: it was deleted. In its own collection, and only the jobs that came earlier."""
    index.stop_after = 1
    first = await jobs.submit("c", many(4), 1, EVERYTHING)
    elsewhere = await jobs.submit("other", many(4), 1, EVERYTHING)
    await index.hanging.wait()
    await jobs.overtake("c", {"d2": "", "d3": "theirs"})
    index.versions["c", "d3"] = "theirs"
    later = await jobs.submit("c", [submitted("d3", "later")], 1, EVERYTHING)
    index.go_on.set()
    assert counts(await ended(jobs, first))[:4] == (4, 2, 0, 2)
    assert counts(await ended(jobs, later))[:3] == (1, 0, 1)
    assert (await ended(jobs, elsewhere)).created == 4
    assert ("c", "d2") not in index.versions
    assert index.versions["c", "d3"] == submitted("d3", "later").document.content_hash()


@both()
async def test_what_was_overtaken_stays_so_after_a_restart(place: Place, index: Index) -> None:
    """Though the slice of the job had been begun, and its document may have been written, before the process ended."""
    index.stop_after = 1
    before = jobs_of(place, index)
    job = await before.submit("c", many(3), 1, EVERYTHING)
    await index.hanging.wait()
    await before.overtake("c", {"d0": "", "d2": ""})
    await before.close()
    del index.versions["c", "d0"]  # as a deletion does
    index.stop_after = None
    after = jobs_of(place, index)
    after.start()
    assert counts(await ended(after, job))[:4] == (3, 1, 0, 2)
    await after.close()
    assert sorted(index.versions) == [("c", "d1")]


async def test_jobs_are_continued_as_soon_as_their_file_can_be_used(tmp_path: Path, index: Index) -> None:
    """Without a restart, and without waiting for the next upload."""
    index.stop_after = 1
    before = jobs_of(Place(tmp_path), index)
    job = await before.submit("c", many(3), 1, EVERYTHING)
    await index.hanging.wait()
    await before.close()
    index.stop_after = None
    file = tmp_path / JOBS_FILE
    hidden = file.rename(tmp_path / "elsewhere")
    file.mkdir()  # nothing that SQLite could open
    after = jobs_of(Place(tmp_path), index, retry_s=0.01)
    after.start()
    with pytest.raises(StoreUnavailable):
        await after.find(job.id, EVERYTHING)
    file.rmdir()
    hidden.rename(file)
    assert (await ended(after, job)).state == "done"
    await after.close()


@both()
async def test_nobody_is_overtaken_where_no_job_waits(jobs: Jobs, index: Index) -> None:
    """What was noted for jobs that have ended is no bar to those that come."""
    await jobs.overtake("c", {"d0": ""})
    for _ in range(2):
        assert (await ended(jobs, await jobs.submit("c", many(2), 1, EVERYTHING))).failed == 0
        await jobs.overtake("c", {"d0": "", "d1": ""})
        index.versions.clear()
    await ended(jobs, await jobs.submit("c", many(2), 1, EVERYTHING))
    assert sorted(index.versions) == [("c", "d0"), ("c", "d1")]


async def test_looking_for_faults_takes_nothing_over(tmp_path: Path, index: Index) -> None:
    """A replica whose readiness is asked for leaves the records to the one that has them, and sees no fault in that."""
    asked = []

    async def taken() -> JobRecords:
        asked.append("to take over")
        raise IndexBusy("another replica writes to the index")

    guard = DiskGuard(tmp_path, 0)
    standby = Jobs(tmp_path, index, guard, shared=SharedJobs(Spool(tmp_path / "jobs", guard), taken))  # type: ignore[arg-type]
    assert (await standby.fault(), asked) == (None, [])
    await standby.close()


async def test_a_standby_does_not_use_up_the_patience_with_failures(tmp_path: Path, index: Index) -> None:
    """However often another replica was there, and however long the database is away, it looks again soon."""
    guard, records = DiskGuard(tmp_path, 0), JobRecords.in_file(tmp_path / JOBS_FILE, tmp_path / "quarantine")
    looks: list[Exception] = [IndexBusy("another replica writes"), StoreUnavailable("the database is away")] * 15
    looks += [StoreUnavailable("the database is away")] * 15

    async def opened() -> JobRecords:
        if looks:
            raise looks.pop(0)
        return records

    shared = SharedJobs(Spool(tmp_path / "jobs", guard), opened)
    limits = JobLimits(retry_s=0.02, standby_s=0)
    standby = Jobs(tmp_path, index, guard, limits, shared)  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        standby.start()
        while standby._records.opened is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await standby.close()
