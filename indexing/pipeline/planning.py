"""What a run has to do: the files on disk compared with the manifest, by content hash."""

import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePath
from types import MappingProxyType

import msgspec

from indexing.documents import POSITION, Document, document_key, printable, split_key
from indexing.errors import UnreadableDocument
from indexing.pipeline.manifest import DocumentRecord, IndexedFile, RefusedRecord, SourceRecord
from indexing.pipeline.remote import RemoteFile, is_address
from indexing.pipeline.sources import Location, Scope, Source, Unreadable
from indexing.readers.limits import ReadLimits, opened, reading
from indexing.readers.registry import reads_in_pieces

_BLOCK = 1 << 20


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`work` are the files to read, in the order of the sources; of `changed` of them an earlier version is indexed.

    `gone` are files (by their keys) to delete; `unreadable` could not even be opened; `refused` could not be read by an
    earlier run and have not changed since.
    """

    work: tuple[SourceRecord, ...]
    changed: int
    unchanged: tuple[Source, ...]
    gone: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]
    refused: tuple[Unreadable, ...] = ()


def make_plan(
    sources: Sequence[Source],
    finished: Mapping[str, str],
    indexed: AbstractSet[str],
    covers: Callable[[str], bool],
    unfinished: AbstractSet[str],
    limits: ReadLimits,
    refused: Mapping[str, RefusedRecord] = MappingProxyType({}),
) -> Plan:
    """Compare. `finished` are the content hashes of sources by key; `indexed` are the keys of all that left documents,
    finished or not; `refused` are the files that an earlier run could not read.

    A file is gone if it no longer exists and the run covers it, or a killed run left it `unfinished`. One that exists
    and cannot be opened is not gone.
    """
    work: list[SourceRecord] = []
    unchanged: list[Source] = []
    unreadable: list[Unreadable] = []
    known: list[Unreadable] = []
    reads = reading(limits)
    for source in sources:
        path = source.key
        try:
            digest, size = hash_file(source.path, limits)
        except UnreadableDocument as exc:
            unreadable.append((source, exc))
            continue
        digest = _with_groups(digest, source.allowed)
        if finished.get(path) == digest:
            unchanged.append(source)
        elif (earlier := refused.get(path)) and (earlier.hash, earlier.reading) == (digest, reads):
            known.append((source, UnreadableDocument(earlier.reason, earlier.detail)))
        else:
            work.append(SourceRecord(path=path, name=source.name, hash=digest, bytes=size, allowed=source.allowed))
    missing = {*finished, *indexed} - {source.key for source in sources}
    gone = {key for key in missing if covers(key) or (key in unfinished and not path_of(key).exists())}
    return Plan(
        work=tuple(work),
        changed=sum(record.path in indexed for record in work),
        unchanged=tuple(unchanged),
        gone=tuple(sorted(gone)),
        unreadable=tuple(unreadable),
        refused=tuple(known),
    )


def plan_rebuild(sources: Sequence[Source], earlier: Mapping[str, IndexedFile], limits: ReadLimits) -> Plan:
    """All of the sources, and every earlier file that still exists, of whatever tenant; the others are gone.

    The sources are named anew.
    """
    listed = {source.key for source in sources}
    others = {key: file for key, file in earlier.items() if key not in listed}
    together = distinct(with_files(sources, earlier), others)
    plan = make_plan(together, {}, frozenset(), lambda _: False, frozenset(), limits)
    gone = set(earlier) - {source.key for source in together}
    return msgspec.structs.replace(plan, gone=tuple(sorted(gone)))


def with_files(sources: Sequence[Source], files: Mapping[str, IndexedFile]) -> list[Source]:
    """The sources, and those of `files` (by key) that are there and not among them, for whom they were."""
    listed = {source.key for source in sources}
    more = [
        Source(path, files[key].name, Scope("file", str(path)), split_key(key)[0], files[key].allowed)
        for key in sorted(files)
        if key not in listed and (path := path_of(key)).is_file()
    ]
    return [*sources, *more]


def distinct(sources: Sequence[Source], taken: Mapping[str, IndexedFile]) -> list[Source]:
    """The sources under names that tell them apart, from the files in `taken` (by key) too.

    A file keeps the name that it has in `taken`, unless another one has the same. Of other files that would share a
    name, each gets as many of the folders above it as are needed and may be shown, or else a number. Files of other
    tenants do not count: nobody sees both, and a longer name would tell of them.
    """
    listed = {source.key for source in sources}
    known = {key: file.name for key, file in taken.items()}
    holders: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for key, name in known.items():
        holders[split_key(key)[0], name].add(key)
    for source in sources:
        holders[source.tenant, known.get(source.key, source.name)].add(source.key)

    def others(name: str, source: Source) -> set[str]:
        """Files that share the name; one that is gone and not yet forgotten does not count."""
        held = holders[source.tenant, name] - {source.key}
        return {other for other in held if other in listed or path_of(other).exists()}

    def named(source: Source) -> Source:
        name = known.get(source.key, source.name)
        rivals = others(name, source)
        if rivals & known.keys() if source.key in known else rivals:
            # Nor one that a new rival might have got as well: both get longer ones.
            alike = tuple(rivals - known.keys())
            name = next(
                longer
                for longer in _longer_names(source)
                if not others(longer, source) and not any(rival.endswith(f"/{longer}") for rival in alike)
            )
            holders[source.tenant, name].add(source.key)
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


def path_of(key: str) -> Location:
    """Of the file that the manifest calls so (`Source.key`)."""
    path = split_key(key)[1]
    return RemoteFile(path) if is_address(path) else Path(path)


def _with_groups(digest: str, allowed: Sequence[str]) -> str:
    """Of a file for groups: it has changed as well where they have."""
    return hashlib.blake2b(repr((digest, allowed)).encode(), digest_size=16).hexdigest() if allowed else digest


def hash_file(path: Location, limits: ReadLimits) -> tuple[str, int]:
    """Content hash (32 hex digits) and size in bytes. Raises UnreadableDocument."""
    if isinstance(path, RemoteFile):
        return path.fingerprint(limits)
    digest, size = hashlib.blake2b(digest_size=16), 0
    with opened(path, limits, any_size=reads_in_pieces(path.name)) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def document_record(source: SourceRecord, document: Document) -> DocumentRecord:
    """What the manifest keeps of a document in a file. A record's own id is its document id."""
    tenant, path = split_key(source.path)
    return DocumentRecord(
        id=document_key(tenant, own_id(document) or file_document_id(path, document.key)),
        path=source.path,
        source=printable(source.name),
        title=printable(document.title),
        version=document.content_hash(),
        passages=0,
        allowed=document.allowed,
    )


def own_id(document: Document) -> str:
    """The id that a record brought with it; "" for a document without one."""
    return "" if document.key.startswith(POSITION) else document.key


_INSIDE = re.compile(r"[0-9a-f]{32}(?:\.[0-9a-f]{16})+")


def file_document_id(path: str, key: str) -> str:
    """The id of a document that came from a file and has none of its own: the same for the same absolute path.

    That of a file in a file (`indexing.readers.members`) is the id of what holds it, a dot, and 16 hex digits.
    """
    holder, _, name = key.rpartition(POSITION)
    if holder or name.startswith("/"):
        return f"{file_document_id(path, holder)}.{_digest(name, 8)}"
    return _digest(f"{path}\0{key}", 16)


def holders_of(document_id: str) -> list[str]:
    """The ids of the files that a file in files lies in, the outermost first; of an archive there is no document."""
    if not _INSIDE.fullmatch(document_id):
        return []
    steps = document_id.split(".")
    return [".".join(steps[:count]) for count in range(1, len(steps))]


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()
