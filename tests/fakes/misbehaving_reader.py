"""A reader process that does what the name of a file tells it to, or of a picture the bytes."""

import os
import time
from collections.abc import Iterator

import msgspec

from indexing.documents import Document
from indexing.readers.limits import ReadLimits, on_page
from indexing.readers.members import Watch, watch
from indexing.readers.sandbox.child import Reply, Request, read_request
from indexing.readers.sandbox.child import main as serve


def main() -> None:
    """Serves like the real one."""
    serve(_misbehave)


def _misbehave(request: Request, limits: ReadLimits) -> Iterator[Reply]:
    name = request.name or (request.data or b"").decode("latin-1")
    if name == "hang":
        time.sleep(3600)
    if name == "spin":
        while True:
            pass
    if name == "crash":
        os.abort()
    if name == "exit":
        os._exit(3)
    if name == "eat":
        yield Reply(documents=[Document(text="x" * (1 << 40))])
    if name == "print":
        print("noise from a library", flush=True)  # noqa: T201
    if name.endswith((".zip", ".mbox")):
        _crash_in_members()
        yield from read_request(request, limits)
    else:
        yield from _pieces(name)


def _pieces(name: str) -> Iterator[Reply]:
    """One, or several where the name says so."""
    piece = Reply(documents=[Document(text=str(os.getpid()))])
    for done in (1, 2) if name.startswith("scan") else ():
        on_page.get()(done, 3)
    while name in ("crash in the middle", "endless"):
        yield msgspec.structs.replace(piece, more=True)
        if name != "endless":
            os.abort()
    if name == "scan in pieces":
        yield msgspec.structs.replace(piece, more=True)
        on_page.get()(3, 3)
    yield piece


def _crash_in_members() -> None:
    """Those called crash.txt."""
    told = watch.get()

    def begun(part: str) -> None:
        told.begun(part)
        if part.endswith("crash.txt"):
            os.abort()

    watch.set(Watch(begun, told.crashed))
