"""When `winnow watch` indexes, and when it waits."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli import main, watch
from app.cli.watch import LONGEST_PAUSE_S, MOST_LOOKS, Seen, follow, look
from indexing.errors import IndexBusy
from indexing.pipeline.progress import Summary, SyncRequest
from tests.fakes.bucket import buckets


class Enough(Exception):
    """There is nothing more to look at."""


def followed(looks: Sequence[Seen], works: Sequence[bool] = ()) -> tuple[list[int], list[float]]:
    """After which look there was a run, and the pauses, when each look finds the next of `looks`.

    Of `works` says each whether the next run can be done; those after them can.
    """
    runs: list[int] = []
    pauses: list[float] = []

    def see() -> Seen:
        if len(pauses) == len(looks):
            raise Enough
        return looks[len(pauses)]

    def run(_: Seen) -> bool:
        runs.append(len(pauses))
        return works[len(runs) - 1] if len(runs) <= len(works) else True

    with pytest.raises(Enough):
        follow(see, run, pauses.append, 10)
    return runs, pauses


A, B, C = {"x": {"a": 1}}, {"x": {"a": 2}}, {"x": {"a": 2, "c": 1}}


@pytest.mark.parametrize(
    ("looks", "runs"),
    [
        ([A, A, A], [0]),
        ([A, B, B, B], [0, 2]),
        ([A, B, C, C, C], [0, 3]),
        ([A, B, A, A], [0]),
        ([A, *({"x": {"a": n}} for n in range(2, 12))], [0, MOST_LOOKS + 1]),
    ],
)
def test_a_change_is_taken_once_it_has_settled(looks: list[Seen], runs: list[int]) -> None:
    """At the start, then only what a second look finds as it was; a file that never stops growing is taken as it is."""
    assert followed(looks)[0] == runs


def test_what_fails_is_tried_again_later_each_time() -> None:
    """The pauses double up to the longest, and are short again after a success."""
    runs, pauses = followed([A] * 9, [False] * 7)
    assert runs == list(range(8))
    assert pauses == [20, 40, 80, 160, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S, 10, 10]


def test_a_look_tells_every_change_of_a_folder_and_of_a_bucket(tmp_path: Path) -> None:
    """A new file, another size, another time, one that is gone; an input that does not exist yet."""
    request = SyncRequest(inputs=("docs", "s3://acme/docs"), cwd=str(tmp_path))
    with buckets() as bucket:
        seen = [look(request)]
        bucket.contents["acme/docs/b.txt"] = b"one"
        seen.append(look(request))
        bucket.contents["acme/docs/b.txt"] = b"two"
        seen.append(look(request))
        (tmp_path / "docs").mkdir()
        file = tmp_path / "docs" / "a.txt"
        file.write_text("one")
        seen.append(look(request))
        file.write_text("three")
        seen.append(look(request))
        assert look(request) == seen[-1]
        file.unlink()
        seen.append(look(request))
    assert all(one != other for one, other in pairwise(seen))


def test_the_command_tells_each_run_and_survives_a_busy_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run that fails is one line; the next look tries again."""
    asked: list[SyncRequest] = []
    pauses: list[float] = []

    def index_files(_: object, request: SyncRequest, __: object) -> Summary:
        asked.append(request)
        if len(asked) == 1:
            raise IndexBusy("held by another process")
        return Summary(collection="notes", created=1)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(watch, "index_files", index_files)
    monkeypatch.setattr(watch.time, "sleep", pause)
    (tmp_path / "a.txt").write_text("one")
    arguments = ["watch", str(tmp_path), "--collection", "notes", "--tenant", "acme", "--every", "2", "--json"]
    result = CliRunner().invoke(main.cli, arguments)
    assert [(one.collection, one.tenant) for one in asked] == [("notes", "acme")] * 2
    assert pauses == [4, 2, 2]
    assert "tried again later" in result.stderr
    assert [json.loads(line)["created"] for line in result.stdout.splitlines()] == [1]


def test_a_drive_that_is_not_there_loses_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At the start and later: a source that is missing or empty is no part of a run, and is named; others are."""
    drive, folder = tmp_path / "drive", tmp_path / "folder"
    asked: list[tuple[str, ...]] = []
    pauses: list[float] = []
    folder.mkdir()
    (folder / "a.txt").write_text("one")

    def index_files(_: object, request: SyncRequest, __: object) -> Summary:
        asked.append(request.inputs)
        return Summary(collection="notes")

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            drive.mkdir()
            (drive / "b.txt").write_text("two")
        elif len(pauses) == 5:
            (drive / "b.txt").unlink()
        elif len(pauses) == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(watch, "index_files", index_files)
    monkeypatch.setattr(watch.time, "sleep", pause)
    result = CliRunner().invoke(main.cli, ["watch", str(drive), str(folder)])
    both, one = (str(drive), str(folder)), (str(folder),)
    assert asked == [one, both, one]
    assert result.stderr.count(f"{drive} has no files") == 2
