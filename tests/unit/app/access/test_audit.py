"""The audit log."""

import stat
from pathlib import Path
from typing import Any

import msgspec

from app.access.audit import REFUSALS_PER_MINUTE, AuditEntry, AuditLog

NOW = 1_800_000_000.0


def add(log: AuditLog, **fields: Any) -> None:
    given = {"request_id": "r", "key": "ci", "client": "203.0.113.7", "method": "DELETE", "route": "/keys/{key}"}
    log.record(**{"status": 204, **given, **fields})


def lines(path: Path) -> list[AuditEntry]:
    return [msgspec.json.decode(line, type=AuditEntry) for line in path.read_bytes().splitlines()]


def test_a_line_says_who_did_what_and_how_it_ended(tmp_path: Path) -> None:
    """In a file that only its owner can read, which is there with the first line."""
    path = tmp_path / "home" / "audit.jsonl"
    log = AuditLog(path, lambda: NOW)
    assert not path.exists()
    add(log)
    add(log, key=None, status=401)
    log.close()
    assert [(line.key, line.method, line.route, line.status) for line in lines(path)] == [
        ("ci", "DELETE", "/keys/{key}", 204),
        (None, "DELETE", "/keys/{key}", 401),
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_refusals_do_not_push_out_the_rest(tmp_path: Path) -> None:
    """Of a flood of them so many a minute are written; changes always are."""
    log = AuditLog(tmp_path / "audit.jsonl", lambda: NOW)
    for _ in range(REFUSALS_PER_MINUTE * 3):
        add(log, status=401)
    add(log)
    log.close()
    assert len(lines(tmp_path / "audit.jsonl")) == REFUSALS_PER_MINUTE + 1


def test_the_files_are_bounded(tmp_path: Path) -> None:
    """A full one becomes an earlier one, and the earliest goes; each is private."""
    log = AuditLog(tmp_path / "audit.jsonl", lambda: NOW, max_bytes=1000)
    for _ in range(100):
        add(log)
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit.jsonl", *(f"audit.jsonl.{number}" for number in range(1, 6))]
    assert all(file.stat().st_size <= 1000 and stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)


def test_a_failing_disk_fails_nobody(tmp_path: Path) -> None:
    """Here a folder stands where the file would be."""
    (tmp_path / "audit.jsonl").mkdir()
    log = AuditLog(tmp_path / "audit.jsonl", lambda: NOW)
    add(log)
    add(log)
    log.close()
