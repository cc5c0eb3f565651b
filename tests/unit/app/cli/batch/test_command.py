"""What a command leaves beside its output: nothing of a run that could not begin, nor of one before --restart."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from click.exceptions import Exit

from app.cli.batch import command
from app.cli.batch.command import FileOptions, work_through
from app.errors import ConfigError, InvalidRequest

REFUSED = {"type": "urn:winnow:problem:refused", "detail": "declined"}


class Bench:
    """A file of three texts, and runs over it; texts with a word of `refuses` in them fail."""

    def __init__(self, home: Path) -> None:
        self.home, self.source, self.out = home, home / "texts.txt", home / "out.jsonl"
        self.source.write_text("one\ntwo\nthree\n")
        self.refuses = ""
        self.failure: Exception | None = None
        self.asked: list[str] = []

    async def judge(
        self, settings: object, path: str, options: object, rows: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        if self.failure is not None:
            raise self.failure
        async for line in rows:
            row = json.loads(line)
            self.asked.append(row["text"])
            failed = {"error": REFUSED} if row["text"] in self.refuses.split() else {"text": row["text"].upper()}
            yield json.dumps({"id": row["id"], **failed}).encode() + b"\n"

    def run(self, **options: Any) -> int:
        """The exit status."""
        usual = {"out": self.out, "field": "text", "concurrency": 4, "budget_usd": None}
        flags = {"batch": False, "restart": False, "retry_failed": False}
        self.asked.clear()
        try:
            work_through("chat", str(self.source), {}, FileOptions(**{**usual, **flags, **options}))
        except Exit as exc:
            return exc.exit_code
        return 0

    @property
    def texts(self) -> list[str | None]:
        return [json.loads(line).get("text") for line in self.out.read_text().splitlines()]

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.home.iterdir() if path.name.startswith(("out", "link")))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path)
    monkeypatch.setattr(command, "judge_lines", bench.judge)
    monkeypatch.chdir(tmp_path)
    return bench


def test_settings_are_checked_before_anything_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty output would be taken for one of a file without texts."""

    def wrong() -> None:
        raise ConfigError("auto names zz")

    monkeypatch.setattr(command, "current_settings", wrong)
    with pytest.raises(ConfigError):
        bench.run()
    assert bench.files == []


@pytest.mark.parametrize("failure", [InvalidRequest("unknown backend"), ConfigError("no key")])
def test_options_that_nobody_takes_leave_no_output(bench: Bench, failure: Exception) -> None:
    """But one that had been begun stays, and so does the plan of batches that were paid for."""
    bench.failure = failure
    with pytest.raises(type(failure)):
        bench.run()
    assert bench.files == []
    (bench.home / "out.jsonl.batches.json").write_text("{}")
    with pytest.raises(type(failure)):
        bench.run()
    assert bench.files == ["out.jsonl", "out.jsonl.batches.json", "out.jsonl.run.json"]
    bench.failure = None
    assert bench.run() == 0
    with bench.source.open("a") as file:
        file.write("four\n")
    bench.failure = failure
    with pytest.raises(type(failure)):
        bench.run()
    assert bench.texts == ["ONE", "TWO", "THREE"]


def test_failed_texts_of_a_linked_output_are_tried_again(bench: Bench) -> None:
    """The link stays one, and its file has the texts."""
    (elsewhere := bench.home / "elsewhere").mkdir()
    link = bench.home / "link.jsonl"
    link.symlink_to(elsewhere / "out.jsonl")
    bench.refuses = "two"
    assert bench.run(out=link) == 1
    bench.refuses = ""
    assert (bench.run(out=link, retry_failed=True), bench.asked) == (0, ["two"])
    assert (link.is_symlink(), bench.files) == (True, ["link.jsonl"])
    assert sorted(path.name for path in elsewhere.iterdir()) == ["out.jsonl", "out.jsonl.run.json"]
    bench.out = link
    assert bench.texts == ["ONE", "TWO", "THREE"]


def test_restart_forgets_a_retry_that_was_interrupted(bench: Bench) -> None:
    """Its rows are of the output that was given up."""
    bench.refuses = "two three"
    assert bench.run() == 1
    retry = bench.home / "out.jsonl.retry"
    retry.write_text('{"id":1,"text":"STALE"}\n')
    origin = bench.home / "out.jsonl.run.json"
    (bench.home / "out.jsonl.retry.run.json").write_bytes(origin.read_bytes())
    assert (bench.run(restart=True), bench.files) == (1, ["out.jsonl", "out.jsonl.run.json"])
    bench.refuses = ""
    assert bench.run(retry_failed=True) == 0
    assert (bench.texts, bench.files) == (["ONE", "TWO", "THREE"], ["out.jsonl", "out.jsonl.run.json"])


def test_a_retry_that_was_interrupted_goes_on(bench: Bench) -> None:
    """What it has is not asked for again."""
    bench.refuses = "one two three"
    assert bench.run() == 1
    bench.refuses = "three"
    assert (bench.run(retry_failed=True), bench.texts) == (1, ["ONE", "TWO", None])
    assert (bench.run(retry_failed=True), bench.asked) == (1, ["three"])
