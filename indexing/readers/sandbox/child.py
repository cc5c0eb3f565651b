"""The child process that reads files, and the messages between it and its parent.

    parent -> child    ReadLimits, once; then a Request for each file
    child -> parent    an empty Reply when it is ready; for each Request one for each file in its file and for each page
                       of a scan, then its own: one, or several of which the last has no `more`

Each message is a frame: its length in eight bytes, then MessagePack. A large file of records is handed over in pieces;
the pipe holds the child back while its parent has not taken the last one. The child is confined before it reads
anything: a bound on its memory, an alarm, and no life longer than its parent's.
"""

import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from indexing.documents import Document, Image, Refused
from indexing.errors import UnreadableDocument
from indexing.readers import Parts, read, read_pieces
from indexing.readers.limits import ReadLimits, on_page, opened
from indexing.readers.members import Watch, watch
from indexing.readers.registry import reads_in_pieces

LENGTH = struct.Struct(">Q")

_PARENT_POLL_SECONDS = 1.0
_ALARM_GRACE_SECONDS = 10.0
"""The parent kills a child that is late; the alarm ends one that has lost its parent while a library loops."""


class Shown(msgspec.Struct, frozen=True):
    """Of a PDF the pages that are to become pictures, from 1; None: all. More than `most` are refused."""

    pages: tuple[int, ...] | None
    most: int


class Request(msgspec.Struct, frozen=True):
    """Read `data`, or the file at `path` (bytes, as file names are) when there is none: as documents, or as `shown`.

    `crashed` are files in it that earlier processes died of, to be left out.
    """

    name: str
    media_type: str | None
    path: bytes | None = None
    data: bytes | None = None
    shown: Shown | None = None
    crashed: frozenset[str] = frozenset()


class Reply(msgspec.Struct, frozen=True):
    """The documents or pictures, or why there are none; of a file of many, the parts that were refused.

    Where the reply itself is still to come, `begun` names a file in it that is being read, or `by_ocr` says that so
    many of so many pages are read.
    """

    documents: list[Document] = []
    refused: list[Refused] = []
    images: list[Image] = []
    reason: str = ""
    detail: str = ""
    begun: str = ""
    by_ocr: tuple[int, int] | None = None
    size: int = 0
    """Of how many bytes of the file it was made."""
    more: bool = False
    """Whether another one follows."""


def framed(message: ReadLimits | Request | Reply) -> bytes:
    """The bytes of one message."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


def main(answer: Callable[[Request, ReadLimits], Iterable[Reply]] | None = None) -> None:
    """Serve until the parent closes the pipe. `answer` makes the replies to a request; by default it reads the file."""
    answer = answer or read_request
    requests, replies = _private_pipes()
    limits = msgspec.msgpack.decode(_frame(requests) or b"", type=ReadLimits)
    _confine(limits)
    _send(replies, framed(Reply()))
    on_page.set(lambda done, total: _send(replies, framed(Reply(by_ocr=(done, total)))))
    while (body := _frame(requests)) is not None:
        request = msgspec.msgpack.decode(body, type=Request)
        watch.set(Watch(lambda part: _send(replies, framed(Reply(begun=part))), request.crashed))
        frames = _frames(answer, request, limits)
        while (frame := _in_time(frames, limits)) is not None:
            _send(replies, frame)


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes. Standard output becomes standard error: a library that prints would break the frames."""
    requests, replies = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(replies, "wb")


def _send(replies: BinaryIO, frame: bytes) -> None:
    replies.write(frame)
    replies.flush()


def _frame(pipe: BinaryIO) -> bytes | None:
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = pipe.read(length)
    return body if len(body) == length else None


def _confine(limits: ReadLimits) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limits.max_memory_bytes, limits.max_memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with_parent(parent: int) -> None:
    """Poll: a killed parent sends no message, and a child busy in a library does not see its pipe close."""
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_SECONDS)
    os.killpg(0, signal.SIGKILL)  # the pool starts each child as the leader of a group of its own


def _set_alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def read_request(request: Request, limits: ReadLimits) -> Iterator[Reply]:
    """The replies to a request: of a file at a path one for each piece, and at the end an empty one."""
    data = request.data
    if data is None:
        path = Path(os.fsdecode(request.path or b""))
        with opened(path, limits, any_size=reads_in_pieces(request.name)) as file:
            for parts, size in read_pieces(file, request.name, limits, request.media_type):
                yield _reply(parts, size, more=True)
        yield Reply()
    elif request.shown is not None:
        from indexing.readers.pictures import pictures_of  # with Pillow, which documents do not need

        yield Reply(images=pictures_of(data, limits, request.shown.pages, request.shown.most))
    else:
        yield _reply(read(data, request.name, limits, request.media_type), len(data), more=False)


def _reply(parts: Parts, size: int, *, more: bool) -> Reply:
    return Reply(
        documents=[part for part in parts if isinstance(part, Document)],
        refused=[part for part in parts if isinstance(part, Refused)],
        size=size,
        more=more,
    )


def _frames(
    answer: Callable[[Request, ReadLimits], Iterable[Reply]], request: Request, limits: ReadLimits
) -> Iterator[bytes]:
    try:
        for reply in answer(request, limits):
            yield framed(reply)
    except UnreadableDocument as refusal:
        yield framed(Reply(reason=refusal.reason, detail=refusal.detail))
    except MemoryError:
        yield framed(Reply(reason="memory", detail="Reading it takes more memory than allowed."))


def _in_time(frames: Iterator[bytes], limits: ReadLimits) -> bytes | None:
    """The next one, unless it takes too long; None at the end."""
    _set_alarm(limits.max_seconds + _ALARM_GRACE_SECONDS)
    frame = next(frames, None)
    _set_alarm(0.0)
    return frame
