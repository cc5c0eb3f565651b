"""How much memory may still be taken."""

import subprocess
import sys
from pathlib import Path

import pytest

from indexing.memory import available_bytes

MB = 2**20


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """1,000 MB available, and a process in the group unit/part."""
    (tmp_path / "meminfo").write_text(
        f"MemTotal: {4000 * 1024} kB\nMemAvailable: {1000 * 1024} kB\nHugePages_Free: 0\n"
    )
    (tmp_path / "cgroup").write_text("0::/unit/part\n")
    (tmp_path / "groups/unit/part").mkdir(parents=True)
    return tmp_path


def group(directory: Path, limit: str, used: int = 0, files: int = 0) -> None:
    (directory / "memory.max").write_text(f"{limit}\n")
    (directory / "memory.current").write_text(f"{used}\n")
    (directory / "memory.stat").write_text(f"anon {used - files}\ninactive_file {files}\nactive_file 0\n")


def available(machine: Path) -> int | None:
    return available_bytes(machine / "meminfo", machine / "cgroup", machine / "groups")


def test_the_machine_tells(machine: Path) -> None:
    """Where no group has a limit."""
    group(machine / "groups/unit/part", "max")
    assert available(machine) == 1000 * MB


@pytest.mark.parametrize("place", ["unit/part", "unit", "."])
def test_a_group_has_less(machine: Path, place: str) -> None:
    """Its own or one around it, or in a container what it sees as the root; pages of files can be taken back."""
    group(machine / "groups" / place, str(500 * MB), used=450 * MB, files=150 * MB)
    assert available(machine) == 200 * MB


def test_nothing_is_left(machine: Path) -> None:
    """Never less than nothing."""
    group(machine / "groups/unit", str(500 * MB), used=510 * MB)
    assert available(machine) == 0


def test_other_systems_do_not_tell(tmp_path: Path) -> None:
    """Without /proc nobody knows."""
    assert available(tmp_path) is None


ARENAS = """
import ctypes, sys, threading
from indexing.memory import share_arenas

share_arenas()
libc = ctypes.CDLL(None)
libc.open_memstream.restype = ctypes.c_void_p
started = threading.Barrier(8)

def take():
    started.wait()
    for _ in range(100):
        libc.malloc(1000)

threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
told, size = ctypes.c_char_p(), ctypes.c_size_t()
stream = ctypes.c_void_p(libc.open_memstream(ctypes.byref(told), ctypes.byref(size)))
libc.malloc_info(0, stream)
libc.fclose(stream)
print(told.value.count(b"<heap nr"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_threads_share_the_memory_that_was_freed() -> None:
    """Eight threads that take memory at once take it of two arenas."""
    done = subprocess.run([sys.executable, "-c", ARENAS], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "2\n"
