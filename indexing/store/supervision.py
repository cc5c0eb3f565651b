"""A child process that is given up when it no longer gets on."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_LOOK_S = 5.0
_IDLE_S = 600.0
"""For so long a build that works on a slow disk, or behind everything else on the machine, still uses some time."""
_MOST_S, _MOST_S_PER_POINT = 3600.0, 0.05
"""Of processor time; 384 dimensions took 1 ms a point."""


class Watch:
    """Says when a process has hung, by the processor time that it has used."""

    def __init__(self, now: float, points: int, idle_s: float = _IDLE_S) -> None:
        """`now` and all further times in seconds of one clock; the process works on so many points."""
        self._begun = self._advanced = now
        self._spent = 0.0
        self._idle_s = idle_s
        self._most_s = _MOST_S + _MOST_S_PER_POINT * points

    def complaint(self, now: float, spent: float | None) -> str:
        """Why it is to be ended, with `spent` seconds of processor time so far; "" while it gets on.

        None where the system does not tell them: then it may take as long by the clock.
        """
        if spent is None:
            spent, self._advanced = now - self._begun, now
        if spent > self._most_s:
            return f"it was not done after {spent:.0f} s of work, and was ended"
        if spent > self._spent:
            self._spent, self._advanced = spent, now
        return f"it did nothing for {self._idle_s:.0f} s, and was ended" if now - self._advanced >= self._idle_s else ""


def outcome(
    process: subprocess.Popen[bytes],
    watch: Watch,
    clock: Callable[[], float] = time.monotonic,
    look_s: float = _LOOK_S,
) -> tuple[int, str]:
    """Exit status and errors of the process, once it has ended, or been ended because it hung."""
    complaint = ""
    while True:
        try:
            _, errors = process.communicate(timeout=look_s)
        except subprocess.TimeoutExpired:
            complaint = complaint or watch.complaint(clock(), processor_s(process.pid))
            if complaint:
                process.kill()
            continue
        return process.returncode, complaint or errors.decode("utf-8", "replace")


def processor_s(pid: int) -> float | None:
    """Processor time of a process so far, in seconds; None where there is no /proc, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
