"""What to index: files, directories and globs -> sources, and which earlier files fall under them."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Literal

import msgspec

from indexing.documents import document_key, split_key
from indexing.errors import UnreadableDocument
from indexing.pipeline.remote import RemoteFile, files_below, is_address, look_up
from indexing.readers.registry import SNAPSHOT

UNSEEN = frozenset({"permission", "unreachable"})
"""Reasons for which nobody knows what there is, or what of it is gone."""

_SKIPPED_DIRECTORIES = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})
_SKIPPED_FILES = frozenset({"thumbs.db", "desktop.ini"})
_OFFICE_LOCK = "~$"
SNAPSHOT_SUFFIX = ".snapshot.zip"
_MAGIC = re.compile(r"[*?\[]")


Location = Path | RemoteFile


class Scope(msgspec.Struct, frozen=True):
    """The part of the file system, or of a bucket, that one input stands for; `root` is absolute.

    `folders` of those above a file's name may be shown: the ones that the user wrote, and always the nearest.
    A path that was indexed earlier, that an input covers and that no longer exists is gone.
    """

    kind: Literal["file", "directory", "glob"]
    root: str
    pattern: str = ""
    folders: int = 1

    def covers(self, path: str | Location) -> bool:
        """True when a run over this input would find the absolute `path` if it existed."""
        inside = _inside(str(path), self.root)
        if inside is None:
            return False
        if self.kind == "glob":
            return _matches(inside, self.pattern)
        # A missing input may have been a file or a directory: what was under it is gone with it.
        return self.kind == "directory" or inside == ""


class Source(msgspec.Struct, frozen=True):
    """A file to read. `name` is what users see: the path below the input's root, and no more above it than is needed to
    tell it from another file (`indexing.pipeline.planning.distinct`).

    `path` is absolute, with symbolic links kept. Its documents become those of `tenant`, for the groups `allowed`.
    """

    path: Location
    name: str
    scope: Scope
    tenant: str = ""
    allowed: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What the manifest calls the file (`indexing.documents.document_key`)."""
        return document_key(self.tenant, str(self.path))


Unreadable = tuple[Source, UnreadableDocument]
"""An input, a directory inside one, or a file, and why it cannot be read."""


class Discovery(msgspec.Struct, frozen=True):
    """Sources in order, each once; the scopes of all inputs; what could not be read."""

    sources: tuple[Source, ...]
    scopes: tuple[Scope, ...]
    problems: tuple[Unreadable, ...] = ()

    def covers(self, path: str | Location) -> bool:
        """True when any input covers the absolute `path` and nothing prevented looking at it."""
        unseen = [source.scope for source, error in self.problems if error.reason in UNSEEN]
        return any(scope.covers(path) for scope in self.scopes) and not any(scope.covers(path) for scope in unseen)


def discover(inputs: Sequence[str], base: Path) -> Discovery:
    """Look up every input, relative ones from `base`, and `s3://bucket/folder` in its bucket.

    Directories are walked in order of names, without hidden and build directories. A missing input is a problem
    "not_found"; whether it was ever indexed, the caller knows from its manifest.
    """
    sources: dict[str, Source] = {}
    scopes: list[Scope] = []
    problems: list[Unreadable] = []
    for given in inputs:
        scope, items = _found_remotely(given) if is_address(given) else _found(given, base)
        scopes.append(scope)
        for item in items:
            if not isinstance(item, Source):
                problems.append(item)
            elif (readable := item.name.encode("utf-8", "replace").decode("utf-8")) != item.name:
                # Bytes that are not UTF-8 come as lone surrogates, and no JSON can carry those.
                problems.append(_unreadable(readable, "unsupported", "Its name is not UTF-8; rename it.", scope))
            elif split_key(str(item.path))[0]:
                detail = "Its path has the control character U+001F; rename it."
                problems.append(_unreadable(item.name, "unsupported", detail, scope))
            elif item.name.endswith(SNAPSHOT_SUFFIX):
                problems.append(_unreadable(item.name, "unsupported", SNAPSHOT, scope))
            else:
                sources.setdefault(str(item.path), item)
    return Discovery(tuple(sources.values()), tuple(scopes), tuple(problems))


def _found(given: str, base: Path) -> tuple[Scope, Iterator[Source | Unreadable]]:
    scope = _scope(given, base)
    return scope, _look(scope, given)


def _found_remotely(given: str) -> tuple[Scope, list[Source | Unreadable]]:
    """As in the file system, of which a bucket has the folders but not the links."""
    protocol, _, path = given.partition("://")
    parts = [part for part in path.split("/") if part]
    first = next((index for index, part in enumerate(parts) if index and _MAGIC.search(part)), len(parts))
    root, pattern = f"{protocol}://{'/'.join(parts[:first])}", "/".join(parts[first:])
    scope = Scope("glob" if pattern else "directory", root, pattern, max(1, first - 1))
    try:
        file = look_up(root) if not pattern else None
        if file is not None:
            scope = msgspec.structs.replace(scope, kind="file")
            return scope, [Source(file, file.name, scope)]
        files = files_below(root)
    except UnreadableDocument as exc:
        return scope, [(Source(Path(root), given, scope), exc)]
    hidden = any(part.startswith(".") for part in parts[first:])
    sources = [Source(file, inside, scope) for inside, file in files if _is_walked(inside, hidden=hidden)]
    matched = [one for one in sources if not pattern or _matches(one.name, pattern)]
    if not matched:
        detail = "No file matches this pattern." if pattern else "There is no such file or folder."
        return scope, [_unreadable(given, "not_found", detail, scope)]
    return scope, [*matched]


def _is_walked(inside: str, *, hidden: bool) -> bool:
    """Whether `_walk` would come across a file with this path below its root."""
    *folders, name = inside.split("/")
    skipped = any(folder in _SKIPPED_DIRECTORIES or folder.endswith(".egg-info") for folder in folders)
    visible = hidden or not any(part.startswith(".") for part in (*folders, name))
    return visible and not skipped and not _is_skipped_file(name)


def _unreadable(name: str, reason: str, detail: str, scope: Scope) -> Unreadable:
    return Source(Path(scope.root), name, scope), UnreadableDocument(reason, detail)


def _scope(given: str, base: Path) -> Scope:
    """The absolute path, cleaned without following symbolic links: they are how the user names things."""
    path = os.path.abspath(base / Path(given).expanduser())  # noqa: PTH100 (resolve() follows links)
    written = [part for part in PurePath(os.path.normpath(given)).parts if part not in ("/", ".", "..", "~")]
    if _MAGIC.search(given) and not os.path.lexists(path):
        parts = PurePath(path).parts
        first = next(index for index, part in enumerate(parts) if _MAGIC.search(part))
        folders = len(written) - len(parts[first:])
        return Scope("glob", str(PurePath(*parts[:first])), "/".join(parts[first:]), max(1, folders))
    is_file = Path(path).exists() and not Path(path).is_dir()
    return Scope("file" if is_file else "directory", path, folders=max(1, len(written) - is_file))


def _look(scope: Scope, given: str) -> Iterator[Source | Unreadable]:
    root = Path(scope.root)
    try:
        exists, is_directory = root.exists(), root.is_dir()
    except OSError as exc:
        yield _unreadable(given, "permission", f"It cannot be accessed: {exc.strerror}.", scope)
        return
    if scope.kind == "file":
        yield Source(root, root.name, scope)
    elif not exists or not is_directory:
        yield _unreadable(given, "not_found", "There is no such file or directory.", scope)
    elif scope.kind == "glob":
        yield from _globbed(root, scope, given)
    else:
        yield from _walk(root, root, scope, frozenset(), hidden=False)


def _globbed(root: Path, scope: Scope, given: str) -> Iterator[Source | Unreadable]:
    # As in a shell, only a pattern that writes the dot matches hidden files.
    hidden = any(part.startswith(".") for part in scope.pattern.split("/"))
    matched = False
    for item in _walk(root, root, scope, frozenset(), hidden=hidden):
        if isinstance(item, Source):
            if not _matches(item.name, scope.pattern):
                continue
            matched = True
        yield item
    if not matched:
        yield _unreadable(given, "not_found", "No file matches this pattern.", scope)


def _walk(
    folder: Path, root: Path, scope: Scope, above: frozenset[tuple[int, int]], *, hidden: bool
) -> Iterator[Source | Unreadable]:
    """Files under `folder`, sorted by name. `above` holds the folders on the way to it: a link back to one is a
    loop.
    """
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as exc:
        detail = f"The directory cannot be listed: {exc.strerror}."
        yield _unreadable(folder.relative_to(root).as_posix(), "permission", detail, Scope("directory", str(folder)))
        return
    inode = (status.st_dev, status.st_ino)
    if inode in above:
        return
    for entry in entries:
        path, name = folder / entry.name, entry.name
        if name.startswith(".") and not hidden:
            continue
        if entry.is_dir():
            skipped = name in _SKIPPED_DIRECTORIES or name.endswith(".egg-info") or (path / "pyvenv.cfg").exists()
            if not skipped:
                yield from _walk(path, root, scope, above | {inode}, hidden=hidden)
        # A broken link is no file: it is left to the reader, which says what is missing.
        elif (entry.is_file() or entry.is_symlink()) and not _is_skipped_file(name):
            yield Source(path, path.relative_to(root).as_posix(), scope)


def _is_skipped_file(name: str) -> bool:
    return name.startswith(_OFFICE_LOCK) or name.lower() in _SKIPPED_FILES


def _inside(path: str, root: str) -> str | None:
    """The part of `path` below `root` with forward slashes, "" for the root itself; None for a path elsewhere."""
    relative = PurePath(path)
    if not relative.is_relative_to(root):
        return None
    inside = relative.relative_to(root).as_posix()
    return "" if inside == "." else inside


def _matches(name: str, pattern: str) -> bool:
    """A file matches by its own path or, as when a shell expands the pattern, by a directory that contains it."""
    expression = re.compile(_translated(pattern))
    parts = name.split("/")
    return any(expression.fullmatch("/".join(parts[:count])) for count in range(len(parts), 0, -1))


def _translated(pattern: str) -> str:
    """A glob as a regular expression: `**` crosses directories, `*`, `?` and `[...]` do not."""
    parts = [part for part in pattern.split("/") if part]
    expression = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            expression += ".*" if last else "(?:[^/]+/)*"
        else:
            expression += _translated_part(part) + ("" if last else "/")
    return f"(?s:{expression})"


def _translated_part(part: str) -> str:
    marks = {"*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*+|\?|\[!?\]?[^\]/]*\])", part)
    translated = []
    for piece in pieces:
        if piece.startswith("[") and piece.endswith("]") and len(piece) > 2:
            inner = piece[1:-1].replace("\\", r"\\").replace("[", r"\[")
            translated.append(f"[^/{inner[1:]}]" if inner.startswith("!") else f"[{inner.replace('^', chr(92) + '^')}]")
        else:
            translated.append(marks.get(piece[:1], re.escape(piece)))
    return "".join(translated)
