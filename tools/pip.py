"""Runs pip quietly: the big downloads are shown, the rest only when something goes wrong."""

import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

BIG_MB = 10.0
TAIL = 25
FAILED = "pip could not install this; above are its last lines. When the reason is gone, the same command goes on."

_DOWNLOAD = re.compile(r"\s*Downloading (?:\S*/)?(?P<name>[^/\s-]+-[^/\s-]+)\S* \((?P<size>[\d.]+) (?P<unit>MB|GB)\)")
_PROGRESS = re.compile(r"Progress (?P<done>\d+) of (?P<total>\d+)")


class InstallFailed(Exception):
    """The environment could not be made; the text is for the person at the terminal."""


def pip_install(python: Path, arguments: Sequence[str], progress: str = "raw") -> None:
    """`pip install` with these arguments in the environment of `python`. Raises InstallFailed with pip's last words.

    `progress` is pip's `--progress-bar`; "raw" is what `show` reads, and pips before 24.1 do not know it.
    """
    command = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    with subprocess.Popen(
        [*command, "--progress-bar", progress, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        assert pip.stdout is not None  # noqa: S101 - PIPE was asked for
        last_words = show(pip.stdout, sys.stdout)
    if pip.returncode:
        raise InstallFailed("\n".join([*last_words, "", FAILED]))


def show(lines: Iterable[str], screen: TextIO) -> list[str]:
    """Write the big downloads of pip's output to `screen`, with progress on a terminal; its last other lines."""
    said: deque[str] = deque(maxlen=TAIL)
    big = ""
    for line in lines:
        progress = _PROGRESS.match(line)
        if progress is None:
            said.append(line.rstrip())
            big = _big_download(line)
            _write(screen, f"  {big}\n" if big else "")
        elif big and screen.isatty():
            _write(screen, _drawn(big, int(progress["done"]), int(progress["total"])))
    return list(said)


def _big_download(line: str) -> str:
    """What is being downloaded, if it is worth a line: "torch-2.13.0, 192 MB"."""
    found = _DOWNLOAD.match(line)
    if found is None:
        return ""
    megabytes = float(found["size"]) * (1000 if found["unit"] == "GB" else 1)
    return f"{found['name']}, {megabytes:.0f} MB" if megabytes >= BIG_MB else ""


def _drawn(name: str, done: int, total: int) -> str:
    """Over the line above: terminals go up with ESC [ F."""
    return f"\x1b[F\x1b[K  {name}: {100 * done // max(total, 1)} %\n"


def _write(screen: TextIO, text: str) -> None:
    screen.write(text)
    screen.flush()
