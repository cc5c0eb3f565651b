"""Readers in processes of their own: a file may hang, crash or use up memory, and only that file is lost."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType

import msgspec

from indexing.documents import Document, Image, Refused
from indexing.errors import UnreadableDocument
from indexing.readers.limits import OnPage, ReadLimits, ignore_pages
from indexing.readers.sandbox.child import LENGTH, Reply, Request, Shown, framed

_START_SECONDS = 60.0
_MOST_CRASHES = 8
"""Files in one file that processes may die of."""
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])


def _command(child: str) -> tuple[str, ...]:
    # -P keeps the working directory, where a stray email.py may lie, off the import path.
    start = f"import sys; sys.path.insert(0, sys.argv[1]); from {child} import main; main()"
    return (sys.executable, "-P", "-c", start, _PACKAGE_ROOT)


class ReaderPool:
    """`size` reader processes, started when first needed and kept. Use as an async context manager, or `close` it."""

    def __init__(
        self, limits: ReadLimits | None = None, size: int = 1, child: str = "indexing.readers.sandbox.child"
    ) -> None:
        """`child` is the module whose `main` serves in the process."""
        self._limits = limits or ReadLimits()
        self._processes = [_ReaderProcess(self._limits, _command(child)) for _ in range(max(1, size))]
        self._idle: asyncio.LifoQueue[_ReaderProcess] = asyncio.LifoQueue()
        for process in self._processes:
            self._idle.put_nowait(process)

    async def __aenter__(self) -> "ReaderPool":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the processes."""
        await asyncio.gather(*(process.close() for process in self._processes))

    async def read(
        self, source: Path | bytes, name: str, media_type: str | None = None, on_page: OnPage = ignore_pages
    ) -> list[Document | Refused]:
        """What `readers.read` returns for a file or for bytes, documents first. Raises UnreadableDocument."""
        if isinstance(source, bytes):
            reply = await self._ask(Request(name, media_type, data=source), on_page)
            return [*reply.documents, *reply.refused]
        documents, refused = list[Document](), list[Refused]()
        async with contextlib.aclosing(self.pieces(source, name, media_type, on_page)) as pieces:
            async for piece in pieces:
                documents += piece.documents
                refused += piece.refused
        return [*documents, *refused]

    async def pieces(
        self, path: Path, name: str, media_type: str | None = None, on_page: OnPage = ignore_pages
    ) -> AsyncGenerator[Reply]:
        """What is in a file, a large one of records piece by piece: no more is read than is taken.

        Raises UnreadableDocument, after some pieces too. Close it (`contextlib.aclosing`).
        """
        process = await self._idle.get()
        more = False
        try:
            reply = await process.ask(Request(name, media_type, path=os.fsencode(path)), on_page)
            while True:
                more = reply.more
                yield _check(reply)
                if not more:
                    return
                reply = await process.more(on_page)
        finally:
            if more:
                process.kill()  # it is in the middle of a file
            self._idle.put_nowait(process)

    async def pictures(self, data: bytes, pages: tuple[int, ...] | None, most: int) -> list[Image]:
        """What `indexing.readers.pictures.pictures_of` returns. Raises UnreadableDocument, also for a timeout."""
        return (await self._ask(Request("", None, data=data, shown=Shown(pages, most)))).images

    async def _ask(self, request: Request, on_page: OnPage = ignore_pages) -> Reply:
        process = await self._idle.get()
        try:
            reply = await process.ask(request, on_page)
        finally:
            self._idle.put_nowait(process)
        return _check(reply)


def _check(reply: Reply) -> Reply:
    """The reply, or the refusal that it is."""
    if reply.reason:
        raise UnreadableDocument(reply.reason, reply.detail)
    return reply


class _ReaderCrashed(UnreadableDocument):
    """The process ended while it had the file; `part` is the file in it that was being read, if there are such."""

    def __init__(self, detail: str, part: str) -> None:
        super().__init__("crashed", detail)
        self.part = part


class _ReaderProcess:
    """One child process at a time: one that fails is killed, and the next request starts another."""

    def __init__(self, limits: ReadLimits, command: tuple[str, ...]) -> None:
        self._limits = limits
        self._command = command
        self._process: Process | None = None
        self._begun = ""
        """The file in the file that the process is reading."""
        self._request = Request("", None)
        self._taken = 0
        """How many replies to the request have been handed over."""
        self._ending: set[asyncio.Future[object]] = set()

    async def ask(self, request: Request, on_page: OnPage) -> Reply:
        """One request, and the first reply to it. Raises UnreadableDocument.

        A process that served before may have died of something else, before or while it had the file: only a fresh
        process's death is the file's fault. Of a file in a file it is that one's: the others are read without it.
        """
        self._request, self._taken = request, 0
        if self._process is not None:
            with contextlib.suppress(_ReaderCrashed):
                return await self._exchanged(framed(request), on_page)
        return await self._survived(on_page)

    async def more(self, on_page: OnPage) -> Reply:
        """The next reply, after one that says that there is another. Raises UnreadableDocument."""
        self._taken += 1
        try:
            return await self._exchanged(b"", on_page)
        except _ReaderCrashed as crash:
            self._leave_out(crash)
        return await self._survived(on_page)

    async def _survived(self, on_page: OnPage) -> Reply:
        """The reply that is due, of a process that reads from the start: what was taken before comes again."""
        while True:
            try:
                reply = await self._exchanged(framed(self._request), on_page)
                for _ in range(self._taken):
                    if not reply.more:
                        break
                    reply = await self._exchanged(b"", on_page)
                return reply
            except _ReaderCrashed as crash:
                self._leave_out(crash)

    def _leave_out(self, crash: _ReaderCrashed) -> None:
        """Ask without the file in the file that a process died of. Raises the crash if there is none."""
        if not crash.part or len(self._request.crashed) >= _MOST_CRASHES:
            raise crash
        self._request = msgspec.structs.replace(self._request, crashed=self._request.crashed | {crash.part})

    async def _exchanged(self, message: bytes, on_page: OnPage) -> Reply:
        """Any failure, a cancellation too, ends the process: its pipes are out of step."""
        self._begun = ""
        try:
            process = await self._started()
            try:
                async with asyncio.timeout(self._limits.max_seconds):
                    reply = await _exchange(process, message)
                    while reply.begun or reply.by_ocr:
                        if reply.by_ocr:
                            on_page(*reply.by_ocr)
                        self._begun = reply.begun or self._begun
                        reply = await _received(process)
                    return reply
            except TimeoutError as exc:
                raise UnreadableDocument(
                    "timeout", f"Reading it takes longer than the {self._limits.max_seconds:g} s allowed."
                ) from exc
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            raise await self._crash_report() from exc
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill the process, if there is one. Does not wait: it must work while the caller is being cancelled."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what it has started, such as OCR
        self._ending.add(asyncio.ensure_future(process.communicate()))

    async def close(self) -> None:
        """Kill the process, and wait until every one that was ever started has ended, with its pipes."""
        self.kill()
        await asyncio.gather(*self._ending, return_exceptions=True)
        self._ending.clear()

    async def _started(self) -> Process:
        if self._process is None:
            # A session of its own: Ctrl-C at the terminal reaches the parent alone, which then ends its children.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL, start_new_session=True
            )
            async with asyncio.timeout(_START_SECONDS):
                await _exchange(self._process, framed(self._limits))
        return self._process

    async def _crash_report(self) -> "_ReaderCrashed":
        process = self._process
        code = await process.wait() if process is not None else None
        self.kill()
        cause = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        return _ReaderCrashed(f"The reader crashed on it ({cause}); the file may be damaged.", self._begun)


async def _exchange(process: Process, message: bytes) -> Reply:
    """Send a message and wait for its reply."""
    if process.stdin is None:
        raise ConnectionError("the reader process has no pipes")
    process.stdin.write(message)
    await process.stdin.drain()
    return await _received(process)


async def _received(process: Process) -> Reply:
    if process.stdout is None:
        raise ConnectionError("the reader process has no pipes")
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    return msgspec.msgpack.decode(await process.stdout.readexactly(length), type=Reply)
