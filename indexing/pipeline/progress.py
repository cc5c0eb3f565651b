"""What a run of the pipeline is asked for, and the events it reports. Plain data that travels as JSON.

This module loads nothing of the pipeline, so that the command line can talk to a running service without it.
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import msgspec

NEEDS_FILES = (
    "this command reads or writes files, and the replica that writes to the index is on another machine: run it there, "
    "send the documents to POST /documents, or index them from a bucket (s3://...)"
)


class SyncRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A run over files. `inputs` are files, directories or globs, relative to `cwd`.

    `delete` removes documents whose files are gone from within the inputs. `rebuild` embeds everything anew beside the
    live index, this collection's earlier files and submitted documents included, and then switches. `retry_refused`
    reads files again that an earlier run could not read and that have not changed since. `force` rebuilds a damaged
    collection even if documents are lost by it.

    The documents become those of `tenant` ("": of none), for the groups `allowed` alone, () for all of the tenant. With
    None files that name no groups yet name none, and the run is refused where one does: who forgets them opens nothing.

    `ray` is the address of a Ray cluster that reads and embeds (`indexing.distributed`); "" for this process.
    """

    inputs: tuple[str, ...]
    cwd: str
    collection: str = "default"
    delete: bool = True
    rebuild: bool = False
    force: bool = False
    retry_refused: bool = False
    tenant: str = ""
    allowed: tuple[str, ...] | None = None
    ray: str = ""

    @property
    def needs_files(self) -> bool:
        """Whether it reads files of the machine."""
        return any("://" not in given for given in self.inputs)


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag="planned"):
    """What there is to do. Sources are files; `bytes` is the size of the new and changed ones."""

    new: int
    changed: int
    unchanged: int
    gone: int
    bytes: int


class Advanced(msgspec.Struct, frozen=True, kw_only=True, tag="advanced"):
    """Totals so far: passages that are embedded, their share of the bytes of sources, and the documents that count."""

    bytes: int
    documents: int
    passages: int


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag="notice"):
    """What the run does or waits for now, in one sentence.

    "loading_model": the embedding model is being loaded, which takes seconds (or a download). "waiting": another run
    holds the index. "reading": OCR has read a page of a scan, which takes seconds each. "finishing": everything is
    written, and the index is being optimised or switched. "advice": what would serve these documents better, and what
    of a file could not be read.
    """

    stage: Literal["loading_model", "waiting", "reading", "finishing", "advice"]
    detail: str


class NotIndexed(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """A source, or a record in it, that was not indexed. The run goes on.

    `kept` says that an earlier version of it stays in the index. `skipped`: it is of a kind that is never read, and
    nothing of it was in the index; all others failed. `known`: an earlier run could not read it, and it was not read
    again.
    """

    source: str
    reason: str
    detail: str
    kept: bool = False
    skipped: bool = False
    known: bool = False


class Summary(msgspec.Struct, frozen=True, kw_only=True, tag="summary"):
    """The end of a run. `passages` counts those written by this run, `total_*` what the collection holds now."""

    collection: str
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    refused: tuple[NotIndexed, ...] = ()
    passages: int = 0
    total_documents: int = 0
    total_passages: int = 0
    seconds: float = 0.0
    embed_seconds: float = 0.0
    rebuilt: bool = False

    @property
    def failed(self) -> int:
        """How many of the refused ones should have been read."""
        return sum(not one.skipped for one in self.refused)


class Copied(msgspec.Struct, frozen=True, kw_only=True, tag="copied"):
    """How far a snapshot is being written, checked or restored, or a collection repaired: passages, or documents."""

    step: Literal["writing", "checking", "restoring", "recovering"]
    done: int
    total: int


class SnapshotInfo(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """A snapshot: a file that holds a collection. `files` counts the files that its documents came from.

    `created_at` is UTC. `embedder` is the fingerprint of the model that made its vectors. `problem` says why the file
    cannot be restored; "" if nothing is known against it. `warnings` are what its writing found.
    """

    path: str
    collection: str = ""
    created_at: str = ""
    documents: int = 0
    passages: int = 0
    files: int = 0
    bytes: int = 0
    embedder: str = ""
    winnow: str = ""
    problem: str = ""
    warnings: tuple[str, ...] = ()


class SnapshotRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot to write of one collection: to the file `output`, else to the home under a name of its own."""

    needs_files: ClassVar[bool] = True

    collection: str
    output: str | None = None


class RestoreRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot to restore. `snapshot` is a path, or the name of one in the home.

    `collection` is the one that it must hold, if given; `name` the collection to restore it as. `force` replaces a
    collection of that name.
    """

    needs_files: ClassVar[bool] = True

    snapshot: str
    collection: str | None = None
    name: str | None = None
    force: bool = False


class Restored(msgspec.Struct, frozen=True, kw_only=True, tag="restored"):
    """The end of a restore. `kept` is the snapshot that was written of the collection that was replaced."""

    collection: str
    documents: int
    passages: int
    files: int
    seconds: float
    replaced: bool = False
    kept: str | None = None
    warnings: tuple[str, ...] = ()


class RepairRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A collection to repair."""

    needs_files: ClassVar[bool] = False

    collection: str


class Repaired(msgspec.Struct, frozen=True, kw_only=True, tag="repaired"):
    """The end of a repair: documents that were recovered from the store, and those that lacked passages there.

    Of these, the submitted ones were `written` again, and the next run over their files reads those `to_read` again.
    """

    collection: str
    recovered: int
    written: int
    to_read: int


Last = Summary | SnapshotInfo | Restored | Repaired
"""What a run returns: its last event."""

Event = Planned | Advanced | Notice | NotIndexed | Copied | Last

Report = Callable[[Event], None]


def say_nothing(_: Event) -> None:
    """For callers who do not listen."""


def reading_scan(name: str, report: Report) -> Callable[[int, int], None]:
    """Reports each page of the file of this name that OCR has read."""
    return lambda done, total: report(Notice(stage="reading", detail=f"{name}: {done} of {total} pages read by OCR"))


def loading_model(model: str) -> Notice:
    """The embedding model of this name is being loaded."""
    return Notice(stage="loading_model", detail=f"loading the embedding model {model}")
