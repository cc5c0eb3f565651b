"""What a run has to do: the files on disk compared with the manifest, by content hash."""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePath
from types import MappingProxyType

import msgspec

from indexing.documents import POSITION, Document, document_key, printable
from indexing.errors import UnreadableDocument
from indexing.pipeline.manifest import DocumentRecord, RefusedRecord, SourceRecord
from indexing.pipeline.sources import Scope, Source, Unreadable
from indexing.readers.limits import ReadLimits, opened, reading

_BLOCK = 1 << 20


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`work` are the files to read, in the order of the sources; of `changed` of them an earlier version is indexed.

    `gone` are paths to delete; `unreadable` could not even be opened; `refused` could not be read by an earlier run and
    have not changed since.
    """

    work: tuple[SourceRecord, ...]
    changed: int
    unchanged: tuple[Source, ...]
    gone: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]
    refused: tuple[Unreadable, ...] = ()


def make_plan(
    sources: Sequence[Source],
    finished: Mapping[str, SourceRecord],
    indexed: AbstractSet[str],
    covers: Callable[[Path], bool],
    unfinished: AbstractSet[str],
    limits: ReadLimits,
    refused: Mapping[str, RefusedRecord] = MappingProxyType({}),
) -> Plan:
    """Compare. `finished` are sources by path; `indexed` is every path that left documents, finished or not; `refused`
    are the files that an earlier run could not read.

    A path is gone if its file no longer exists and the run covers it, or a killed run left it `unfinished`. A file
    that exists and cannot be opened is not gone.
    """
    work: list[SourceRecord] = []
    unchanged: list[Source] = []
    unreadable: list[Unreadable] = []
    known: list[Unreadable] = []
    reads = reading(limits)
    for source in sources:
        path = str(source.path)
        try:
            digest, size = hash_file(source.path, limits)
        except UnreadableDocument as exc:
            unreadable.append((source, exc))
            continue
        if path in finished and finished[path].hash == digest:
            unchanged.append(source)
        elif (earlier := refused.get(path)) and (earlier.hash, earlier.reading) == (digest, reads):
            known.append((source, UnreadableDocument(earlier.reason, earlier.detail)))
        else:
            work.append(SourceRecord(path=path, name=source.name, hash=digest, bytes=size))
    missing = {*finished, *indexed} - {str(source.path) for source in sources}
    gone = {p for p in missing if covers(Path(p)) or (p in unfinished and not Path(p).exists())}
    return Plan(
        work=tuple(work),
        changed=sum(record.path in indexed for record in work),
        unchanged=tuple(unchanged),
        gone=tuple(sorted(gone)),
        unreadable=tuple(unreadable),
        refused=tuple(known),
    )


def plan_rebuild(sources: Sequence[Source], earlier: Mapping[str, str], limits: ReadLimits) -> Plan:
    """All of the sources, and every earlier file (path -> name) that still exists; the others are gone.

    The sources are named anew.
    """
    listed = {str(source.path) for source in sources}
    others = {path: name for path, name in earlier.items() if path not in listed}
    together = distinct(with_files(sources, earlier), others)
    plan = make_plan(together, {}, frozenset(), lambda _: False, frozenset(), limits)
    gone = set(earlier) - {str(source.path) for source in together}
    return msgspec.structs.replace(plan, gone=tuple(sorted(gone)))


def with_files(sources: Sequence[Source], paths: Mapping[str, str]) -> list[Source]:
    """The sources, and those of `paths` (path -> name) that are files and not among them."""
    listed = {str(source.path) for source in sources}
    more = (Path(path) for path in sorted(paths) if path not in listed)
    return [*sources, *(Source(path, paths[str(path)], Scope("file", str(path))) for path in more if path.is_file())]


def distinct(sources: Sequence[Source], taken: Mapping[str, str]) -> list[Source]:
    """The sources under names that tell them apart, from the files in `taken` (path -> name) too.

    A file keeps the name that it has in `taken`, unless another one has the same. Of other files that would share a
    name, each gets as many of the folders above it as are needed and may be shown, or else a number.
    """
    listed = {str(source.path) for source in sources}
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for path, name in taken.items():
        holders[name].add(path)
    for source in sources:
        holders[taken.get(str(source.path), source.name)].add(str(source.path))

    def others(name: str, path: str) -> set[str]:
        """Files that share the name; one that is gone and not yet forgotten does not count."""
        return {other for other in holders[name] - {path} if other in listed or Path(other).exists()}

    def named(source: Source) -> Source:
        path = str(source.path)
        name = taken.get(path, source.name)
        rivals = others(name, path)
        if rivals & taken.keys() if path in taken else rivals:
            # Nor one that a new rival might have got as well: both get longer ones.
            alike = tuple(rivals - taken.keys())
            name = next(
                longer
                for longer in _longer_names(source)
                if not others(longer, path) and not any(rival.endswith(f"/{longer}") for rival in alike)
            )
            holders[name].add(path)
        return source if name == source.name else msgspec.structs.replace(source, name=name)

    return [named(source) for source in sources]


def _longer_names(source: Source) -> Iterator[str]:
    """The name with one folder more, with two, and so on; at last with numbers."""
    parts, depth = source.path.parts[1:], len(PurePath(source.name).parts)
    most = min(depth + source.scope.folders, len(parts))
    for count in range(depth + 1, most + 1):
        yield "/".join(parts[-count:])
    longest = "/".join(parts[-most:])
    yield from (f"{longest} ({number})" for number in itertools.count(2))


def hash_file(path: Path, limits: ReadLimits) -> tuple[str, int]:
    """Content hash (32 hex digits) and size in bytes. Raises UnreadableDocument."""
    digest, size = hashlib.blake2b(digest_size=16), 0
    with opened(path, limits) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def document_record(source: SourceRecord, document: Document) -> DocumentRecord:
    """What the manifest keeps of a document in a file. A record's own id is its document id."""
    return DocumentRecord(
        id=document_key("", own_id(document) or file_document_id(source.path, document.key)),
        path=source.path,
        source=printable(source.name),
        title=printable(document.title),
        version=document.content_hash(),
        passages=0,
    )


def own_id(document: Document) -> str:
    """The id that a record brought with it; "" for a document without one."""
    return "" if document.key.startswith(POSITION) else document.key


def file_document_id(path: str, key: str) -> str:
    """The id of a document that came from a file and has none of its own: the same for the same absolute path."""
    return hashlib.blake2b(f"{path}\0{key}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
