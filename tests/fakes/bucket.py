"""A bucket in memory that fsspec reaches as `s3://`: an implementation of its interface, as s3fs is one."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
from fsspec.registry import _registry
from fsspec.spec import AbstractFileSystem

BOTO_ERROR = type("EndpointConnectionError", (Exception,), {})
"""As botocore's, which is no OSError."""


class Bucket(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """All buckets: key with its bucket -> content. While `fault` is set, every request raises it."""

    protocol = "s3"
    cachable = False
    contents: dict[str, bytes] = {}  # noqa: RUF012 # one for all of its instances, as the cloud is
    fetched: list[str] = []  # noqa: RUF012
    fault: Exception | None = None

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """As HEAD, or the listing of a prefix, tell of an object."""
        path = self._asked(path)
        if path in self.contents:
            content = self.contents[path]
            tag = hashlib.md5(content, usedforsecurity=False).hexdigest()
            return {"name": path, "size": len(content), "type": "file", "ETag": f'"{tag}"'}
        if any(key.startswith(f"{path}/") for key in self.contents):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def find(self, path: str, **options: Any) -> dict[str, dict[str, Any]]:
        """Every object below a prefix."""
        path = self._asked(path)
        return {key: self.info(key) for key in sorted(self.contents) if key.startswith(f"{path}/")}

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        """Write an object to a file."""
        path = self._asked(rpath)
        self.info(path)
        self.fetched.append(path)
        with open(lpath, "wb") as file:  # noqa: PTH123
            file.write(self.contents[path])

    def _asked(self, path: str) -> str:
        if self.fault is not None:
            raise self.fault
        return str(self._strip_protocol(path)).strip("/")


@contextmanager
def buckets() -> Iterator[type[Bucket]]:
    """`s3://` is this one until the block ends; empty at first."""
    Bucket.contents, Bucket.fetched, Bucket.fault = {}, [], None
    before = _registry.get("s3")
    fsspec.register_implementation("s3", Bucket, clobber=True)
    try:
        yield Bucket
    finally:
        del _registry["s3"]
        if before is not None:
            fsspec.register_implementation("s3", before, clobber=True)
