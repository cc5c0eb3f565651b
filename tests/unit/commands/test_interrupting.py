"""Ctrl-C during long work."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, time
from app.commands import interrupting
interrupting.LET_END_S = 0.2

async def work():
    print("begun", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        {at_the_end}
try:
    interrupting.run(work())
except KeyboardInterrupt:
    print("ended well", flush=True)
"""


@pytest.mark.parametrize(
    ("at_the_end", "said", "status"),
    [("await asyncio.sleep(0)", "ended well\n", 0), ("time.sleep(60)", "", 130), ("await asyncio.sleep(60)", "", 130)],
)
def test_work_is_interrupted(at_the_end: str, said: str, status: int) -> None:
    """It may end in good order, but not for ever, whatever it hangs on."""
    command = [sys.executable, "-c", PROGRAM.format(at_the_end=at_the_end)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == (said, status)
    assert err == ("interrupted\n" if status else "")
