"""What processes take, as Linux tells it in /proc: memory in MB, processor time in seconds, and who started whom."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from indexing.store import supervision


class Memory(NamedTuple):
    """Of a process, in MB: all that is resident, and of that what no file holds as well, and what one does."""

    resident: float = 0.0
    anonymous: float = 0.0
    files: float = 0.0


def memory(pid: int) -> Memory:
    """0 of a process that is gone."""
    kibibytes = dict(re.findall(rb"(\w+):\s+(\d+) kB", _content(pid, "status")))
    return Memory(*(int(kibibytes.get(name, 0)) * 1024 / 1e6 for name in (b"VmRSS", b"RssAnon", b"RssFile")))


def processor_s(pid: int) -> float:
    """Processor time so far; 0 of a process that is gone."""
    return supervision.processor_s(pid) or 0.0


def children(pid: int) -> Iterator[tuple[int, bytes]]:
    """Those that it has at the moment, and their command lines."""
    for thread in sorted(Path(f"/proc/{pid}/task").glob("*")):
        for child in map(int, _content(pid, f"task/{thread.name}/children").split()):
            yield child, _content(child, "cmdline")


def descendants_s(pid: int) -> float:
    """Processor time that all processes which it started, and those that they started, have taken."""
    return sum(processor_s(child) + descendants_s(child) for child, _ in children(pid))


def _content(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}", name).read_bytes()
    except OSError:
        return b""
