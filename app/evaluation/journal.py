"""What has been found out so far, in a file that stands a kill at any moment."""

from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from app.errors import InvalidRequest

T = TypeVar("T", bound=msgspec.Struct)


class Journal(Generic[T]):
    """Records, one a line. A line that was being written when the process ended is forgotten."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.path = path
        self._decoder = msgspec.json.Decoder(kind)

    def begin(self, *, fresh: bool) -> list[T]:
        """What is in it, in order, after its end is mended; nothing any more if `fresh`. Raises InvalidRequest."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            file.seek(0)
            whole, end, _ = b"".partition(b"\n") if fresh else file.read().rpartition(b"\n")
            file.truncate(len(whole) + len(end))
        try:
            return [self._decoder.decode(line) for line in whole.splitlines()]
        except msgspec.MsgspecError as exc:
            raise InvalidRequest(f"{self.path} cannot be read; --fresh begins anew") from exc

    def append(self, record: T) -> None:
        """Written when this returns."""
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")
