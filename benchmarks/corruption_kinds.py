"""The ways in which `benchmarks.corruption` damages a home. DAMAGED is the collection that is hit, if one is."""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

DAMAGED = "mixed"
OLDER = "older"
"""In the scratch folder: the files of an earlier moment."""

Damage = Callable[[Path], None]


class Corruption(msgspec.Struct, frozen=True, kw_only=True):
    """`apply` damages a home. `while_it_runs`: under a running service, which is then started again.

    `unclean`: the service that wrote the home was killed. `bytes_kept`: the damaged file itself must be kept somewhere.
    `upgrade` is the way back where only another version of Winnow can use a file; here it undoes the damage.
    """

    name: str
    apply: Damage
    while_it_runs: bool = False
    unclean: bool = False
    bytes_kept: bool = False
    upgrade: Damage | None = None


def one(home: Path, pattern: str) -> Path:
    """The largest path that fits, below the damaged collection; with a slash before it, below the home."""
    base = home if pattern.startswith("/") else home / "index" / "collections" / DAMAGED
    paths = sorted(base.glob(pattern.removeprefix("/")), key=lambda path: (path.lstat().st_blocks, str(path)))
    if not paths:
        raise FileNotFoundError(f"nothing fits {pattern}")
    return paths[-1]


def delete(pattern: str, home: Path) -> None:
    """A file, or a directory with all that is in it."""
    path = one(home, pattern)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def empty(pattern: str, home: Path) -> None:
    """A file without a byte, or a directory without a file."""
    path = one(home, pattern)
    if path.is_dir():
        shutil.rmtree(path)
        path.mkdir()
    else:
        path.write_bytes(b"")


def halve(pattern: str, home: Path) -> None:
    """Cut off the second half."""
    path = one(home, pattern)
    os.truncate(path, path.stat().st_size // 2)


def zero(pattern: str, home: Path) -> None:
    """As many zeros as there were bytes."""
    path = one(home, pattern)
    size = path.stat().st_size
    os.truncate(path, 0)
    os.truncate(path, size)


def garble(pattern: str, home: Path) -> None:
    """Random bytes in the place of the first 4 KB."""
    path = one(home, pattern)
    with path.open("r+b") as file:
        file.write(random.Random(1).randbytes(min(4096, max(64, path.stat().st_size))))


def flip(pattern: str, home: Path, *, quietly: bool = False) -> None:
    """One bit in each of 64 bytes that are not zero; quietly: the file's time stays what it was."""
    path = one(home, pattern)
    status, dice = path.stat(), random.Random(1)
    with path.open("r+b") as file:
        data = bytearray(file.read())
        places = [place for place, byte in enumerate(data) if byte]
        for place in dice.sample(places, min(64, len(places))):
            data[place] ^= 1 << dice.randrange(8)
        file.seek(0)
        file.write(data)
    if quietly:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def write(path: str, content: bytes, home: Path) -> None:
    """A file where there was none, or another one."""
    target = home / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def both(first: Damage, second: Damage, home: Path) -> None:
    """Two at once."""
    first(home)
    second(home)


def point_nowhere(home: Path) -> None:
    """The pointer names a generation that is not there."""
    pointer = one(home, "current.json")
    generation = one(home, "*/segments").parent.name
    pointer.write_bytes(pointer.read_bytes().replace(generation.encode(), b"0" * len(generation)))


def turn_to_directory(pattern: str, home: Path) -> None:
    """A directory has the file's name."""
    path = one(home, pattern)
    path.unlink()
    path.mkdir()


def older_manifest(home: Path) -> None:
    """As a back-up of this file alone would bring it back."""
    for name in ("manifest.sqlite3-wal", "manifest.sqlite3-shm"):
        (home / name).unlink(missing_ok=True)
    shutil.copy(home.parent / OLDER / "manifest.sqlite3", home / "manifest.sqlite3")


def change_version(by: int, home: Path) -> None:
    """Of the manifest: as another version of Winnow would leave it."""
    with sqlite3.connect(home / "manifest.sqlite3") as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {version + by}")
    database.close()


def lose_manifest(damage: Damage, home: Path) -> None:
    """With its journals."""
    for name in ("manifest.sqlite3-wal", "manifest.sqlite3-shm"):
        (home / name).unlink(missing_ok=True)
    damage(home)


def stray_links(home: Path) -> None:
    """One to nowhere, one in a circle, one out of the home."""
    collections = home / "index" / "collections"
    (collections / "nowhere").symlink_to(home / "not-there")
    (collections / "circle").symlink_to(collections / "circle")
    (collections / "outside").symlink_to("/usr/share")


def half_built(home: Path) -> None:
    """A second generation, with segments, that no pointer names: as a killed rebuild leaves it."""
    generation = one(home, "*/segments").parent
    copy = generation.with_name("f" * len(generation.name))
    shutil.copytree(generation, copy)
    (copy / "spec.json").unlink(missing_ok=True)


def empty_generation(home: Path) -> None:
    """As a rebuild that was killed at once leaves it."""
    one(home, "*/segments").parent.with_name("e" * 12).mkdir()


def half_snapshot(home: Path) -> None:
    """A snapshot that was being written when the power went."""
    write(f"snapshots/{DAMAGED}-20260101T000000Z.winnow-snapshot", os.urandom(5000), home)
    write("snapshots/.half.part", b"half", home)


SEGMENT = "*/segments/*"
PAYLOAD, DENSE, SPARSE = (
    f"{SEGMENT}/{part}" for part in ("payload_storage", "vector_storage-dense", "vector_storage-sparse")
)
MANIFEST = "/manifest.sqlite3"


def _case(name: str, apply: Damage, **options: Any) -> Corruption:
    return Corruption(name=name, apply=apply, **options)


CORRUPTIONS = (
    _case("nothing at all", lambda _: None),
    _case("nothing, after a kill", lambda _: None, unclean=True),
    _case("pointer deleted", partial(delete, "current.json")),
    _case("pointer emptied", partial(empty, "current.json")),
    _case("pointer cut in half", partial(halve, "current.json")),
    _case("pointer garbage", partial(garble, "current.json")),
    _case("pointer names a generation that is not there", point_nowhere),
    _case("pointer is a directory", partial(turn_to_directory, "current.json")),
    _case("spec deleted", partial(delete, "*/spec.json")),
    _case("pointer and spec deleted", partial(both, partial(delete, "current.json"), partial(delete, "*/spec.json"))),
    _case("generation deleted", partial(delete, "*[0-9a-f]")),
    _case("log (wal) zeroed", partial(zero, "*/wal/open-1"), unclean=True),
    _case("log (wal) deleted", partial(delete, "*/wal"), unclean=True),
    _case("log (wal) cut in half", partial(halve, "*/wal/open-1"), unclean=True),
    _case("segment.json deleted", partial(delete, f"{SEGMENT}/segment.json")),
    _case("segment.json garbage", partial(garble, f"{SEGMENT}/segment.json")),
    _case("segment's version deleted", partial(delete, f"{SEGMENT}/version.info")),
    _case("all segments deleted", partial(empty, "*/segments")),
    _case("one segment deleted", partial(delete, SEGMENT)),
    _case("payloads zeroed", partial(zero, f"{PAYLOAD}/page_0.dat")),
    _case("payloads: bits flipped", partial(flip, f"{PAYLOAD}/page_0.dat")),
    _case("payloads: bits flipped, time kept", partial(flip, f"{PAYLOAD}/page_0.dat", quietly=True)),
    _case("payload tracker cut in half", partial(halve, f"{PAYLOAD}/tracker.dat")),
    _case("payload config deleted", partial(delete, f"{PAYLOAD}/config.json")),
    _case("id tracker deleted", partial(delete, f"{SEGMENT}/*id_tracker.mappings")),
    _case("id tracker cut in half", partial(halve, f"{SEGMENT}/*id_tracker.mappings")),
    _case("id versions: bits flipped", partial(flip, f"{SEGMENT}/*id_tracker.versions")),
    _case("vectors cut in half", partial(halve, f"{DENSE}/vectors/chunk_0.mmap")),
    _case("vectors: bits flipped", partial(flip, f"{DENSE}/vectors/chunk_0.mmap")),
    _case("vectors' deletions deleted", partial(delete, f"{DENSE}/deleted")),
    _case("sparse vectors zeroed", partial(zero, f"{SPARSE}/store/page_0.dat")),
    _case("payload index garbage", partial(garble, f"{SEGMENT}/payload_index/config.json")),
    _case("shard's config deleted", partial(delete, "*/edge_config.json")),
    _case("shard's config garbage", partial(garble, "*/edge_config.json")),
    _case("manifest deleted", partial(lose_manifest, partial(delete, MANIFEST))),
    _case("manifest emptied", partial(lose_manifest, partial(empty, MANIFEST))),
    _case("manifest cut in half", partial(lose_manifest, partial(halve, MANIFEST)), bytes_kept=True),
    _case("manifest garbage", partial(lose_manifest, partial(garble, MANIFEST)), bytes_kept=True),
    _case("manifest from earlier", older_manifest),
    _case(
        "manifest of a later version",
        partial(change_version, 99),
        bytes_kept=True,
        upgrade=partial(change_version, -99),
    ),
    _case("jobs garbage", partial(write, "jobs.sqlite3", b"garbage" * 1000), bytes_kept=True),
    _case("ledger garbage", partial(garble, "/ledger.sqlite3"), bytes_kept=True),
    _case("service.json garbage", partial(write, "service.json", b'{"url": "http://127.0.0.1:1", "to')),
    _case("lock deleted", partial(delete, "/index/lock")),
    _case("stray file beside the collections", partial(write, "index/collections/README.txt", b"Read me.")),
    _case("stray folder beside the collections", partial(write, "index/collections/..odd name/notes.txt", b"Mine.")),
    _case("stray links beside the collections", stray_links),
    _case("empty generation", empty_generation),
    _case("half-built generation", half_built),
    _case("half-written snapshot", half_snapshot),
    _case("running: pointer deleted", partial(delete, "current.json"), while_it_runs=True),
    _case("running: one segment deleted", partial(delete, SEGMENT), while_it_runs=True),
    _case("running: payloads zeroed", partial(zero, f"{PAYLOAD}/page_0.dat"), while_it_runs=True),
    _case("running: manifest deleted", partial(lose_manifest, partial(delete, MANIFEST)), while_it_runs=True),
    _case("running: service.json deleted", partial(delete, "/service.json"), while_it_runs=True),
)
