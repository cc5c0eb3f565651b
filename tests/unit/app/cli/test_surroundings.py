"""What `winnow doctor` finds around the service."""

import asyncio
import json
import os
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from app.access.key_file import KEY_FILE, KeyFile
from app.access.keys import KeyRequest
from app.cli.surroundings import Finding, _memory, _skew, _unencrypted, exposure, machine
from app.config.settings import Settings
from app.config.validation import load_settings
from indexing.settings import StoreSettings
from indexing.store.server import ServerStore
from tests.fakes.http_server import answering
from tests.fakes.points import SPEC
from tests.fakes.qdrant_server.server import running

NO_PROGRAMS = "/nowhere"


def settings(cwd: Path, **environ: str) -> Settings:
    return load_settings(environ, cwd)


def told(found: list[Finding], name: str) -> list[tuple[str, str, str]]:
    return [(one.state, one.detail, one.fix) for one in found if one.name == name]


@pytest.mark.parametrize(
    ("environ", "state", "detail", "fix"),
    [
        ({}, "ok", "programs on this machine", ""),
        ({"WINNOW_HOST": "192.0.2.1"}, "note", "they are refused", "winnow keys create, or WINNOW_HOST=127.0.0.1"),
        ({"WINNOW_HOST": "192.0.2.1", "WINNOW_ADMIN_KEY": "k" * 32}, "ok", "192.0.2.1:8000: who has a key", ""),
        ({"WINNOW_ACCESS_REQUIRED": "1", "WINNOW_ALLOW_ANONYMOUS": "1"}, "ok", "who has a key", ""),
        (
            {"WINNOW_ADMIN_KEY": "k" * 32, "WINNOW_ACCESS_LOOPBACK": "1"},
            "ok",
            "who has a key, programs on this machine excepted",
            "",
        ),
        (
            {
                "WINNOW_ADMIN_KEY": "k" * 32,
                "WINNOW_ACCESS_LOOPBACK": "1",
                "WINNOW_SERVICE_PUBLIC_URL": "https://rag.example",
            },
            "note",
            "everybody who comes through a proxy",
            "unset loopback in [access]",
        ),
        (
            {"WINNOW_HOST": "192.0.2.1", "WINNOW_ALLOW_ANONYMOUS": "1"},
            "note",
            "everybody who reaches 192.0.2.1:8000 is served without a key",
            "winnow keys create, and unset WINNOW_ALLOW_ANONYMOUS",
        ),
        (
            {"WINNOW_HOST": "::", "WINNOW_ALLOW_ANONYMOUS": "1", "WINNOW_SERVICE_HOSTS": "rag.example"},
            "note",
            "under the names rag.example",
            "winnow keys create, and unset WINNOW_ALLOW_ANONYMOUS",
        ),
    ],
)
def test_who_is_served(tmp_path: Path, environ: dict[str, str], state: str, detail: str, fix: str) -> None:
    """A door that is open to all is told, and one that is open in vain."""
    [found] = told(list(exposure(settings(tmp_path, **environ))), "door")
    assert (found[0], detail in found[1], found[2]) == (state, True, fix)


@pytest.mark.parametrize(
    ("environ", "told_of"),
    [
        ({"WINNOW_ADMIN_KEY": "short"}, "must have 32 or more"),
        ({"WINNOW_ADMIN_KEY_FILE": "nowhere"}, "cannot be read"),
    ],
)
def test_a_first_key_that_stops_the_start(tmp_path: Path, environ: dict[str, str], told_of: str) -> None:
    """It is broken, and its text is not shown."""
    [(state, detail, _)] = told(list(exposure(settings(tmp_path, **environ))), "keys")
    assert (state, told_of in detail, "short" in detail) == ("broken", True, False)


def test_keys_that_end_and_budgets_of_nobody(tmp_path: Path) -> None:
    """What needs attention is named, and no key is made or changed by looking."""
    file = KeyFile(tmp_path / ".winnow" / KEY_FILE, time.time)
    now = datetime.now(UTC)
    for name, days in (("long", 300), ("soon", 3), ("gone", -1)):
        file.create(KeyRequest(name=name, scopes=("search",), expires_at=now + timedelta(days=days)))
    file.create(KeyRequest(name="old", scopes=("search",)))
    file.revoke("old")
    before = file.path.read_bytes()
    budgets = (
        '{"long": {"daily_usd": 1}, "*": {"daily_usd": 1}, "anonymous": {"daily_usd": 1}, "bob": {"daily_usd": 1}}'
    )
    found = told(list(exposure(settings(tmp_path, WINNOW_BUDGETS_KEYS=budgets))), "keys")
    assert [(state, detail) for state, detail, _ in found] == [
        ("ok", "2 keys: long, soon"),
        ("note", f"soon expires on {now + timedelta(days=3):%Y-%m-%d}"),
        ("note", "expired: gone"),
        ("note", "[budgets.keys.bob] is for a key that is not there"),
    ]
    assert file.path.read_bytes() == before


def test_many_keys_are_not_all_listed(tmp_path: Path) -> None:
    """Five of them, and how many more."""
    file = KeyFile(tmp_path / ".winnow" / KEY_FILE, time.time)
    for number in range(7):
        file.create(KeyRequest(name=f"k{number}", scopes=("search",)))
    [(_, detail, _)] = told(list(exposure(settings(tmp_path))), "keys")
    assert detail == "7 keys: k0, k1, k2, k3, k4 and 2 more"


def test_a_backend_at_our_own_address(tmp_path: Path) -> None:
    """vLLM's default port is Winnow's."""
    found = list(exposure(settings(tmp_path, VLLM_URL="http://localhost:8000/v1")))
    [(state, _, fix)] = told(found, "backend vllm")
    assert (state, fix) == ("note", "another port for one of them: WINNOW_PORT, or url in [backends.vllm]")
    assert not told(list(exposure(settings(tmp_path, VLLM_URL="http://localhost:8001/v1"))), "backend vllm")


@pytest.mark.skipif(os.name != "posix", reason="rights are those of POSIX")
def test_a_home_that_others_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is open in an open home is named, with the command that closes it."""
    monkeypatch.setenv("PATH", NO_PROGRAMS)
    home = tmp_path / ".winnow"
    home.mkdir(mode=0o755)
    (home / "keys").touch(mode=0o600)
    assert told(list(machine(settings(tmp_path))), "rights") == []
    (home / "ledger.sqlite3").touch()
    (home / "ledger.sqlite3").chmod(0o644)
    [(state, detail, fix)] = told(list(machine(settings(tmp_path))), "rights")
    assert (state, detail.endswith("may read ledger.sqlite3"), fix) == ("note", True, f"chmod -R go= {home}")
    home.chmod(0o700)
    assert told(list(machine(settings(tmp_path))), "rights") == []


def test_a_file_from_the_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock has gone back, on which budgets go."""
    monkeypatch.setenv("PATH", NO_PROGRAMS)
    home = tmp_path / ".winnow"
    home.mkdir()
    (home / "ledger.sqlite3").touch()
    assert told(list(machine(settings(tmp_path))), "clock") == []
    os.utime(home / "ledger.sqlite3", times=(time.time() + 10_000,) * 2)
    assert [state for state, *_ in told(list(machine(settings(tmp_path))), "clock")] == ["note"]


def test_calibrations_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would stop the start."""
    monkeypatch.setenv("PATH", NO_PROGRAMS)
    (tmp_path / ".winnow").mkdir()
    (tmp_path / ".winnow" / "calibration.json").write_text("[")
    assert [state for state, *_ in told(list(machine(settings(tmp_path))), "calibrations")] == ["broken"]


@pytest.mark.parametrize(
    ("machine_kb", "limit", "state", "detail"),
    [
        (8_000_000, None, "ok", "7.6 GiB"),
        (8_000_000, "max", "ok", "7.6 GiB"),
        (8_000_000, str(2**30), "note", "1.0 GiB, and some 1500 MiB are needed"),
        (1_000_000, None, "note", "1.0 GiB, and some 1500 MiB are needed"),
        (1_600_000, "9223372036854771712", "ok", "1.5 GiB"),
    ],
)
def test_memory_is_what_the_container_may_take(
    tmp_path: Path, machine_kb: int, limit: str | None, state: str, detail: str
) -> None:
    """The smaller one of the machine's and its own share."""
    (tmp_path / "meminfo").write_text(f"MemTotal:       {machine_kb} kB\nMemFree: 1 kB\n")
    if limit:
        (tmp_path / "limit").write_text(limit + "\n")
    [found] = _memory(tmp_path / "meminfo", (tmp_path / "limit",))
    assert (found.state, found.detail) == (state, detail)


def test_memory_elsewhere_than_on_linux_is_not_looked_at(tmp_path: Path) -> None:
    """Nothing is said."""
    assert list(_memory(tmp_path / "meminfo", ())) == []


@pytest.mark.parametrize(("driver", "state"), [("580.65.06", "ok"), ("550.54.15", "note")])
def test_a_gpu_and_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, state: str) -> None:
    """As NVIDIA's program describes it; vLLM needs a recent driver."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho 'NVIDIA GeForce RTX 4090, 24564 MiB, {driver}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    [found] = told(list(machine(settings(tmp_path))), "gpu")
    assert found[0] == state
    assert "RTX 4090" in found[1]


@pytest.mark.parametrize(("device", "states"), [("cuda", ["broken"]), ("", [])])
def test_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, states: list[str]) -> None:
    """It matters where the embedder is to run on one."""
    monkeypatch.setenv("PATH", NO_PROGRAMS)
    found = machine(settings(tmp_path, WINNOW_EMBEDDING_DEVICE=device))
    assert [state for state, *_ in told(list(found), "gpu")] == states


@pytest.mark.parametrize(
    ("theirs", "state", "detail"),
    [
        ("1.20.0", "ok", "version 1.20.0"),
        ("1.17.1", "note", "the server has version 1.17.1"),
        ("1.12.4", "broken", "the server has version 1.12.4, and Winnow needs 1.16 or later"),
    ],
)
def test_a_qdrant_server_and_its_door(tmp_path: Path, theirs: str, state: str, detail: str) -> None:
    """Its version is compared with the client's, and one that asks for no key is told."""
    with answering(200, json.dumps({"title": "qdrant", "version": theirs}).encode()) as url:
        first, second = told(list(exposure(settings(tmp_path, QDRANT_URL=url))), "qdrant")
    assert first[:2] == (state, detail)
    assert second[0] == "note"
    assert "QDRANT__SERVICE__API_KEY" in second[2]


def test_how_collections_lie_on_a_server(tmp_path: Path) -> None:
    """As they are, and what the settings ask for beyond, with the command that applies each."""

    async def create(url: str, grpc_port: int) -> None:
        store = ServerStore.connect(StoreSettings(url=url, grpc_port=grpc_port))
        await store.create("docs", SPEC)
        await store.close()

    with running() as server:
        asyncio.run(create(server.url, server.grpc_port))
        environ = {"QDRANT_URL": server.url, "WINNOW_STORE_GRPC_PORT": str(server.grpc_port)}
        assert told(list(exposure(settings(tmp_path, **environ))), "layout of docs") == [
            ("ok", "1 shard, 1 replica, payloads on disk", "")
        ]
        asking = {"WINNOW_STORE_SHARD_NUMBER": "2", "WINNOW_STORE_VECTORS_ON_DISK": "true"}
        _, first, second = told(list(exposure(settings(tmp_path, **environ, **asking))), "layout of docs")
    assert first[1:] == (
        "shard_number is 1, and [store] says 2",
        "winnow index --rebuild --collection docs, which applies it",
    )
    assert second[1:] == (
        "vectors_on_disk is false, and [store] says true",
        "winnow index --collection docs, which applies it",
    )


def test_a_server_that_is_none(tmp_path: Path) -> None:
    """That is told by the check of the index, not twice."""
    with answering(200, b"<html>") as url:
        assert told(list(exposure(settings(tmp_path, QDRANT_URL=url))), "qdrant") == []


def test_a_collector_of_traces(tmp_path: Path) -> None:
    """Whatever it answers it is there; without one named nothing is asked."""
    with answering(404, b"") as url:
        named = settings(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=url)
        assert told(list(exposure(named)), "tracing") == [("ok", url, "")]
    assert [state for state, *_ in told(list(exposure(named)), "tracing")] == ["note"]
    assert told(list(exposure(settings(tmp_path))), "tracing") == []


@pytest.mark.parametrize(
    ("url", "told_of"),
    [
        ("http://qdrant.example:6333", True),
        ("https://qdrant.example:6333", False),
        ("http://qdrant:6333", False),
        ("http://10.0.0.7:6333", False),
        ("http://127.0.0.1:6333", False),
        ("http://93.184.216.34:6333", True),
    ],
)
def test_a_key_that_travels_in_the_open(url: str, told_of: bool) -> None:
    """Over a network that others may listen to."""
    assert bool(list(_unencrypted(StoreSettings(url=url, api_key="k")))) == told_of
    assert list(_unencrypted(StoreSettings(url=url))) == []


@pytest.mark.parametrize(("apart", "states"), [(0, []), (600, ["note"])])
def test_clocks_that_differ(apart: int, states: list[str]) -> None:
    """This machine's and the server's; without a date nothing is said."""
    date = format_datetime(datetime.fromtimestamp(time.time() - apart, UTC), usegmt=True)
    assert [found.state for found in _skew(date)] == states
    assert list(_skew(None)) == []
