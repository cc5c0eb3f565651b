"""Runs pip quietly: large downloads are shown, the rest of the output only when something goes wrong."""

import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

LARGE_MB = 10.0
LINES_KEPT = 25
FAILED = "pip failed; its last lines are above. Once the cause is removed, run the same command again."

_DOWNLOAD = re.compile(r"\s*Downloading (?:\S*/)?(?P<name>[^/\s-]+-[^/\s-]+)\S* \((?P<size>[\d.]+) (?P<unit>MB|GB)\)")
_PROGRESS = re.compile(r"Progress (?P<done>\d+) of (?P<total>\d+)")


class InstallFailed(Exception):
    """The environment could not be made; the text is for the person at the terminal."""


def pip_install(python: Path, arguments: Sequence[str], progress: str = "raw") -> None:
    """`pip install` with these arguments in the environment of `python`. Raises InstallFailed with pip's last lines.

    `progress` is pip's `--progress-bar`; `show` reads "raw", which pip knows since 24.1.
    """
    command = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    with subprocess.Popen(
        [*command, "--progress-bar", progress, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        assert pip.stdout is not None  # noqa: S101 - stdout is a pipe
        last_lines = show(pip.stdout, sys.stdout)
    if pip.returncode:
        raise InstallFailed("\n".join([*last_lines, "", FAILED]))


def show(lines: Iterable[str], screen: TextIO) -> list[str]:
    """Write the large downloads of pip's output to `screen`, on a terminal with progress; return the last lines."""
    last_lines: deque[str] = deque(maxlen=LINES_KEPT)
    download = ""
    for line in lines:
        progress = _PROGRESS.match(line)
        if progress is None:
            last_lines.append(line.rstrip())
            download = _large_download(line)
            if download:
                print(f"  {download}", file=screen, flush=True)
        elif download and screen.isatty():
            percent = 100 * int(progress["done"]) // max(int(progress["total"]), 1)
            print(f"\x1b[F\x1b[K  {download}: {percent} %", file=screen, flush=True)  # over the line above
    return list(last_lines)


def _large_download(line: str) -> str:
    """Such as "torch-2.13.0, 192 MB"; "" for anything else."""
    match = _DOWNLOAD.match(line)
    if match is None:
        return ""
    megabytes = float(match["size"]) * (1000 if match["unit"] == "GB" else 1)
    return f"{match['name']}, {megabytes:.0f} MB" if megabytes >= LARGE_MB else ""
