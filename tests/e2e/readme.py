"""Runs the commands of the README and of pages after it as a reader would, in a fresh clone.

Fenced blocks marked `sh` are run; blocks marked otherwise (`console`, `json`) are only shown. A block that begins with
`make run` is the first terminal: it is started, and the rest waits until the service is ready. All other blocks are the
second terminal: one shell, in order, in which every command must succeed and curl fails on an HTTP error.
"""

import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVE = "make run"
ADDRESS = "127.0.0.1:8000"
READY_S = 1800.0
STOP_S = 60.0

PROLOGUE = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n'

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OURS = re.compile(r"(WINNOW|QDRANT|GEMINI|GOOGLE|VLLM|OLLAMA|MAKE|PYTEST)|(MFLAGS|VIRTUAL_ENV)$")


class CommandFailed(Exception):
    """A command of the README did not do what it promises; the text holds its output."""


@dataclass(frozen=True)
class Block:
    """Commands, and the page and line on which they begin."""

    line: int
    commands: str
    page: str = "README.md"


@dataclass(frozen=True)
class Reader:
    """Someone with a clone in `folder` and a free `port` in place of the README's 8000."""

    folder: Path
    port: int
    environ: Mapping[str, str]

    @contextmanager
    def serving(self, ready_s: float = READY_S) -> Iterator[Path]:
        """The first terminal, ready. Gives the file with its output. Ends it with SIGTERM; raises CommandFailed."""
        log = self.folder / "make-run.log"
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                SERVE.split(), cwd=self.folder, env=self.environ, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        try:
            self._wait_until_ready(process, log, ready_s)
            yield log
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)

    def type_in(self, blocks: Sequence[Block], timeout_s: float = 600) -> str:
        """The second terminal: the output of all commands. Raises CommandFailed at the first that fails."""
        parts = [f"echo '## {block.page}, line {block.line}'\n{block.commands}" for block in blocks]
        script = PROLOGUE + "".join(parts).replace(ADDRESS, f"127.0.0.1:{self.port}")
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )
        if done.returncode:
            raise CommandFailed(f"exit status {done.returncode} after:\n{done.stdout}")
        return done.stdout

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]", log: Path, ready_s: float) -> None:
        deadline = time.monotonic() + ready_s
        while not _answers(f"http://127.0.0.1:{self.port}/health/ready"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise CommandFailed(f"`{SERVE}` does not serve:\n{log.read_text(encoding='utf-8')}")
            time.sleep(0.2)


def commands(markdown: str, page: str = "README.md") -> list[Block]:
    """The blocks to run, in order."""
    blocks = _BLOCK.finditer(markdown)
    return [Block(markdown.count("\n", 0, block.start(1)) + 1, block[1], page) for block in blocks]


def is_service(block: Block) -> bool:
    """Whether it is the first terminal."""
    return block.commands.startswith(SERVE)


def fresh_reader(repository: Path, folder: Path, environ: Mapping[str, str] = os.environ) -> Reader:
    """A reader with a clone of what is committed in `repository`, and with nobody's settings."""
    subprocess.run(["git", "clone", "--quiet", str(repository), str(folder)], check=True)
    port = _free_port()
    kept = {key: value for key, value in environ.items() if not _OURS.match(key)}
    return Reader(folder, port, {**kept, "WINNOW_PORT": str(port)})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
