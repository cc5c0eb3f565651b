"""A reader process that does what the name of a file tells it to, or of a picture the bytes."""

import os
import time

from indexing.documents import Document, Refused
from indexing.readers import read
from indexing.readers.limits import ReadLimits, on_page
from indexing.readers.members import Watch, watch
from indexing.readers.sandbox.child import Reply, Request
from indexing.readers.sandbox.child import main as serve


def main() -> None:
    """Serves like the real one."""
    serve(_misbehave)


def _misbehave(request: Request, limits: ReadLimits) -> Reply:
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
        return Reply(documents=[Document(text="x" * (1 << 40))])
    if name.endswith(".zip"):
        return _archive(request, limits)
    for done in (1, 2) if name == "scan" else ():
        on_page.get()(done, 2)
    if name == "print":
        print("noise from a library", flush=True)  # noqa: T201
    return Reply(documents=[Document(text=str(os.getpid()))])


def _archive(request: Request, limits: ReadLimits) -> Reply:
    """As the real one reads it, but for members called crash.txt."""
    told = watch.get()

    def begun(part: str) -> None:
        told.begun(part)
        if part.endswith("crash.txt"):
            os.abort()

    watch.set(Watch(begun, told.crashed))
    parts = read(request.data or b"", request.name, limits)
    return Reply(
        documents=[part for part in parts if isinstance(part, Document)],
        refused=[part for part in parts if isinstance(part, Refused)],
    )
