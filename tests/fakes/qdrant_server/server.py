"""A server in this process: both protocols on ports of their own, over the collections of a directory."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.qdrant_server.collections import Collections
from tests.fakes.qdrant_server.refusals import Kind, Refusal

VERSION = "1.20.0"
_MEMORY = Path("/dev/shm")  # noqa: S108 - the file system in memory of Linux


@dataclass(eq=False)
class Guard:
    """Who may do what, and whether the server has a bad day.

    While `failing` is set, every request but that for the version gets it; `slow_s` is waited before each.
    """

    api_key: str | None = None
    read_only_key: str | None = None
    failing: Refusal | None = None
    slow_s: float = 0.0
    stopping: threading.Event = field(default_factory=threading.Event)

    def admit(self, key: str | None, *, writes: bool) -> None:
        """Raises Refusal."""
        if self.slow_s:
            self.stopping.wait(self.slow_s)
        if self.failing is not None:
            raise self.failing
        if self.api_key is None and self.read_only_key is None:
            return
        if key is None:
            raise Refusal(Kind.UNAUTHORIZED, "Must provide an API key or an Authorization bearer token")
        if key not in (self.api_key, self.read_only_key):
            raise Refusal(Kind.UNAUTHORIZED, "Invalid API key or JWT")
        if writes and key != self.api_key:
            raise Refusal(Kind.FORBIDDEN, "Global manage access is required")


class QdrantServer:
    """Runs between `start` and `stop`; may be started again on the same ports and directory."""

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        grpc_port: int = 0,
        api_key: str | None = None,
        read_only_key: str | None = None,
        version: str = VERSION,
    ) -> None:
        self._directory = directory
        self.version = version
        self.port, self.grpc_port = port, grpc_port
        self.guard = Guard(api_key, read_only_key)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        # The import takes a moment: whoever only names the fake does not pay for it.
        from tests.fakes.qdrant_server.rest import RestServer
        from tests.fakes.qdrant_server.rpc import RpcServer

        self.guard.stopping.clear()
        minor = int(self.version.split(".")[1])
        self.collections = Collections(self._directory, keeps_metadata=minor >= 16)
        self._rest = RestServer(self.collections, self.guard, self.version, self.port)
        self._rpc = RpcServer(self.collections, self.guard, self.version, self.grpc_port)
        self.port, self.grpc_port = self._rest.port, self._rpc.port

    def stop(self) -> None:
        """Drop every connection at once, as the end of a process does."""
        self.guard.stopping.set()
        self._rpc.stop()
        self._rest.stop()
        self.collections.close()


@contextmanager
def running(directory: Path | None = None, **settings: Any) -> Iterator[QdrantServer]:
    """One that runs inside the block; by default in memory, since the engine waits for the disk at every change."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as scratch:
        server = QdrantServer(directory or Path(scratch), **settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()
