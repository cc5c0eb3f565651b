"""What the commands share: where they print, and whence they have their settings."""

import os
import sys
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from app.config.settings import Settings, load_settings

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


def settings_here() -> Settings:
    """Of this directory and environment. Raises ConfigError."""
    return load_settings(os.environ, Path.cwd())


def print_json(value: Any) -> None:
    """Indented."""
    write(msgspec.json.format(msgspec.json.encode(value), indent=2))


def write(line: bytes) -> None:
    """JSON is UTF-8, whatever the terminal is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
