"""The command `winnow`, as a shell starts it."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from app.accounting.budgets import PICO
from app.accounting.ledger import LEDGER_FILE
from tests.fakes.money import record, written
from tests.fakes.running import RunningServer

ROOT = Path(__file__).parents[2]

MORE_THAN_A_PIPE = 4_000_000
"""Characters. Linux holds up to one megabyte for a reader."""


def start(cwd: Path, *args: str, **environ: str) -> subprocess.Popen[str]:
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("WINNOW_", "QDRANT_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli.main", *args],
        cwd=cwd,
        env={**mine, "PYTHONPATH": str(ROOT), **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def winnow(cwd: Path, *args: str, stdin: str = "", **environ: str) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    with start(cwd, *args, **environ) as process:
        out, err = process.communicate(stdin, timeout=90)
        return process.returncode, out, err


def test_what_is_written_is_the_owners_alone(tmp_path: Path) -> None:
    """Whatever the shell's mask is: directories 0700, files 0600."""
    before = os.umask(0o022)
    try:
        status, _, _ = winnow(tmp_path, "jobs", WINNOW_HOME="home")
    finally:
        os.umask(before)
    assert status == 0
    paths = [tmp_path / "home", *(tmp_path / "home").rglob("*")]
    assert len(paths) > 1
    assert {path.stat().st_mode & 0o777 for path in paths} <= {0o700, 0o600}


def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """With the setting, and no traceback, for whatever opens the index."""
    (tmp_path / "file").touch()
    for command in (("search", "x", "--mode", "sparse"), ("index", "."), ("serve", "--port", "0")):
        status, _, err = winnow(tmp_path, *command, WINNOW_HOME="file/home")
        assert (status, len(err.splitlines())) == (2, 1), err
        assert "WINNOW_HOME names another place" in err


def test_a_misspelt_variable_is_told_on_standard_error(tmp_path: Path) -> None:
    """With the name that was meant; what a program reads stays as it is."""
    status, out, err = winnow(tmp_path, "usage", "--json", WINNOW_HOEM="/data")
    assert (status, "did you mean WINNOW_HOME?" in err) == (0, True)
    json.loads(out)


@pytest.mark.parametrize("args", [["--help"], ["index", "-h"], ["--version"]])
def test_help_needs_nothing(tmp_path: Path, args: list[str]) -> None:
    """It is status 0, and leaves nothing behind."""
    status, out, _ = winnow(tmp_path, *args)
    assert (status, "winnow" in out) == (0, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["index"], "PATH"),
        (["index", "-", "docs"], "cannot be combined"),
        (["search", " "], "QUERY is empty"),
        (["search", "x", "--filter", "[1]"], "not a JSON object"),
        (["search", "x", "--filter", '{"a": {"bad": 1}}'], "unknown operator"),
        (["search", "x", "--mode", "bad"], "--mode"),
        (["usage", "--since", "yesterday"], "since: 'yesterday' is not a date"),
        (["cost"], "--input"),
        (["cost", "--input", "1M", "--gpu", "H100"], "known are RTX 3060"),
        (["vllm", "--preset", "rtx3080", "--model", "12b"], "does not fit"),
        (["eval", "--data", "nowhere"], "nowhere is not a directory; specify one with corpus.jsonl"),
        (["eval", "--data", ".", "--output", "no/such/folder"], "cannot be written"),
        (["eval", "--data", ".", "--backend", "x"], "known are auto, none, extractive"),
        (["calibrate", "--data", ".", "--backend", "none"], "needs the name of a configured backend"),
    ],
)
def test_wrong_usage_is_status_2(tmp_path: Path, args: list[str], said: str) -> None:
    """One line that says what is wrong."""
    status, out, err = winnow(tmp_path, *args)
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_collection_that_is_not_there_is_status_3(tmp_path: Path) -> None:
    """It says which command creates it, and no model is loaded for that."""
    status, _, err = winnow(tmp_path, "search", "x")
    assert (status, err) == (3, "winnow: collection 'default' not found; create it with: winnow index PATH\n")


def test_a_home_that_cannot_be_made_is_status_2(tmp_path: Path) -> None:
    """One line, no traceback."""
    (tmp_path / "file").touch()
    status, _, err = winnow(tmp_path, "search", "x", WINNOW_HOME="file/home")
    assert (status, err.count("\n")) == (2, 1)


def test_a_ledger_that_is_none_is_status_2(tmp_path: Path) -> None:
    """A file of another program is not touched: the service does not start, and one line names it."""
    (tmp_path / ".winnow").mkdir()
    with closing(sqlite3.connect(tmp_path / ".winnow" / LEDGER_FILE)) as db:
        db.execute("CREATE TABLE theirs (x)")
    status, _, err = winnow(tmp_path, "serve", "--port", "0")
    assert (status, err.count("\n")) == (2, 1)
    assert LEDGER_FILE in err
    assert "belongs to another program" in err


def test_an_order_that_names_nobody_is_status_2(tmp_path: Path) -> None:
    """The service does not start; one line names the setting, what it says, and what it could say."""
    status, _, err = winnow(tmp_path, "serve", "--port", "0", GEMINI_API_KEY="k", WINNOW_ROUTING_AUTO="gema")
    assert (status, err) == (2, "winnow: auto in [routing] names gema; the backends declared are gemini\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"WINNOW_ADMIN_KEY": "short"}, "WINNOW_ADMIN_KEY must have"),
        ({"WINNOW_ADMIN_KEY_FILE": "missing"}, "WINNOW_ADMIN_KEY_FILE names it"),
    ],
)
def test_keys_that_cannot_be_read_are_status_2(tmp_path: Path, settings: dict[str, str], line: str) -> None:
    """The service does not start, and says why in one line."""
    status, _, err = winnow(tmp_path, "serve", "--port", "0", **settings)
    assert (status, err.count("\n"), line in err) == (2, 1, True), err


@pytest.mark.slow
def test_money_without_a_service(tmp_path: Path) -> None:
    """Usage and its export read the ledger; an estimate needs nothing; none of them makes a file."""
    assert winnow(tmp_path, "usage")[::2] == (0, "")
    status, out, _ = winnow(tmp_path, "cost", "--input", "10M", "--output", "2M", "--json")
    assert (status, json.loads(out)["apis"][0]["usd"]) == (0, 5.5)
    assert not list(tmp_path.iterdir())
    written(tmp_path / ".winnow" / LEDGER_FILE, record(time.time() - 60, pico=PICO))
    status, out, _ = winnow(tmp_path, "usage", "--by", "day", "--json")
    assert (status, json.loads(out)["total"]["cost_usd"]) == (0, 1.0)
    status, out, _ = winnow(tmp_path, "usage", "--export", "-")
    assert (status, json.loads(out)["request_id"]) == (0, "r1")
    status, _, err = winnow(tmp_path, "usage", "--export", "calls.jsonl")
    assert (status, err) == (0, "1 calls written to calls.jsonl\n")
    assert (tmp_path / "calls.jsonl").read_text() == out


@pytest.mark.slow
def test_money_of_a_running_service(tmp_path: Path) -> None:
    """The commands ask it, and find the same."""
    running = RunningServer(tmp_path / "home")
    written(tmp_path / "home" / LEDGER_FILE, record(time.time() - 60, pico=PICO))
    home = str(tmp_path / "home")
    try:
        status, out, _ = winnow(tmp_path, "usage", "--json", WINNOW_HOME=home)
        assert (status, json.loads(out)["rows"][0]["cost_usd"], json.loads(out)["ledger"]["lost"]) == (0, 1.0, 0)
        assert json.loads(winnow(tmp_path, "usage", "--export", "-", WINNOW_HOME=home)[1])["cost_usd"] == 1.0
        assert winnow(tmp_path, "usage", "--since", "?", WINNOW_HOME=home)[0] == 2
        status, out, _ = winnow(tmp_path, "cost", "--input", "10M", "--gpu", "4090", WINNOW_HOME=home)
        assert (status, "RTX 4090" in out, "RTX 3060 " in out) == (0, True, True)
    finally:
        running.close()


@pytest.mark.slow
def test_a_life_with_documents(tmp_path: Path) -> None:
    """Index with refusals, search, answer, stream, an ASCII terminal, and interrupt; each with its status."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "cover.md").write_text(
        "# Benefits\n\nDental cover starts on your first day.\n\n电水壶的保修期是三年。"
    )
    (tmp_path / "docs" / "noise.txt").write_bytes(bytes(range(256)) * 20)
    status, out, err = winnow(tmp_path, "index", "docs", "--json")
    assert (status, json.loads(out)["created"]) == (0, 1)
    assert "skipped noise.txt [binary]" in err
    (tmp_path / "docs" / "broken.pdf").write_bytes(b"%PDF-1.4 cut short")
    status, _, err = winnow(tmp_path, "index", "docs")
    assert (status, "failed broken.pdf [corrupt]" in err, "1 skipped, 1 failed" in err) == (1, True, True)
    status, out, _ = winnow(tmp_path, "search", "保修期", "--mode", "sparse", PYTHONIOENCODING="ascii")
    assert (status, "cover.md" in out) == (0, True)
    status, out, err = winnow(tmp_path, "answer", "When does dental cover start?", "--stream")
    assert (status, err) == (0, "")
    assert "“Dental cover starts on your first day.”" in out
    process = start(tmp_path, "index", "-")
    assert process.stdin is not None
    process.stdin.write("a" * MORE_THAN_A_PIPE)  # returns when somebody is reading
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.strip().startswith("interrupted")


@pytest.mark.slow
def test_collections_and_documents_without_a_service(tmp_path: Path) -> None:
    """Create, fill, list, show and delete, each with its status."""
    status, out, _ = winnow(tmp_path, "collections", "create", "notes", "--json")
    assert (status, json.loads(out)["documents"]) == (0, 0)
    status, _, _ = winnow(
        tmp_path, "index", "-", "--collection", "notes", "--name", "cover.md", stdin="# Dental\n\nCover."
    )
    assert status == 0
    status, out, _ = winnow(tmp_path, "documents", "list", "--collection", "notes", "--json")
    (document,) = json.loads(out)["documents"]
    assert (status, document["source"]) == (0, "cover.md")
    status, out, _ = winnow(tmp_path, "documents", "show", document["id"], "--collection", "notes")
    assert (status, "# Dental\n\nCover." in out) == (0, True)
    assert winnow(tmp_path, "documents", "delete", document["id"], "--collection", "notes")[0] == 0
    status, _, err = winnow(tmp_path, "documents", "delete", document["id"], "--collection", "notes")
    assert (status, "not found" in err) == (3, True)
    assert winnow(tmp_path, "index", "-", "--collection", "notes", "--tenant", "acme", stdin="Ours alone.")[0] == 0
    status, out, _ = winnow(tmp_path, "documents", "list", "--collection", "notes", "--json")
    (document,) = json.loads(out)["documents"]
    of_theirs = ("documents", "show", document["id"], "--collection", "notes", "--tenant", "acme")
    assert winnow(tmp_path, *of_theirs[:-2])[0] == 3
    status, out, _ = winnow(tmp_path, *of_theirs)
    assert (status, "Ours alone." in out, "acme" in out) == (0, True, True)
    assert winnow(tmp_path, "documents", "delete", *of_theirs[2:])[0] == 0
    status, _, err = winnow(tmp_path, "collections", "delete", "notes")
    assert (status, "--yes" in err) == (2, True)
    assert winnow(tmp_path, "collections", "delete", "notes", "--yes")[0] == 0
    status, out, _ = winnow(tmp_path, "collections")
    assert (status, "no collections yet" in out) == (0, True)
    status, out, _ = winnow(tmp_path, "jobs", "list")
    assert (status, "no jobs" in out) == (0, True)
    status, _, err = winnow(tmp_path, "jobs", "cancel", "nope")
    assert (status, "not found" in err) == (3, True)
