"""This machine: its home directory, how the command line finds the running service of the same home, and which version
it is.

One process owns the embedded index. While the service runs it is the owner, and announces itself in a file that only
the same user can read: its address, and a token that proves that the caller could read the file.
"""

import os
import re
import secrets
import stat
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

import httpx
import msgspec
import structlog

from app.errors import ConfigError

log = structlog.get_logger()

TOKEN_HEADER = "X-Winnow-Token"  # noqa: S105 - the header's name
HOP_HEADER = "X-Winnow-Hop"
"""The secret of the replica that writes, and how the caller stands to whoever asks it."""
_FILE = "service.json"
_PROBE_S = 2.0


_OURS = re.compile(
    r"index|jobs|snapshots|quarantine|huggingface|lock|\w+\.sqlite3(-\w+)?|audit\.jsonl(\.\d)?"
    r"|(service|calibration|trust|benchmarks)\.json|\.service\.json\.\d+"
)
"""What Winnow puts into its home."""


def make_private(home: Path) -> None:
    """Keep everybody but the owner out of what is ours in the home, and of the home if nothing else is in it.

    What cannot be changed is a warning: a volume may belong to somebody else, or know no rights.
    """
    if os.name != "posix":
        return
    entries = list(home.iterdir())
    ours = [path for path in entries if _OURS.fullmatch(path.name)]
    for path in (*ours, *([home] if len(ours) == len(entries) else ())):
        try:
            status = path.stat()
            if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077:
                path.chmod(stat.S_IMODE(status.st_mode) & 0o700)
        except OSError as exc:
            log.warning("others may be able to read it", path=str(path), reason=exc.strerror)


def ensure_home(home: Path) -> None:
    """Create the home if missing, for its owner alone. Raises ConfigError."""
    ensure_directory(home)
    make_private(home)


def ensure_directory(directory: Path) -> Path:
    """Create the directory if missing; return it. Raises ConfigError, also if it cannot be written to."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"{directory} cannot be created: {exc.strerror}; WINNOW_HOME names another place") from exc
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(f"{directory} is not writable; WINNOW_HOME names another place")
    return directory


@lru_cache(64)  # each request asks about its client and about the host that it names
def is_loopback(host: str) -> bool:
    """127.0.0.0/8, ::1, their IPv4-mapped forms, and the names that RFC 6761 keeps for them."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """A running service, as its file describes it. `url` has no trailing slash."""

    url: str
    token: str
    pid: int

    @property
    def headers(self) -> dict[str, str]:
        """What shows that a request is of whoever could read the file."""
        return {TOKEN_HEADER: self.token}


def installed_version() -> str:
    """Of the distribution; "0" in a tree that was never installed."""
    from importlib.metadata import PackageNotFoundError, version  # commands start without it

    try:
        return version("winnow")
    except PackageNotFoundError:
        return "0"


def presence_at(url: str) -> Presence:
    """This process as a service at the address, with a new token."""
    return Presence(url=url, token=secrets.token_urlsafe(32), pid=os.getpid())


def announce(home: Path, presence: Presence) -> str:
    """Write the file, readable only by its owner. Where that fails, as on a full disk, the service is not found, and
    the reason is returned; "" if all is well.
    """
    temporary = home / f".{_FILE}.{presence.pid}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(presence))
        temporary.replace(home / _FILE)
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


def announced(home: Path) -> bool:
    """Whether the file of a service is there, this one's or another's."""
    return (home / _FILE).exists()


def withdraw(home: Path, presence: Presence) -> None:
    """Remove the file, unless another service has replaced it."""
    if _read(home) == presence:
        (home / _FILE).unlink(missing_ok=True)


def find_service(home: Path) -> Presence | None:
    """The service that runs on this home directory, if it answers. A file may be left over from a killed one."""
    presence = _read(home)
    return presence if presence is not None and answers(presence.url, presence.headers) else None


def answers(url: str, headers: Mapping[str, str]) -> bool:
    """Whether a service is there that takes the headers for those of its operator."""
    try:
        reply = httpx.get(f"{url}/internal/presence", headers=headers, timeout=_PROBE_S, trust_env=False)
    except httpx.HTTPError:
        return False
    return reply.status_code == httpx.codes.NO_CONTENT


def _read(home: Path) -> Presence | None:
    try:
        return msgspec.json.decode((home / _FILE).read_bytes(), type=Presence)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The last event of an indexing run that failed."""

    detail: str
