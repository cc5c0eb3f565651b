"""What `winnow doctor` finds around the service: the machine that it runs on, and who can reach it and its index."""

import asyncio
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx
import msgspec
from rich.console import Console
from rich.text import Text

from app.access.access import Access
from app.access.keys import RESERVED, Key
from app.accounting.budgets import ANY_KEY
from app.backends.settings import BudgetSettings
from app.cli.terminal import counted
from app.config.settings import Settings
from app.errors import ConfigError, WinnowError
from app.instance import is_loopback
from app.ranking.calibration import FITS_FILE, read_fits
from app.wiring import disk_guard
from indexing.postgres import open_database
from indexing.settings import StoreSettings

State = Literal["ok", "note", "broken"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check. `fix` is "" where there is nothing to do."""

    name: str
    state: State
    detail: str
    fix: str = ""


def show(console: Console, findings: Iterable[Finding]) -> None:
    """Print a line for each finding, with its fix below."""
    marks = {"ok": ("ok    ", "green"), "note": ("note  ", "yellow"), "broken": ("broken", "bold red")}
    for finding in findings:
        console.print(Text.assemble(marks[finding.state], " ", (finding.name, "bold"), f": {finding.detail}"))
        if finding.fix:
            console.print(Text.assemble(("       fix: ", "dim"), finding.fix))


TIMEOUT_S = 3.0
"""For a Qdrant server or a backend that does not answer."""

NEEDED_MB = 1500
"""The service with the default embedder and some collections; reading a large file may take more."""

DRIVER = 580
"""The first driver of NVIDIA that runs vLLM's image and its wheels."""

OLDEST_QDRANT = 16
"""The minor version of 1 that first keeps metadata of collections."""

SKEW_S = 120.0

EXPIRES_SOON_S = 14 * 86_400.0

_MEMORY = Path("/proc/meminfo")
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine(settings: Settings) -> Iterator[Finding]:
    """The home and its disk, memory, the GPU and the clock."""
    home = settings.index.home
    yield _home(settings)
    yield from _rights(home)
    yield from _memory(_MEMORY, _CGROUP_LIMITS)
    yield from _gpu(settings.embedding.device)
    yield from _clock(home)
    try:
        if settings.database.url is None:
            read_fits(home / FITS_FILE)
    except ConfigError as exc:
        yield Finding(name="calibrations", state="broken", detail=str(exc), fix="winnow calibrate")


def exposure(settings: Settings) -> Iterator[Finding]:
    """Who is served, the keys, what protects a Qdrant server, and whether a collector of traces is there."""
    database = open_database(settings.database.url, migrates=False)
    access = Access(settings.index.home, settings.access, database=database)
    try:
        access.open()
        keys = access.file.all()
    except WinnowError as exc:
        yield Finding(name="keys", state="broken", detail=str(exc), fix="until then nobody is let in")
    else:
        yield _door(settings, keyed=access.keyed)
        yield from _keys(keys, settings.budgets, time.time())
    for name, url in ((name, url) for name, backend in settings.backends.items() for url in backend.urls):
        parts = urlsplit(url)
        if parts.port == settings.service.port and is_loopback(parts.hostname or ""):
            detail = f"{url} is where Winnow itself listens"
            fix = f"another port for one of them: WINNOW_PORT, or url in [backends.{name}]"
            yield Finding(name=f"backend {name}", state="note", detail=detail, fix=fix)
    if settings.store.url:
        yield from _qdrant(settings.store)
    if settings.tracing.endpoint:
        yield _tracing(settings.tracing.endpoint)


def _home(settings: Settings) -> Finding:
    home = settings.index.home
    nearest = next(place for place in (home, *home.parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = "is not writable" if nearest.is_dir() else f"cannot be created: {nearest} is not a directory"
        return Finding(
            name="home", state="broken", detail=f"{home} {why}", fix="choose another directory: WINNOW_HOME=DIR"
        )
    disk = disk_guard(settings, home)
    detail = f"{home}, {disk.free() / 1e9:.1f} GB free"
    if warning := disk.warning():
        fix = "free some space, or choose another disk: WINNOW_HOME=DIR"
        return Finding(name="home", state="note", detail=f"{detail}: {warning}", fix=fix)
    return Finding(name="home", state="ok", detail=detail)


def _rights(home: Path) -> Iterator[Finding]:
    """Texts of documents and keys are in there; the service makes them private at its start, where it may."""
    if os.name != "posix" or not home.is_dir() or not os.access(home, os.R_OK | os.X_OK):
        return
    if not stat.S_IMODE(home.stat().st_mode) & 0o077:
        return  # nobody comes as far as the files
    shown = [path.name for path in sorted(home.iterdir()) if not path.is_symlink() and path.stat().st_mode & 0o077]
    if shown:
        detail = f"other users of this machine may read {', '.join(shown[:3])}{' and more' if len(shown) > 3 else ''}"
        yield Finding(name="rights", state="note", detail=detail, fix=f"chmod -R go= {home}")


def _memory(meminfo: Path, limits: tuple[Path, ...]) -> Iterator[Finding]:
    """What this process may take: of the machine, and of a container's share of it."""
    try:
        lines = dict(line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines())
        most = int(lines["MemTotal"].split()[0]) / 1024
    except (OSError, KeyError, ValueError):
        return  # not Linux
    for path in limits:
        if path.exists() and (text := path.read_text(encoding="ascii").strip()).isdigit():
            most = min(most, int(text) / 2**20)
    detail = f"{most / 1024:.1f} GiB"
    if most < NEEDED_MB:
        fix = "give it more; with less it may be killed while it reads a large file"
        yield Finding(name="memory", state="note", detail=f"{detail}, and some {NEEDED_MB} MiB are needed", fix=fix)
    else:
        yield Finding(name="memory", state="ok", detail=detail)


def _gpu(device: str | None) -> Iterator[Finding]:
    """What NVIDIA's own program says. That there is none matters only where the embedder is to run on one."""
    wanted = (device or "").startswith("cuda")
    program = shutil.which("nvidia-smi")
    query = "--query-gpu=name,memory.total,driver_version"
    try:
        told = subprocess.run(  # noqa: S603 - the one on the path
            [program or "nvidia-smi", query, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        if wanted:
            fix = "unset device in [embedding], or give the container its GPU"
            yield Finding(name="gpu", state="broken", detail=f"device = {device!r}, but there is no GPU here", fix=fix)
        return
    for line in told:
        driver = line.rpartition(",")[2].strip()
        if driver.partition(".")[0].isdigit() and int(driver.partition(".")[0]) < DRIVER:
            fix = f"driver {DRIVER} or newer, or vLLM's image with the tag for CUDA 12.9"
            yield Finding(name="gpu", state="note", detail=f"{line}: too old for vLLM's default image", fix=fix)
        else:
            yield Finding(name="gpu", state="ok", detail=line)


def _clock(home: Path) -> Iterator[Finding]:
    """Whether it has gone back since something was written: days of budgets and the expiry of keys go by it."""
    if not home.is_dir() or not os.access(home, os.R_OK | os.X_OK):
        return
    newest = max((path.stat().st_mtime for path in home.iterdir() if path.exists()), default=0.0)
    if newest > time.time() + SKEW_S:
        detail = f"files in {home} are {newest - time.time():,.0f} s from the future"
        yield Finding(name="clock", state="note", detail=detail, fix="set the clock (NTP)")


def _door(settings: Settings, *, keyed: bool) -> Finding:
    service, address = settings.service, f"{settings.service.host}:{settings.service.port}"
    if keyed and settings.access.loopback and service.public_url:
        detail = f"{address}: who has a key, and everybody who comes through a proxy on this machine"
        return Finding(name="door", state="note", detail=detail, fix="unset loopback in [access]")
    if keyed:
        but = ", programs on this machine excepted" if settings.access.loopback else ""
        return Finding(name="door", state="ok", detail=f"{address}: who has a key{but}")
    if is_loopback(service.host):
        return Finding(name="door", state="ok", detail=f"{address}: programs on this machine")
    if not service.allow_anonymous:
        detail = f"{address} is open to other machines, but they are refused as there are no keys"
        return Finding(name="door", state="note", detail=detail, fix="winnow keys create, or WINNOW_HOST=127.0.0.1")
    names = f", under the names {', '.join(service.hosts)}" if service.hosts else ""
    detail = f"everybody who reaches {address} is served without a key{names}"
    fix = "winnow keys create, and unset WINNOW_ALLOW_ANONYMOUS"
    return Finding(name="door", state="note", detail=detail, fix=fix)


def _keys(keys: Sequence[Key], budgets: BudgetSettings, now: float) -> Iterator[Finding]:
    """Those that end soon or have ended, and budgets of keys that are not there."""
    active = [key for key in keys if key.state(now) == "active"]
    if active:
        yield Finding(name="keys", state="ok", detail=f"{counted(len(active), 'key')}: {_listed(active)}")
    soon = [key for key in active if key.expires_at is not None and key.expires_at.timestamp() < now + EXPIRES_SOON_S]
    for key in soon:
        detail = f"{key.name} expires on {key.expires_at:%Y-%m-%d}"
        yield Finding(name="keys", state="note", detail=detail, fix="winnow keys create a new one, and replace it")
    if expired := [key for key in keys if key.state(now) == "expired"]:
        detail = f"expired: {_listed(expired)}"
        yield Finding(name="keys", state="note", detail=detail, fix="winnow keys revoke, if nobody misses them")
    known = {ANY_KEY, *RESERVED, *(key.name for key in keys)}
    for name in sorted(budgets.keys.keys() - known):
        detail = f"[budgets.keys.{name}] is for a key that is not there"
        yield Finding(name="keys", state="note", detail=detail, fix="correct its name, or remove it")


def _listed(keys: Sequence[Key], most: int = 5) -> str:
    names = ", ".join(key.name for key in keys[:most])
    return f"{names} and {len(keys) - most} more" if len(keys) > most else names


def _qdrant(store: StoreSettings) -> Iterator[Finding]:
    """Its version, whether it asks for a key, how that travels, its clock. Another check tells of one that is away."""
    url = (store.url or "").rstrip("/")
    try:
        with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
            root, listed = client.get("/"), client.get("/collections")
        told = root.json()
        theirs = str(told["version"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return
    ours = version("qdrant-client")
    if (_minor(theirs) or OLDEST_QDRANT) < OLDEST_QDRANT:
        detail = f"the server has version {theirs}, and Winnow needs 1.{OLDEST_QDRANT} or later"
        yield Finding(name="qdrant", state="broken", detail=detail, fix="upgrade the server")
    elif _minor(theirs) is not None and abs((_minor(theirs) or 0) - (_minor(ours) or 0)) > 1:
        fix = f"a server of about the version of qdrant-client, {ours}"
        yield Finding(name="qdrant", state="note", detail=f"the server has version {theirs}", fix=fix)
    else:
        yield Finding(name="qdrant", state="ok", detail=f"version {theirs}")
    if listed.status_code == httpx.codes.OK:
        detail = "the server asks for no key: whoever reaches it reads and deletes everything"
        fix = "QDRANT__SERVICE__API_KEY at the server, QDRANT_API_KEY here"
        yield Finding(name="qdrant", state="note", detail=detail, fix=fix)
    yield from _unencrypted(store)
    yield from _skew(root.headers.get("date"))
    yield from _layouts(store)


def _layouts(settings: StoreSettings) -> Iterator[Finding]:
    """How each collection lies on the server, and what the settings ask for beyond. The check of the index tells of a
    server that refuses.
    """
    with suppress(WinnowError, TimeoutError):
        yield from asyncio.run(_compare_layouts(settings))


async def _compare_layouts(settings: StoreSettings) -> list[Finding]:
    from indexing.store.server import ServerStore  # qdrant-client takes a moment

    store = ServerStore.connect(msgspec.structs.replace(settings, timeout_s=min(settings.timeout_s, TIMEOUT_S)))
    findings = []
    try:
        async with asyncio.timeout(TIMEOUT_S):
            for info in await store.collections():
                name, (layout, wanted) = f"layout of {info.name}", await store.layout(info.name)
                findings.append(Finding(name=name, state="ok", detail=layout.text()))
                for one in wanted:
                    fix = f"winnow index {'--rebuild ' if one.fixed else ''}--collection {info.name}, which applies it"
                    findings.append(Finding(name=name, state="note", detail=one.text(), fix=fix))
    finally:
        await store.close()
    return findings


def _unencrypted(store: StoreSettings) -> Iterator[Finding]:
    parts = urlsplit(store.url or "")
    if store.api_key and parts.scheme == "http" and not _is_inside(parts.hostname or ""):
        detail = f"the key travels to {parts.hostname} unencrypted"
        yield Finding(name="qdrant", state="note", detail=detail, fix="TLS at the server, and https in QDRANT_URL")


def _tracing(endpoint: str) -> Finding:
    """Whether anybody listens there: a collector that is away costs nothing but the traces."""
    if find_spec("opentelemetry") is None:
        fix = "pip install '.[otel]', or unset OTEL_EXPORTER_OTLP_ENDPOINT"
        detail = f"none to {endpoint}, as OpenTelemetry is not installed"
        return Finding(name="tracing", state="note", detail=detail, fix=fix)
    try:
        httpx.get(endpoint, timeout=TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL):
        detail, fix = f"nobody answers at {endpoint}: traces are lost", "start the collector, or correct the address"
        return Finding(name="tracing", state="note", detail=detail, fix=fix)
    return Finding(name="tracing", state="ok", detail=endpoint)


def _skew(date: str | None) -> Iterator[Finding]:
    try:
        seconds = abs(parsedate_to_datetime(date or "").timestamp() - time.time())
    except ValueError:
        return
    if seconds > SKEW_S:
        detail = f"this machine's and the Qdrant server's clocks are {seconds:,.0f} s apart"
        yield Finding(name="clock", state="note", detail=detail, fix="set both (NTP)")


def _minor(text: str) -> int | None:
    """Of a version."""
    parts = text.split(".")
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None


def _is_inside(host: str) -> bool:
    """A private address, or a name without dots, as containers of one network have."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return "." not in host
