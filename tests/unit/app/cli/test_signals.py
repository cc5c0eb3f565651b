"""Ctrl-C, or SIGTERM, during long work."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, time
from app.cli import terminal
terminal.GRACE_S = {grace_s}

async def work():
    thread = asyncio.create_task(asyncio.to_thread(time.sleep, 60))
    await asyncio.sleep(0)
    print("begun", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        {at_the_end}
        print("ended well", flush=True)
terminal.run(work())
"""


@pytest.mark.parametrize(("by", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("at_the_end", "grace_s", "said"),
    [("pass", 60, "ended well\n"), ("time.sleep(60)", 0.2, ""), ("await asyncio.sleep(60)", 0.2, "")],
)
def test_work_is_interrupted(at_the_end: str, grace_s: float, said: str, by: signal.Signals, status: int) -> None:
    """It may end in good order, but not for ever, whatever it hangs on; a thread is not waited for."""
    command = [sys.executable, "-c", PROGRAM.format(at_the_end=at_the_end, grace_s=grace_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(by)
        out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == (said, "interrupted\n", status)
