"""Snapshots of a service in use, a home that is broken in several ways, and the way back."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from app.cli.session import create_snapshot, index_files, restore_snapshot
from app.config.settings import IndexSection, Settings
from indexing.pipeline.progress import RestoreRequest, SnapshotRequest, SyncRequest, say_nothing
from tests.fakes.running import RunningServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

NAME = "notes"
QUERIES = ("zebras stripes", "number7", "snouts number12", "record3")


def asked(url: str) -> list[Any]:
    """What each query finds first. Scores move a little, as the engine counts deleted passages until it optimises."""
    answers = []
    for query in QUERIES:
        body = {"query": query, "collection": NAME, "limit": 1, "mode": "sparse", "backend": "none"}
        reply = httpx.post(f"{url}/search", json=body, timeout=30)
        assert reply.status_code == 200, reply.text
        (hit,) = reply.json()["results"]
        answers.append((hit["document_id"], hit["text"]))
    return answers


def shown(url: str) -> dict[str, str]:
    """Every document that is listed: id -> text."""
    page = httpx.get(f"{url}/documents", params={"collection": NAME, "limit": 1000}, timeout=30).json()
    ids = [document["id"] for document in page["documents"]]
    documents = (httpx.get(f"{url}/documents/{key}", params={"collection": NAME}, timeout=30).json() for key in ids)
    return {one["id"]: one["text"] for one in documents}


def put(url: str, documents: list[dict[str, Any]]) -> None:
    reply = httpx.post(f"{url}/documents", json={"collection": NAME, "documents": documents}, timeout=60)
    assert reply.status_code == 200, reply.text


def writing(url: str, stop: Event) -> None:
    """Write new documents and new versions of one, until told to stop."""
    count = 0
    while not stop.is_set():
        put(url, [{"id": f"w{count}", "text": f"Written meanwhile {count}."}, {"id": "busy", "text": f"Busy {count}."}])
        count += 1


def lose_collections(home: Path) -> None:
    shutil.rmtree(home / "index" / "collections")


def lose_manifest(home: Path) -> None:
    for file in home.glob("manifest.sqlite3*"):
        file.unlink()


def truncate_segment(home: Path) -> None:
    files = [path for path in (home / "index" / "collections" / NAME).glob("*/segments/*/**/*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    with largest.open("r+b") as file:
        file.truncate(1000)


def restarted(running: RunningServer, damage: Callable[[Path], None]) -> RunningServer:
    """The service after it was stopped, its home damaged, and it was started again."""
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(timeout=30)
    running.close()
    damage(running.home)
    return RunningServer(running.home)


def test_a_snapshot_brings_everything_back(tmp_path: Path) -> None:
    """Written while others write; after a lost index, a lost manifest and a torn segment all is found as before."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("Zebras have stripes.")
    (folder / "b.jsonl").write_text(
        "".join(f'{{"id": "r{n}", "text": "One of many, record{n}."}}\n' for n in range(30))
    )
    settings = Settings(index=IndexSection(home=tmp_path / "home"))
    running = RunningServer(tmp_path / "home")
    try:
        put(running.url, [{"id": f"n{n}", "text": f"Tapirs have snouts, number{n}."} for n in range(20)])
        request = SyncRequest(inputs=("docs",), cwd=str(tmp_path), collection=NAME)
        assert index_files(settings, request, say_nothing).created == 31
        stop = Event()
        writer = Thread(target=writing, args=(running.url, stop))
        writer.start()
        during = create_snapshot(settings, SnapshotRequest(collection=NAME), say_nothing)
        stop.set()
        writer.join(timeout=60)
        assert (during.documents >= 51, during.warnings) == (True, ())
        busy = restore_snapshot(settings, RestoreRequest(snapshot=during.path, name="other"), say_nothing)
        assert busy.documents == during.documents

        found, listed = asked(running.url), shown(running.url)
        snapshot = create_snapshot(settings, SnapshotRequest(collection=NAME), say_nothing).path
        for damage in (lose_collections, truncate_segment):
            running = restarted(running, damage)
            reply = httpx.post(f"{running.url}/search", json={"query": "zebras", "collection": NAME}, timeout=30)
            assert reply.status_code in (404, 503)
            restored = restore_snapshot(settings, RestoreRequest(snapshot=snapshot), say_nothing)
            assert restored.documents == len(listed)
            assert (asked(running.url), shown(running.url)) == (found, listed)
        running = restarted(running, lose_manifest)
        running.wait_for(f"recovered \\d+ documents of collection '{NAME}'")
        assert (asked(running.url), shown(running.url)) == (found, listed)
        assert index_files(settings, request, say_nothing).unchanged == len(listed)
    finally:
        running.close()
