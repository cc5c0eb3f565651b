"""How jobs look in a terminal."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from app.cli.jobs import removal, show_one, table

JOB: dict[str, Any] = {
    "id": "3f5d4a0f8a5a0c1d",
    "collection": "notes",
    "state": "running",
    "documents": 1200,
    "created": 640,
    "updated": 0,
    "unchanged": 12,
    "failed": 1,
    "passages": 5210,
    "detail": None,
    "created_at": "2026-11-28T12:00:00Z",
    "started_at": "2026-11-28T12:00:00Z",
    "finished_at": None,
    "seconds_left": 84.5,
    "errors": [{"id": None, "source": "a.pdf", "reason": "no_text_layer", "detail": "Its pages\x1b are pictures."}],
}
DONE = {**JOB, "state": "done", "finished_at": "2026-11-28T12:01:05Z", "seconds_left": None}


def printed(job: dict[str, Any], width: int = 120) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(table([job]))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("job", "shows"),
    [
        (JOB, "653/1,200"),
        (JOB, "1 min 24 s left"),
        (DONE, "1 min 5 s"),
        ({**JOB, "state": "queued", "seconds_left": None}, "waiting"),
        ({**JOB, "state": "queued", "documents": None, "seconds_left": None}, "not read yet"),
        ({**JOB, "documents": None, "detail": "a: b.pdf: 3 of 40 pages read by OCR"}, " 3 of 40 pages read by OCR"),
        ({**DONE, "state": "cancelled", "started_at": None}, "-"),
    ],
)
def test_a_line_says_how_far_a_job_is(job: dict[str, Any], shows: str) -> None:
    """Documents done, and how long is left or how long it took."""
    assert shows in printed(job)
    assert job["state"] in printed(job)


def test_a_job_fits_into_a_narrow_terminal() -> None:
    """In 80 columns its id, its collection and its progress are whole."""
    shown = printed(JOB, 80)
    for expected in ("3f5d4a0f8a5a0c1d", "notes", "653/1,200", "5,210"):
        assert expected in shown


def test_a_job_is_shown_with_what_failed() -> None:
    """Its counts, why it failed, and each document that did, without control characters."""
    console = Console(file=StringIO(), width=120)
    show_one(console, {**JOB, "state": "failed", "detail": "the store is away"})
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for expected in ("640 created", "the store is away", "a.pdf [no_text_layer] Its pages  are pictures."):
        assert expected in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(("state", "says"), [("queued", "cancelled"), ("running", "cancelled"), ("done", "forgot")])
def test_a_finished_job_is_not_said_to_be_cancelled(state: str, says: str) -> None:
    """Its documents are indexed all the same."""
    assert removal(state).startswith(says)
