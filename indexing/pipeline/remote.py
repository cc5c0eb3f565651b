"""Files in buckets: `s3://bucket/folder` and `gs://bucket/folder`, reached by fsspec.

fsspec and what it needs for a protocol are imported with the first address. Credentials and endpoints are those of
these libraries: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS and the like.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from indexing.errors import UnreadableDocument
from indexing.readers.limits import ReadLimits, too_large

PROTOCOLS = {"s3": "s3", "gs": "gcs", "gcs": "gcs"}
"""Of an address -> the extra of this package that brings what fsspec needs for it."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# The first of these that a listing has tells one content of a file from another; those of the content come first.
_VERSIONS = ("ETag", "etag", "md5Hash", "crc32c", "generation", "LastModified", "updated", "mtime", "created")


class RemoteFile(msgspec.Struct, frozen=True):
    """A file at an address, with as much of a `pathlib.Path` as the pipeline asks of the files it plans.

    `bytes` and `version` are those of a listing; without one (None) they are asked for when they are needed.
    """

    url: str
    bytes: int | None = None
    version: str | None = None

    def __str__(self) -> str:
        return self.url

    @property
    def parts(self) -> tuple[str, ...]:
        """The protocol, the bucket, the folders and the name."""
        protocol, _, rest = self.url.partition("://")
        return (protocol, *(part for part in rest.split("/") if part))

    @property
    def name(self) -> str:
        """The last part."""
        return self.parts[-1]

    def exists(self) -> bool:
        """Whether it is there, as far as is known: of what cannot be reached nobody may conclude that it is gone."""
        try:
            self._looked_up()
        except UnreadableDocument as exc:
            return exc.reason != "not_found"
        return True

    def is_file(self) -> bool:
        """Whether there is a file that can be read."""
        try:
            self._looked_up()
        except UnreadableDocument:
            return False
        return True

    def fingerprint(self, limits: ReadLimits) -> tuple[str, int]:
        """A hash (32 hex digits) that changes with the content, and the size in bytes; the content is not fetched.

        Raises UnreadableDocument.
        """
        known = self if self.version is not None else self._looked_up()
        size = known.bytes or 0
        if size > limits.max_bytes:
            raise too_large(size, limits)
        return hashlib.blake2b(f"{known.version} {size}".encode(), digest_size=16).hexdigest(), size

    def fetch(self, target: Path) -> None:
        """Write the content to a file. Blocks. Raises UnreadableDocument."""
        with _translated(self.url):
            _file_system(self.url).get_file(self.url, str(target))

    def _looked_up(self) -> "RemoteFile":
        with _translated(self.url):
            entry = _file_system(self.url).info(self.url)
        if entry["type"] != "file":
            raise UnreadableDocument("not_found", "There is no such file.")
        return _listed(self.url, entry)


def is_address(given: str) -> bool:
    """True for what names a protocol, known or not."""
    return _ADDRESS.match(given) is not None


def look_up(url: str) -> RemoteFile | None:
    """The file at an address, None where there may be a folder. Raises UnreadableDocument."""
    with _translated(url):
        try:
            entry = _file_system(url).info(url)
        except FileNotFoundError:
            return None
    return _listed(url, entry) if entry["type"] == "file" else None


def files_below(url: str) -> list[tuple[str, RemoteFile]]:
    """Every file below a folder, its path from there first, in the order of these. Raises UnreadableDocument."""
    protocol = url.partition("://")[0]
    with _translated(url):
        system = _file_system(url)
        root = system._strip_protocol(url).rstrip("/")
        entries: dict[str, dict[str, Any]] = system.find(root, detail=True)
    found = []
    for path, entry in entries.items():
        inside = path.removeprefix(root).lstrip("/")
        if inside and entry["type"] == "file":
            found.append((inside, _listed(f"{protocol}://{path.lstrip('/')}", entry)))
    return sorted(found, key=lambda pair: pair[0].split("/"))


def _listed(url: str, entry: Mapping[str, Any]) -> RemoteFile:
    version = next((str(entry[field]) for field in _VERSIONS if entry.get(field)), "")
    return RemoteFile(url, int(entry.get("size") or 0), version)


def _file_system(url: str) -> Any:
    """fsspec's, without its memory of earlier listings: they are made to see what has changed."""
    protocol = url.partition("://")[0].lower()
    extra = PROTOCOLS.get(protocol)
    if extra is None:
        known = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise UnreadableDocument("unsupported", f"{protocol}:// is not known here; these are: {known}.")
    try:
        import fsspec

        return fsspec.filesystem(protocol, use_listings_cache=False)
    except ImportError as exc:
        detail = f"{protocol}:// needs another package: pip install 'winnow[{extra}]'."
        raise UnreadableDocument("unreachable", detail) from exc


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """What the libraries of all those services raise, as refusals."""
    try:
        yield
    except UnreadableDocument:
        raise
    except FileNotFoundError as exc:
        raise UnreadableDocument("not_found", "There is no such file or folder.") from exc
    except PermissionError as exc:
        raise UnreadableDocument("permission", f"{_bucket(url)} does not let these credentials in.") from exc
    except Exception as exc:
        # Credentials that are missing, names that do not resolve, services that are down: each library has its own.
        detail = f"{_bucket(url)} cannot be reached ({type(exc).__name__}); check its address and the credentials."
        raise UnreadableDocument("unreachable", detail) from exc


def _bucket(url: str) -> str:
    return "/".join(url.split("/")[:3])
