"""What to index: files, directories, globs and standard input -> sources, and which earlier ones fall under them."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Literal

import msgspec

from indexing.errors import UnreadableDocument

_SKIPPED_DIRECTORIES = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})
_SKIPPED_FILES = frozenset({"thumbs.db", "desktop.ini"})
_OFFICE_LOCK = "~$"
_MAGIC = re.compile(r"[*?\[]")
_STANDARD_INPUT = "-"


class Scope(msgspec.Struct, frozen=True):
    """The part of the file system that one input stands for; `root` is absolute.

    A path that was indexed earlier, that an input covers and that is no longer found there is gone.
    """

    kind: Literal["file", "directory", "glob", "stdin"]
    root: str
    pattern: str = ""

    def covers(self, path: str | Path) -> bool:
        """True when a run over this input would find the absolute `path`, were it there."""
        if self.kind == "stdin":
            return False
        inside = _inside(str(path), self.root)
        if inside is None:
            return False
        if self.kind == "glob":
            return _matches(inside, self.pattern)
        # A missing input may have been either: what lay under it is gone with it.
        return self.kind == "directory" or inside == ""


class Source(msgspec.Struct, frozen=True):
    """A file to read. `name` is what users see: the path below the input's root, nothing above it.

    `path` is absolute, with symbolic links kept; None stands for standard input.
    """

    path: Path | None
    name: str
    scope: Scope
    media_type: str | None = None


class Problem(msgspec.Struct, frozen=True):
    """An input, or a directory inside one, that gave nothing. `scope` tells whether it merely is gone."""

    name: str
    reason: str
    detail: str
    scope: Scope

    def error(self) -> UnreadableDocument:
        """The same as an exception."""
        return UnreadableDocument(self.reason, self.detail)


class Found(msgspec.Struct, frozen=True):
    """Sources in order, without doubles; the scopes of all inputs; what could not be looked at."""

    sources: tuple[Source, ...]
    scopes: tuple[Scope, ...]
    problems: tuple[Problem, ...] = ()

    def covers(self, path: str | Path) -> bool:
        """True when any input covers the absolute `path` and nothing kept it from being looked at."""
        unseen = (problem.scope for problem in self.problems if problem.reason == "permission")
        return any(scope.covers(path) for scope in self.scopes) and not any(scope.covers(path) for scope in unseen)


def discover(inputs: Sequence[str], base: Path, *, stdin_name: str = "stdin", stdin_type: str | None = None) -> Found:
    """Looks up every input, relative ones from `base`. Directories are walked, sorted; hidden and build folders not.

    A missing input is a Problem "not_found"; whether it ever was indexed, the caller knows from its manifest.
    """
    sources: dict[str, Source] = {}
    scopes: list[Scope] = []
    problems: list[Problem] = []
    for given in inputs:
        if given == _STANDARD_INPUT:
            scopes.append(Scope("stdin", "", stdin_name))
            sources.setdefault(_STANDARD_INPUT, Source(None, stdin_name, scopes[-1], stdin_type))
            continue
        scope = _scope(given, base)
        scopes.append(scope)
        for item in _look(scope, given):
            if isinstance(item, Problem):
                problems.append(item)
            elif not _is_text(str(item.path)):
                problems.append(
                    Problem(_readable(item.name), "unsupported", "Its name is not UTF-8; rename it.", scope)
                )
            else:
                sources.setdefault(str(item.path), item)
    return Found(tuple(sources.values()), tuple(scopes), tuple(problems))


def _is_text(name: str) -> bool:
    """Whether every program can be told this name: bytes that are not UTF-8 come as lone surrogates."""
    return _readable(name) == name


def _readable(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")


def _scope(given: str, base: Path) -> Scope:
    """The absolute path, cleaned without following symbolic links: they are how the user names things."""
    path = os.path.abspath(base / Path(given).expanduser())  # noqa: PTH100 (resolve() follows links)
    if _MAGIC.search(given) and not os.path.lexists(path):
        parts = PurePath(path).parts
        first = next(index for index, part in enumerate(parts) if _MAGIC.search(part))
        return Scope("glob", str(PurePath(*parts[:first])), "/".join(parts[first:]))
    kind: Literal["file", "directory"] = "file" if Path(path).exists() and not Path(path).is_dir() else "directory"
    return Scope(kind, path)


def _look(scope: Scope, given: str) -> Iterator[Source | Problem]:
    root = Path(scope.root)
    try:
        exists, is_directory = root.exists(), root.is_dir()
    except OSError as exc:
        yield Problem(given, "permission", f"It cannot be looked at: {exc.strerror}.", scope)
        return
    if scope.kind == "file":
        yield Source(root, root.name, scope)
    elif not exists or not is_directory:
        yield Problem(given, "not_found", "There is no such file or directory.", scope)
    elif scope.kind == "glob":
        yield from _globbed(root, scope, given)
    else:
        yield from _walk(root, root, scope, frozenset(), hidden=False)


def _globbed(root: Path, scope: Scope, given: str) -> Iterator[Source | Problem]:
    # Hidden files are meant only by patterns that write their dot.
    hidden = any(part.startswith(".") for part in scope.pattern.split("/"))
    matched = False
    for item in _walk(root, root, scope, frozenset(), hidden=hidden):
        if isinstance(item, Source) and not _matches(item.name, scope.pattern):
            continue
        matched = matched or isinstance(item, Source)
        yield item
    if not matched:
        yield Problem(given, "not_found", "No file matches this pattern.", scope)


def _walk(
    folder: Path, root: Path, scope: Scope, above: frozenset[tuple[int, int]], *, hidden: bool
) -> Iterator[Source | Problem]:
    """Files under `folder`, sorted by name. `above` holds the folders on the way here: a link back to one is a loop."""
    name = folder.relative_to(root).as_posix()
    try:
        about = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as exc:
        unseen = Scope("directory", str(folder))
        yield Problem(name, "permission", f"The directory cannot be listed: {exc.strerror}.", unseen)
        return
    here = (about.st_dev, about.st_ino)
    if here in above:
        return
    for entry in entries:
        path = folder / entry.name
        if entry.is_dir():
            if not _is_skipped_directory(entry.name, hidden=hidden) and not (path / "pyvenv.cfg").exists():
                yield from _walk(path, root, scope, above | {here}, hidden=hidden)
        elif not _is_skipped_file(entry.name, hidden=hidden) and (entry.is_file() or entry.is_symlink()):
            yield Source(path, path.relative_to(root).as_posix(), scope)


def _is_skipped_directory(name: str, *, hidden: bool) -> bool:
    return name in _SKIPPED_DIRECTORIES or name.endswith(".egg-info") or (name.startswith(".") and not hidden)


def _is_skipped_file(name: str, *, hidden: bool) -> bool:
    return name.startswith(_OFFICE_LOCK) or name.lower() in _SKIPPED_FILES or (name.startswith(".") and not hidden)


def _inside(path: str, root: str) -> str | None:
    """The part of `path` below `root` with forward slashes, "" for the root itself; None for what lies elsewhere."""
    relative = PurePath(path)
    if not relative.is_relative_to(root):
        return None
    inside = relative.relative_to(root).as_posix()
    return "" if inside == "." else inside


def _matches(name: str, pattern: str) -> bool:
    """A file matches by its own path or, as when a shell expands the pattern, by a directory that it lies in."""
    expression = re.compile(_translated(pattern))
    return any(expression.fullmatch(candidate) for candidate in _prefixes(name))


def _prefixes(name: str) -> Iterable[str]:
    parts = name.split("/")
    return ("/".join(parts[:count]) for count in range(len(parts), 0, -1))


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
