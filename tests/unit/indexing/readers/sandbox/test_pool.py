"""The reader process: whatever happens in it, the run goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from indexing.documents import Document, Refused
from indexing.errors import UnreadableDocument
from indexing.readers import ReadLimits
from indexing.readers.sandbox.pool import ReaderPool
from tests.unit.indexing.readers.making import pdf, workbook, zipped

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).resolve().parents[5]
MISBEHAVING = "tests.fakes.misbehaving_reader"


async def refusal(pool: ReaderPool, source: Path | bytes, name: str) -> UnreadableDocument:
    """How the pool refuses."""
    with pytest.raises(UnreadableDocument) as caught:
        await pool.read(source, name)
    return caught.value


async def process_id(pool: ReaderPool) -> int:
    """The id of a misbehaving reader's process, which it gives as text."""
    (document,) = await pool.read(b"", "behave")
    return int(document.text)


def is_alive(process: int) -> bool:
    """True while the process runs; a zombie does not."""
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


async def test_files_and_bytes_are_read(tmp_path: Path) -> None:
    """Both give the documents that `read` gives, with all their fields."""
    file = tmp_path / "böök.xlsx"
    file.write_bytes(workbook(S=[("a", "b"), (1, 2)]))
    async with ReaderPool() as pool:
        (from_file,) = await pool.read(file, file.name)
        (from_bytes,) = await pool.read(file.read_bytes(), file.name)
    assert from_file == from_bytes
    assert from_file.text == "S\n\na | b\n1 | 2"
    assert from_file.blocks[1].header


async def test_a_crash_in_an_archive_loses_one_member() -> None:
    """The reader is started again without it, also for an archive in the archive; after many it gives up."""
    inner = zipped({"crash.txt": "x", "b.txt": "Beta."})
    archive = zipped({"a.txt": "Alpha.", "crash.txt": "x", "inner.zip": inner, "c.txt": "Gamma."})
    async with ReaderPool(child=MISBEHAVING) as pool:
        parts = await pool.read(archive, "all.zip")
        assert [part.text for part in parts if isinstance(part, Document)] == ["Alpha.", "Beta.", "Gamma."]
        refused = [(part.part, part.reason) for part in parts if isinstance(part, Refused)]
        assert refused == [("/crash.txt", "crashed"), ("/inner.zip/crash.txt", "crashed")]
        many = zipped({f"{number}/crash.txt": "x" for number in range(9)})
        assert (await refusal(pool, many, "many.zip")).reason == "crashed"


async def test_large_documents_pass_the_pipes() -> None:
    """More than any pipe holds goes in and comes out."""
    text = "0123456789abcde\n" * 500_000
    async with ReaderPool() as pool:
        (document,) = await pool.read(text.encode(), "large.txt")
    assert document.text == text


async def test_the_pages_of_a_scan_are_reported_as_they_are_read() -> None:
    """Before the documents come; those of the next file are not mixed with them."""
    pages: list[tuple[int, int]] = []
    async with ReaderPool(child=MISBEHAVING) as pool:
        (document,) = await pool.read(b"", "scan", on_page=lambda *page: pages.append(page))
        assert await process_id(pool) == int(document.text)
    assert pages == [(1, 3), (2, 3)]


async def test_the_pages_of_a_scan_are_reported_before_each_piece() -> None:
    """Those of a later piece when it is asked for."""
    pages: list[tuple[int, int]] = []
    async with ReaderPool(child=MISBEHAVING) as pool:
        taken = pool.pieces(Path("any"), "scan in pieces", on_page=lambda *page: pages.append(page))
        async with aclosing(taken) as pieces:
            assert (await anext(pieces)).more
            assert pages == [(1, 3), (2, 3)]
            assert not (await anext(pieces)).more
            assert pages == [(1, 3), (2, 3), (3, 3)]


async def test_a_crash_in_a_large_mailbox_loses_its_attachment(tmp_path: Path) -> None:
    """Whatever piece it is in: the mails before it do not come twice, and those after it come."""
    path = tmp_path / "large.mbox"
    path.write_bytes(b"".join(mail(number) for number in range(20)))
    found: list[list[str]] = []
    refused: list[tuple[str, str]] = []
    async with ReaderPool(child=MISBEHAVING) as pool, aclosing(pool.pieces(path, path.name)) as pieces:
        async for piece in pieces:
            found.append([document.title for document in piece.documents])
            refused += [(part.part, part.reason) for part in piece.refused]
    titles = [title for piece in found for title in piece]
    assert [title for title in titles if title.startswith("Mail")] == [f"Mail {number}" for number in range(20)]
    assert titles.count("note") == 18
    assert refused == [("#6/5-crash.txt", "crashed"), ("#16/15-crash.txt", "crashed")]
    assert len([piece for piece in found if piece]) > 5


def mail(number: int) -> bytes:
    """Half a megabyte with a small attachment; every tenth has one that kills the reader."""
    name = f"{number}-crash.txt" if number % 10 == 5 else "note.txt"
    lines = (
        "From me@example.org Mon Nov 23 10:00:00 2026",
        f"Subject: Mail {number}",
        "From: me@example.org",
        'Content-Type: multipart/mixed; boundary="b"',
        "",
        "--b",
        "Content-Type: text/plain",
        "",
        "Some text.\n" * 45_000,
        "--b",
        "Content-Type: text/plain",
        f'Content-Disposition: attachment; filename="{name}"',
        "",
        f"Attached to {number}.",
        "--b--",
        "",
        "",
    )
    return "\n".join(lines).encode()


async def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    """Missing, a directory, a pipe, too large: each has its reason, and none of them blocks."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large.txt").write_bytes(b"x" * 2000)
    async with ReaderPool(ReadLimits(max_bytes=1000)) as pool:
        reasons = [
            (await refusal(pool, tmp_path / name, name)).reason for name in ("missing.txt", ".", "pipe", "large.txt")
        ]
    assert reasons == ["not_found", "not_a_file", "not_a_file", "too_large"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
async def test_a_file_without_permission(tmp_path: Path) -> None:
    """It is refused as such."""
    (tmp_path / "a.txt").write_bytes(b"secret")
    (tmp_path / "a.txt").chmod(0)
    async with ReaderPool() as pool:
        assert (await refusal(pool, tmp_path / "a.txt", "a.txt")).reason == "permission"


@pytest.mark.parametrize("name", ["hang", "spin"])
async def test_a_reader_that_hangs_is_replaced(name: str) -> None:
    """It is killed when its time is over, and the next file is read by another process."""
    async with ReaderPool(ReadLimits(max_seconds=0.3), child=MISBEHAVING) as pool:
        first = await process_id(pool)
        assert (await refusal(pool, b"", name)).reason == "timeout"
        assert await process_id(pool) != first
    assert not is_alive(first)


@pytest.mark.parametrize(("name", "cause"), [("crash", f"signal {int(signal.SIGABRT)}"), ("exit", "exit status 3")])
async def test_a_reader_that_dies_is_replaced(name: str, cause: str) -> None:
    """The refusal says how it died, and the next file is read."""
    async with ReaderPool(child=MISBEHAVING) as pool:
        error = await refusal(pool, b"", name)
        assert error.reason == "crashed"
        assert cause in error.detail
        assert await process_id(pool)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.05])
async def test_a_reader_that_dies_between_files_is_replaced(seconds: float) -> None:
    """The file that comes next does not suffer for it, however fresh the death is."""
    async with ReaderPool(child=MISBEHAVING) as pool:
        first = await process_id(pool)
        for _ in range(3):
            os.kill(first, signal.SIGKILL)
            await anyio.sleep(seconds)
            second = await process_id(pool)
            assert second != first
            first = second


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")
async def test_a_reader_that_eats_memory_is_stopped() -> None:
    """The process may not take more than its limit."""
    async with ReaderPool(ReadLimits(max_memory_bytes=2**30), child=MISBEHAVING) as pool:
        assert (await refusal(pool, b"", "eat")).reason == "memory"
    async with ReaderPool(ReadLimits(max_memory_bytes=400 * 2**20)) as pool:
        assert (await refusal(pool, b"x\n" * 30_000_000, "large.txt")).reason == "memory"
        (document,) = await pool.read(b"hello", "small.txt")
    assert document.text == "hello"


async def test_what_libraries_print_does_no_harm() -> None:
    """Standard output of the process is not the pipe of replies."""
    async with ReaderPool(child=MISBEHAVING) as pool:
        (document,) = await pool.read(b"", "print")
    assert document.text.isdigit()


async def test_the_processes_end_with_the_pool() -> None:
    """None is left behind."""
    async with ReaderPool(child=MISBEHAVING) as pool:
        process = await process_id(pool)
    assert not is_alive(process)


async def test_a_cancelled_read_leaves_no_work_behind() -> None:
    """The process stops with the caller; its late reply cannot be taken for the next file's."""
    async with ReaderPool(child=MISBEHAVING) as pool:
        first = await process_id(pool)
        with anyio.move_on_after(0.2):
            await pool.read(b"", "hang")
        assert await process_id(pool) != first
    assert not is_alive(first)


async def test_several_files_at_once() -> None:
    """With `size` two, files are read while another hangs."""
    async with (
        ReaderPool(ReadLimits(max_seconds=3600), size=2, child=MISBEHAVING) as pool,
        anyio.create_task_group() as group,
    ):
        group.start_soon(pool.read, b"", "hang")
        for _ in range(3):
            assert await process_id(pool)
        group.cancel_scope.cancel()


async def test_a_slow_real_file_runs_into_the_limit() -> None:
    """The limit holds for the real reader, which is inside a C library most of the time."""
    data = pdf(*[[(72, 72 + 10 * row, "many words on every line " * 3) for row in range(70)]] * 40)
    async with ReaderPool(ReadLimits(max_seconds=0.05)) as pool:
        assert (await refusal(pool, data, "slow.pdf")).reason == "timeout"


async def test_a_reader_that_dies_in_the_middle_of_a_file_is_replaced() -> None:
    """What it has handed over came once, and the file is refused."""
    async with ReaderPool(child=MISBEHAVING) as pool:
        first = await process_id(pool)
        async with aclosing(pool.pieces(Path("any"), "crash in the middle")) as pieces:
            assert [document.text for document in (await anext(pieces)).documents] == [str(first)]
            with pytest.raises(UnreadableDocument, match="crashed"):
                await anext(pieces)
        assert await process_id(pool) != first


async def test_a_file_that_nobody_wants_to_its_end_is_left_there() -> None:
    """The process is replaced, and what it had still to hand over cannot be taken for the next file's."""
    async with ReaderPool(child=MISBEHAVING) as pool:
        async with aclosing(pool.pieces(Path("any"), "endless")) as pieces:
            first = int((await anext(pieces)).documents[0].text)
        assert await process_id(pool) != first
    assert not is_alive(first)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_large_file_of_records_is_never_held(tmp_path: Path) -> None:
    """The process needs less memory than the file has bytes, and so does what it hands over at a time."""
    record = json.dumps({"text": "word " * 800}) + "\n"
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for _ in range(25):
            file.write(record * 1000)
    size, count, largest, peak = path.stat().st_size, 0, 0, 0
    async with ReaderPool() as pool, aclosing(pool.pieces(path, path.name)) as pieces:
        async for piece in pieces:
            count += len(piece.documents)
            largest = max(largest, sum(len(document.text) for document in piece.documents))
            peak = max(peak, peak_memory())
    assert (count, size > 100_000_000) == (25_000, True)
    assert largest < 4 * 2**20
    assert peak < 100_000_000


def peak_memory() -> int:
    """Bytes that the one child of this process has needed at most."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    peaks = [re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{child}/status").read_text()) for child in children]
    return max((1024 * int(found[1]) for found in peaks if found), default=0)


def _parent(name: str) -> tuple["subprocess.Popen[str]", int]:
    """A process that has a reader busy with `name`, and the reader's id."""
    program = (
        "import asyncio\n"
        "from indexing.readers.sandbox.pool import ReaderPool\n"
        "async def main():\n"
        f"    async with ReaderPool(child={MISBEHAVING!r}) as pool:\n"
        "        (document,) = await pool.read(b'', 'behave')\n"
        "        print(document.text, flush=True)\n"
        f"        await pool.read(b'', {name!r})\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.mark.parametrize("busy_with", ["behave", "hang"])
def test_a_killed_parent_takes_its_readers_along(busy_with: str) -> None:
    """Idle or busy, a reader is gone soon after its parent was killed without a chance to tidy up."""
    parent, reader = _parent(busy_with)
    with parent:
        parent.kill()
        parent.communicate()
    deadline = time.monotonic() + 60
    while is_alive(reader) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(reader)


def test_ctrl_c_is_the_parents_business() -> None:
    """The signal of a terminal ends the parent; readers print no traceback and do not outlive it."""
    parent, reader = _parent("hang")
    with parent:
        parent.send_signal(signal.SIGINT)
        _, errors = parent.communicate(timeout=60)
    assert "child.py" not in errors
    assert "misbehaving_reader" not in errors
    assert not is_alive(reader)


def test_the_process_starts_light() -> None:
    """Before it knows what it will read, a reader loads neither format libraries nor anything of the service."""
    heavy = ["torch", "sentence_transformers", "litestar", "lxml", "openpyxl", "pypdfium2", "markdown_it", "numpy"]
    program = f"import sys, indexing.readers.sandbox.child; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True).strip() == "[]"
