"""Files inside of a file: the members of archives, the attachments of mails. Each becomes documents of its own."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import msgspec

from indexing.documents import POSITION, Document, Refused
from indexing.errors import UnreadableDocument
from indexing.readers.builder import stem
from indexing.readers.limits import ReadLimits

MOST = 10_000
"""Files in one file."""
CRASHED = "The reader crashed on it; the file may be damaged."

Member = tuple[str, bytes]


class Watch(NamedTuple):
    """Who reads files in a process that may die hears which one is `begun`, and says which ones it died of."""

    begun: Callable[[str], None] = lambda _: None
    crashed: frozenset[str] = frozenset()


_NOBODY = Watch()
watch = ContextVar("watch", default=_NOBODY)
_holder = ContextVar("holder", default="")
"""The names of the files on the way to what is being read, each after a slash."""


def read_members(
    members: Iterable[Member], limits: ReadLimits, metadata: Mapping[str, Any]
) -> Iterator[Document | Refused]:
    """What is in each of the members, under their names, with this metadata added; one that cannot be read is refused.

    They share what one file may unpack to.
    """
    left = limits.max_expanded_bytes
    for name, data in members:
        if limits.max_nesting < 1:
            yield Refused(part=f"/{name}", reason="zip_bomb", detail="It is nested too deeply; unpack what it is in.")
            continue
        left -= len(data)
        inner = msgspec.structs.replace(
            limits,
            max_nesting=limits.max_nesting - 1,
            max_expanded_bytes=max(1, left),
            max_bytes=max(1, limits.max_bytes),
        )
        yield from _member(name, data, inner, metadata)


def _member(name: str, data: bytes, limits: ReadLimits, metadata: Mapping[str, Any]) -> Iterator[Document | Refused]:
    path = f"{_holder.get()}/{name}"
    if path in watch.get().crashed:
        yield Refused(part=f"/{name}", reason="crashed", detail=CRASHED)
        return
    watch.get().begun(path)
    try:
        parts = _read(path, data, name, limits)
    except UnreadableDocument as exc:
        yield Refused(part=f"/{name}", reason=exc.reason, detail=exc.detail)
        return
    for part in parts:
        if isinstance(part, Refused):
            yield msgspec.structs.replace(part, part=f"/{name}{part.part}")
            continue
        title = part.title or stem(name)
        about = {**part.metadata, **metadata, "file": name}
        yield msgspec.structs.replace(part, key=key_inside(name, part.key), title=title, metadata=about)


def _read(path: str, data: bytes, name: str, limits: ReadLimits) -> Sequence[Document | Refused]:
    from indexing.readers import read  # it comes to this module by the readers of archives

    token = _holder.set(path)
    try:
        return read(data, name, limits)
    finally:
        _holder.reset(token)


def key_inside(name: str, key: str = "") -> str:
    """The `Document.key` of what has this one in the member `name`: a step for each file on the way to it.

    `indexing.pipeline.planning.file_document_id` reads it. A record's own id is its own in its file alone: a step too.
    """
    if key and not key.startswith(POSITION):
        key = f"{POSITION}{_step(key)}"
    return f"{POSITION}/{_step(name)}{key}"


def _step(name: str) -> str:
    """Without the sign that parts the steps."""
    return name.replace("%", "%25").replace(POSITION, "%23")


def distinct(names: Iterable[str]) -> Iterator[str]:
    """The names, numbered where one comes again."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"
