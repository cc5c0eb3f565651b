"""A reader process that does what the name of a file tells it to, or of a picture the bytes."""

import os
import time

from indexing.documents import Document
from indexing.readers.limits import ReadLimits
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
    if name == "print":
        print("noise from a library", flush=True)  # noqa: T201
    return Reply(documents=[Document(text=str(os.getpid()))])
