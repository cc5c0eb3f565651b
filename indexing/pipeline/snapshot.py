"""Snapshots: a collection in one portable file, written while it is in use, and restored without embedding anything.

A snapshot is a ZIP archive, the same for every store:

    documents/000000.jsonl   rows of the manifest, with the bodies of submitted documents: about 2,000 passages a part
    passages/000000.jsonl    the passages of exactly these documents as stores keep them, with their sparse vectors
    dense/000000.float32     their dense vectors in the same order, little-endian
    sources.jsonl            the files that documents came from
    snapshot.json            `Head`: format, spec, counts and a hash over every other member; written last

Nothing is locked meanwhile. A part is consistent by versions: the passages that are in the store are compared with the
document's row, and a document that changed in between is read again.
"""

import asyncio
import hashlib
import os
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
import numpy as np

from indexing.concurrency import finish
from indexing.disk import DiskGuard, disk_error, sync_directory
from indexing.documents import EVERYTHING, from_payload, to_payload
from indexing.errors import Conflict, NotFound, StoreUnavailable
from indexing.pipeline.context import PipelineContext, live_lineage
from indexing.pipeline.manifest import DocumentRecord, SourceRecord
from indexing.pipeline.progress import Copied, Notice, Report, SnapshotInfo
from indexing.pipeline.sources import SNAPSHOT_SUFFIX
from indexing.store.base import CollectionInfo, CollectionSpec, Point, SparseVector, check_name

FORMAT = 2
"""1: documents had neither tenants nor groups. A version that knows 1 alone would restore them for everybody."""
SUFFIX = SNAPSHOT_SUFFIX

_HEAD, _SOURCES = "snapshot.json", "sources.jsonl"
_PART = 2_000
"""Passages of a part. What is held in memory is one part, or the largest document."""
_ROWS = 500
"""Documents of a part, and rows read from the manifest at a time."""
_TRIES = 5
"""How often a document that changes while it is read is read."""
_PAUSE_S = 0.05
_UPSERT = 512

T = TypeVar("T")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot says of itself. `hash` is over its other members in the order in which they were written."""

    format: int
    collection: str
    created_at: datetime
    winnow: str
    spec: CollectionSpec
    parts: int
    documents: int
    passages: int
    files: int
    hash: str


class _Line(msgspec.Struct, frozen=True):
    """A passage in a snapshot."""

    id: str
    payload: dict[str, Any]
    sparse: SparseVector | None


class Part(msgspec.Struct, frozen=True):
    """Some whole documents with their passages."""

    documents: list[DocumentRecord]
    points: list[Point]


async def create_snapshot(
    context: PipelineContext, name: str, path: Path, disk: DiskGuard, winnow: str, report: Report
) -> SnapshotInfo:
    """Write the collection to the new file `path`, and check what was written. `winnow` is the version that writes.

    Raises CollectionNotFound, DiskFull, Conflict where the file exists, and StoreUnavailable where it cannot be
    written.
    """
    if await asyncio.to_thread(path.exists):
        raise Conflict(f"{path} exists already; choose another name")
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        incomplete = await _write(context, name, lambda: _SnapshotWriter(partial, disk), winnow, report)
        written = await asyncio.to_thread(SnapshotFile, partial)
        await written.check(report)
        info = written.info()
        with file_errors(path):
            partial.replace(path)
            sync_directory(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    warnings = [f"{len(incomplete)} documents lack passages in the index: {', '.join(incomplete[:5])}"]
    return msgspec.structs.replace(info, path=str(path), warnings=tuple(warnings if incomplete else ()))


async def _write(
    context: PipelineContext, name: str, begin: Callable[[], "_SnapshotWriter"], winnow: str, report: Report
) -> list[str]:
    """Returns the documents of which passages are missing."""
    while True:
        info = await context.store.info(name)
        writer = await asyncio.to_thread(begin)
        try:
            incomplete = await _copy(context, info, writer, winnow, report)
        finally:
            await asyncio.to_thread(writer.close)
        if (await context.store.info(name)).spec.lineage == info.spec.lineage:
            return incomplete
        # Otherwise the collection was rebuilt meanwhile: half of this are vectors of the one before.


async def _copy(
    context: PipelineContext, info: CollectionInfo, writer: "_SnapshotWriter", winnow: str, report: Report
) -> list[str]:
    manifest, lineage, incomplete = context.manifest, info.spec.lineage, []
    before = {source.path: source async for page in manifest.source_pages(lineage) for source in page}
    async for document_ids in _groups(context, lineage):
        part, short = await _read_part(context, info, document_ids)
        incomplete += short
        await finish(asyncio.to_thread(writer.add, part))
        report(Copied(step="writing", done=writer.passages, total=max(info.passages, writer.passages)))
    # A file that was indexed or changed meanwhile: not all of its documents need be here. The next run reads it again.
    files = [
        source
        async for page in manifest.source_pages(lineage)
        for source in page
        if before.pop(source.path, None) == source
    ]
    await finish(asyncio.to_thread(writer.finish, files, info, winnow))
    return incomplete


async def _groups(context: PipelineContext, lineage: str) -> AsyncIterator[list[str]]:
    """The ids of all finished documents, as many at a time as make a part."""
    after, passages = "", 0
    group: list[str] = []
    while records := await context.manifest.documents(lineage, EVERYTHING, after=after, limit=_ROWS):
        for record in records:
            if group and (passages + record.passages > _PART or len(group) == _ROWS):
                yield group
                group, passages = [], 0
            group.append(record.id)
            passages += record.passages
        after = records[-1].id
    if group:
        yield group


async def _read_part(
    context: PipelineContext, info: CollectionInfo, document_ids: Sequence[str]
) -> tuple[Part, list[str]]:
    """These documents with all of their passages, and the ids of those of which passages are missing for good."""
    part, pending = Part([], []), list(document_ids)
    for attempt in range(_TRIES):
        rows = await context.manifest.whole(info.spec.lineage, pending)
        found: dict[tuple[str, str | None], list[Point]] = {(row.id, row.version): [] for row in rows}
        for point in await context.store.points(info.name, [row.id for row in rows], EVERYTHING):
            found.get((point.passage.key, point.passage.version), []).append(point)
        pending = []
        for row in rows:
            points = found[row.id, row.version]
            if len(points) != row.passages:
                pending.append(row.id)
                if attempt < _TRIES - 1:
                    continue
            part.documents.append(msgspec.structs.replace(row, passages=len(points)))
            part.points.extend(points)
        if not pending:
            break
        await asyncio.sleep(_PAUSE_S)
    return part, pending


async def restore_snapshot(
    context: PipelineContext, snapshot: "SnapshotFile", name: str, report: Report
) -> CollectionInfo:
    """Fill a new generation of the collection `name` beside the live one, if any, and switch. The caller has checked
    the snapshot.
    """
    check_name(name)
    spec = msgspec.structs.replace(snapshot.head.spec, lineage=uuid4().hex)
    with context.building_lineage(spec.lineage):
        generation = await context.store.begin_rebuild(name, spec)
        await _fill(context, snapshot, generation, spec.lineage, report)
        report(Notice(stage="finishing", detail="optimising and switching to the restored index"))
        await context.store.optimize(generation)
        before = await live_lineage(context, name)
        await context.gate(before or "").retire(partial(context.store.finish_rebuild, name, generation))
        return await context.store.info(name)


async def _fill(
    context: PipelineContext, snapshot: "SnapshotFile", generation: str, lineage: str, report: Report
) -> None:
    done = 0
    async for part in snapshot.parts():
        for start in range(0, len(part.points), _UPSERT):
            await finish(context.store.upsert(generation, part.points[start : start + _UPSERT]))
        await context.manifest.adopt(lineage, part.documents)
        done += len(part.points)
        report(Copied(step="restoring", done=done, total=snapshot.head.passages))
    await context.manifest.adopt(lineage, [], await snapshot.sources(), time.time())


class SnapshotFile:
    """A snapshot to read. Raises StoreUnavailable for a file that is damaged, or that a newer Winnow wrote."""

    def __init__(self, path: Path) -> None:
        """Reads the head alone. Blocks."""
        self.path = path
        with file_errors(path), zipfile.ZipFile(path) as archive:
            self.head = _decode_head(path, archive.read(_HEAD))
            expected = {_HEAD, _SOURCES, *(_member(kind, n) for n in range(self.head.parts) for kind in _KINDS)}
            if set(archive.namelist()) != expected:
                raise StoreUnavailable(f"the snapshot {path} is damaged: parts of it are missing, or not its own")

    def info(self) -> SnapshotInfo:
        """What a list of snapshots shows."""
        head = self.head
        return SnapshotInfo(
            path=str(self.path),
            collection=head.collection,
            created_at=head.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            documents=head.documents,
            passages=head.passages,
            files=head.files,
            bytes=self.path.stat().st_size,
            embedder=head.spec.embedder,
            winnow=head.winnow,
        )

    async def check(self, report: Report) -> None:
        """Read all of it: every byte by its hash, every count, and that no document lacks a passage."""
        digest, documents, passages = hashlib.blake2b(digest_size=16), 0, 0
        async for part in self.parts(digest):
            counted = Counter((p.passage.key, p.passage.version) for p in part.points)
            if counted != Counter({(d.id, d.version): d.passages for d in part.documents if d.passages}):
                raise self._damaged("documents and passages do not belong together")
            documents, passages = documents + len(part.documents), passages + len(part.points)
            report(Copied(step="checking", done=passages, total=self.head.passages))
        files = len(await self.sources(digest))
        if (documents, passages, files) != (self.head.documents, self.head.passages, self.head.files):
            raise self._damaged("its counts are not those that it says it has")
        if digest.hexdigest() != self.head.hash:
            raise self._damaged("its content is not what was written")

    async def parts(self, digest: "hashlib.blake2b | None" = None) -> AsyncIterator[Part]:
        """Part after part, each read in a thread."""
        for number in range(self.head.parts):
            members = await asyncio.to_thread(self._read, [_member(kind, number) for kind in _KINDS], digest)
            yield await asyncio.to_thread(self._part, *members)

    async def sources(self, digest: "hashlib.blake2b | None" = None) -> list[SourceRecord]:
        """The files that documents came from."""
        (member,) = await asyncio.to_thread(self._read, [_SOURCES], digest)
        return self._decoded(member, SourceRecord)

    def _read(self, members: Sequence[str], digest: "hashlib.blake2b | None") -> list[bytes]:
        with file_errors(self.path), zipfile.ZipFile(self.path) as archive:
            contents = [archive.read(member) for member in members]
        if digest is not None:
            for content in contents:
                digest.update(content)
        return contents

    def _part(self, documents: bytes, passages: bytes, dense: bytes) -> Part:
        lines, dimension = self._decoded(passages, _Line), self.head.spec.dimension
        if len(dense) != 4 * dimension * len(lines):
            raise self._damaged("vectors are missing")
        vectors = np.frombuffer(dense, dtype="<f4").reshape(len(lines), dimension).astype(np.float32)
        return Part(
            self._decoded(documents, DocumentRecord),
            [
                Point(passage=from_payload(line.id, line.payload), dense=vector, sparse=line.sparse)
                for line, vector in zip(lines, vectors, strict=True)
            ],
        )

    def _decoded(self, lines: bytes, kind: type[T]) -> list[T]:
        try:
            return msgspec.json.Decoder(kind).decode_lines(lines)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise self._damaged("a part of it cannot be read") from exc

    def _damaged(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"the snapshot {self.path} is damaged: {why}; nothing was changed")


_KINDS = ("documents", "passages", "dense")
_EXTENSIONS = {"documents": "jsonl", "passages": "jsonl", "dense": "float32"}


def _member(kind: str, number: int) -> str:
    return f"{kind}/{number:06d}.{_EXTENSIONS[kind]}"


class _SnapshotWriter:
    """Writes a file, which only its owner can read, from the beginning. Every method blocks. Raises DiskFull."""

    def __init__(self, path: Path, disk: DiskGuard) -> None:
        self._path = path
        self._disk = disk
        self._digest = hashlib.blake2b(digest_size=16)
        self.parts = self.documents = self.passages = 0
        with file_errors(path):
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b")
            self._archive = zipfile.ZipFile(self._file, "w")

    def add(self, part: Part) -> None:
        lines = [_Line(p.passage.id, to_payload(p.passage), p.sparse) for p in part.points]
        dense = np.array([p.dense for p in part.points], dtype="<f4").tobytes()
        encoder = msgspec.json.Encoder()
        contents = (encoder.encode_lines(part.documents), encoder.encode_lines(lines), dense)
        for kind, content in zip(_KINDS, contents, strict=True):
            self._write(_member(kind, self.parts), content, compress=kind != "dense")  # vectors hardly shrink
        self.parts += 1
        self.documents += len(part.documents)
        self.passages += len(part.points)

    def finish(self, sources: Sequence[SourceRecord], info: CollectionInfo, winnow: str) -> None:
        """Write the rest, and wait for the disk."""
        self._write(_SOURCES, msgspec.json.Encoder().encode_lines(sources), compress=True)
        head = Head(
            format=FORMAT,
            collection=info.name,
            created_at=datetime.now(UTC).replace(microsecond=0),
            winnow=winnow,
            spec=info.spec,
            parts=self.parts,
            documents=self.documents,
            passages=self.passages,
            files=len(sources),
            hash=self._digest.hexdigest(),
        )
        self._write(_HEAD, msgspec.json.format(msgspec.json.encode(head)), compress=False)
        with file_errors(self._path):
            self._archive.close()
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Harmless after `finish`; before it, the file is left unreadable."""
        with suppress(OSError, ValueError):
            self._archive.close()
        with suppress(OSError):
            self._file.close()

    def _write(self, member: str, content: bytes, *, compress: bool) -> None:
        if member != _HEAD:
            self._digest.update(content)
        self._disk.check(len(content))
        kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        with file_errors(self._path):
            self._archive.writestr(member, content, kind, 6)


def _decode_head(path: Path, content: bytes) -> Head:
    try:
        version = msgspec.json.decode(content, type=dict[str, msgspec.Raw]).get("format", msgspec.Raw(b"0"))
        if (newest := msgspec.json.decode(version, type=int)) > FORMAT:
            raise StoreUnavailable(
                f"the snapshot {path} was written by a newer Winnow (format {newest}, this one knows {FORMAT}): upgrade"
            )
        return msgspec.json.decode(content, type=Head)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise StoreUnavailable(f"{path} is not a snapshot of Winnow, or is damaged") from exc


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """The one seam for what files and archives raise."""
    try:
        yield
    except FileNotFoundError as exc:
        raise NotFound(f"{path} not found") from exc
    except OSError as exc:
        raise disk_error(exc, f"{path} cannot be read or written") from exc
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError) as exc:
        raise StoreUnavailable(f"{path} is not a snapshot of Winnow, or is damaged") from exc
