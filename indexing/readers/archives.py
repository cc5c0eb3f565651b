"""zip and tar: the files in them as documents, within the limits of one file."""

import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

from indexing.documents import Document, Refused
from indexing.errors import UnreadableDocument
from indexing.readers.limits import ReadLimits
from indexing.readers.members import MOST, Member, read_members
from indexing.readers.zip_xml import Package, bomb, corrupt

_PASSED_OVER = re.compile(r"(^|/)(__MACOSX/|\.(?!\.?/)|thumbs\.db$|desktop\.ini$|~\$)", re.IGNORECASE)
_SMALL = 16 * 2**20


def read_zip(data: bytes, name: str, limits: ReadLimits) -> list[Document | Refused]:
    """The documents of its files, hidden ones left out. One that cannot be read is refused by its name."""
    package = Package(data, limits)
    names = [member for member in package.names() if not member.endswith("/") and not _PASSED_OVER.search(member)]
    if len(names) > MOST:
        raise _too_many()
    refused = [_unsafe(member) for member in names if _is_unsafe(member)]
    readable = _readable(package, [member for member in names if not _is_unsafe(member)], refused)
    parts = list(read_members(readable, limits, {"archive": name}))
    return [*parts, *refused]


def _readable(package: Package, names: list[str], refused: list[Refused]) -> Iterator[Member]:
    """One after the other; those that cannot be unpacked are added to `refused`."""
    for name in names:
        try:
            yield name, package.read(name)
        except UnreadableDocument as exc:
            if exc.reason == "zip_bomb":
                raise
            refused.append(Refused(part=f"/{name}", reason=exc.reason, detail=exc.detail))


def read_tar(data: bytes, name: str, limits: ReadLimits) -> list[Document | Refused]:
    """As of a zip; also of a tar that is compressed by gzip, bzip2 or xz."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|*") as archive:
            members = list(_unpacked(archive, len(data), limits))
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as exc:
        raise corrupt("Its archive is cut off or damaged.") from exc
    refused = [_unsafe(member) for member, _ in members if _is_unsafe(member)]
    readable = [member for member in members if not _is_unsafe(member[0])]
    return [*read_members(readable, limits, {"archive": name}), *refused]


def _unpacked(archive: tarfile.TarFile, packed: int, limits: ReadLimits) -> Iterator[Member]:
    """The regular files; links and devices are passed over. What a file claims to hold counts before it is read."""
    left = min(limits.max_expanded_bytes, max(_SMALL, int(packed * limits.max_ratio)))
    for number, info in enumerate(archive):
        left -= info.size
        if left < 0:
            raise bomb()
        if number >= MOST:
            raise _too_many()
        name = info.name.removeprefix("./")
        file = archive.extractfile(info) if info.isfile() and not _PASSED_OVER.search(name) else None
        if file is not None:
            yield name, file.read()


def _is_unsafe(name: str) -> bool:
    return ".." in PurePosixPath(name).parts or name.startswith("/")


def _unsafe(name: str) -> Refused:
    return Refused(part=f"/{name}", reason="unsupported", detail="Its name leads out of the archive.")


def _too_many() -> UnreadableDocument:
    return UnreadableDocument("too_many_pages", f"It holds more than {MOST} files; unpack it.")
