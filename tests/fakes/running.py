"""A server in a process of its own, for tests that need a real socket and real signals."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).parents[2]

START_S = 90.0
"""A process imports for a second, and on a machine that has much else to do for half a minute."""


class RunningServer:
    """A server process, and what it has said.

    `module` is what runs, with the home and `arguments`; with an `environ` it is the command line, whose home is there.
    """

    def __init__(
        self,
        home: Path,
        module: str = "tests.fakes.server",
        *arguments: str,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        given = arguments if environ is not None else (str(home), *arguments)
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *given],
            cwd=ROOT,
            env=None if environ is None else {**os.environ, "WINNOW_HOME": str(home), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        self.home = home
        self.lines: list[str] = []
        self._read_from = 0
        self._reader = Thread(target=self._read)
        self._reader.start()
        try:
            self.url = self.wait_for(r"running on (http://[\d.:]+)", START_S)
        except AssertionError:
            self.close()
            raise

    def wait_for(self, pattern: str, seconds: float = 30) -> str:
        """The last group of the first line that matches, of those since the start or the last `skip_log`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.lines[self._read_from :]:
                if match := re.search(pattern, line):
                    return match[match.re.groups]
            time.sleep(0.01)
        raise AssertionError(f"{pattern} was not said:\n{''.join(self.lines)}")

    def skip_log(self) -> None:
        """Forget what was logged so far: a test that shares the server looks at its own lines only."""
        self._read_from = len(self.lines)

    def close(self) -> None:
        """Kill the process if it still runs, and close its pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=60)
        self._reader.join(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
