"""A reader process that does what the name of a file tells it to."""

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
    if request.name == "hang":
        time.sleep(3600)
    if request.name == "spin":
        while True:
            pass
    if request.name == "crash":
        os.abort()
    if request.name == "exit":
        os._exit(3)
    if request.name == "eat":
        return Reply(documents=[Document(text="x" * (1 << 40))])
    if request.name == "print":
        print("noise from a library", flush=True)  # noqa: T201
    return Reply(documents=[Document(text=str(os.getpid()))])
