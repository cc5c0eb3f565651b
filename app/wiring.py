"""Builds the services from settings and owns their lifetime. Heavy packages are imported only when first needed."""

import asyncio
import math
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from app.access.access import Access
from app.access.audit import AUDIT_FILE, AuditLog
from app.access.key_file import KeyAdministration
from app.accounting.accounts import Accounts
from app.accounting.ledger import CallRecord
from app.backends.client import BackendClient
from app.backends.pool import BackendPool
from app.backends.registry import load_sdks
from app.backends.router import Backends, Router
from app.config.settings import Settings, TracingSettings
from app.config.validation import named_backends
from app.domain import Answer, AnswerDone, AnswerEvent, Caller, Question, TokenCount
from app.errors import WinnowError
from app.instance import Presence, ensure_directory, ensure_home, installed_version
from app.observability.metrics import Metrics
from app.observability.tracing import Tracer
from app.ranking.cache import CACHE_FILE, CacheFile, Kept, ScoreCache
from app.ranking.calibration import FITS_FILE, Fits, calibrations
from app.ranking.reranker import Reranker
from app.ranking.shared import CacheTable, SharedRanking
from app.ranking.trust import TRUST_FILE, TrustBook
from app.services.admission import Gate, Gates
from app.services.answer import CONDENSE_S, Answerer
from app.services.chat import STAGE as CHAT
from app.services.chat import VISION, ChatService
from app.services.complete import STAGE as COMPLETE
from app.services.complete import CompleteService
from app.services.documents import Documents, no_cluster
from app.services.embed import Embeddings
from app.services.expansion import EXPAND_S, Expander
from app.services.fetch import Fetcher
from app.services.job_records import SHARED_MIGRATIONS as JOB_TABLES
from app.services.job_records import JobRecords
from app.services.jobs import SPOOL_DIRECTORY, Jobs, SharedJobs
from app.services.labelling import ClassifyService, ModerateService
from app.services.model_ids import ModelNames, public_name
from app.services.monitoring import Counting, Monitoring, State
from app.services.pictures import Pictures
from app.services.ranking import Rankers
from app.services.repairs import Repairs
from app.services.replicas import Replicas
from app.services.rerank import TextRanker
from app.services.search import Searcher
from app.services.snapshots import Snapshots
from app.services.spool import SharedSpool
from app.services.translate import TranslateService
from app.services.warm_up import PROBE_S, WarmUp, nothing_to_do
from app.text.fencing import DrawFence, fencing
from indexing.concurrency import Resource, together
from indexing.disk import MB, DiskGuard
from indexing.embedding.batching import LazyEmbedder, QueryEmbedder, TextEmbedder
from indexing.embedding.model import Vectors
from indexing.pipeline.context import PipelineContext, index_fingerprint, show_what_counts
from indexing.pipeline.manifest import Manifest
from indexing.pipeline.manifest_tables import SHARED_MIGRATIONS as MANIFEST_TABLES
from indexing.pipeline.progress import SyncRequest
from indexing.pipeline.read_stage import Reading
from indexing.pipeline.recovery import open_manifest
from indexing.pipeline.visibility import Visibility
from indexing.postgres import Database, clock_of, open_database
from indexing.retrieval.bm25 import Lexical
from indexing.store.base import VectorStore
from indexing.store.lock import DirectoryLock

T = TypeVar("T")

CORES = os.cpu_count() or 1

MANIFEST_FILE = "manifest.sqlite3"
QUARANTINE = "quarantine"
"""Of files that could not be read, and were moved aside."""
SNAPSHOTS = "snapshots"

DURABLE = ("accounts", "jobs", "manifest", "reranker", "store")
CLOSE_S, CLOSE_DURABLE_S = 0.5, 2.0
"""How long each service may take to close: a thread that computes cannot be stopped, and must not keep the durable ones
from closing.
"""

log = structlog.get_logger()


class Answering(Protocol):
    """What the routes need of `app.services.answer.Answerer`, so that tests can put a script in its place."""

    async def answer(self, question: Question, caller: Caller) -> Answer: ...

    async def whole(self, question: Question, caller: Caller) -> AnswerDone: ...

    def stream(self, question: Question, caller: Caller) -> AsyncGenerator[AnswerEvent, None]:
        """Ends in AnswerDone, or raises."""


class Services:
    """What the routes use. `start` before the first request, `close` after the last.

    Searching and writing share `store` and `embedder`: one process owns the embedded index. `index_home` is where the
    index lies if not in the home, and `fits` are the calibrations if not the home's. `patient` services refuse nobody
    for want of room, and wait for the models that prepare a search.
    """

    def __init__(
        self,
        settings: Settings,
        open_store: Callable[[], Awaitable[VectorStore]],
        embedder: LazyEmbedder,
        make_answerer: "Callable[[Services], Answering] | None" = None,
        *,
        index_home: Path | None = None,
        fits: Fits | None = None,
        patient: bool = False,
    ) -> None:
        # In dependency order; `close` runs in reverse.
        self.settings, self._patient = settings, patient
        self._index_home = index_home or settings.index.home
        self.disk = disk_guard(settings, self._index_home)
        """Whoever writes to the home asks it first: DiskFull."""
        self._closings = AsyncExitStack()
        self.database = open_database(settings.database.url)
        """What this service shares with its replicas."""
        self._on_close("database", self._close_database)
        self.replicas: Replicas | None = None
        """Who writes to the index that replicas share. An index in this process is its own, whatever else is shared."""
        if self.database is not None and settings.store.url and index_home is None:
            parts = ("jobs", JOB_TABLES), ("manifest", MANIFEST_TABLES)
            self.replicas = Replicas(self.database, settings.service.replica_url, parts)
        self.backends = named_backends(settings)
        self.tracer: Tracer | None = None
        self._add_access_and_accounts(settings)
        self.pool = self._resource("backends", self._open_pool, BackendPool.close)
        self.router = Resource(self._open_router)
        self.fence = fencing(settings.service.prompt_secret)
        self._add_jobs_of_models(settings)
        self._add_reranker(settings, fits)
        self.store = self._resource("store", open_store, lambda store: store.close())
        self._write_lock = self._resource("write lock", self._lock_index, _release)
        if self.replicas is not None:
            self._on_close("write lock", self.replicas.close)
        self.context = self._resource("manifest", self._open_context, _close_manifest)
        self._add_embedding(settings, embedder)
        self.rankers = Rankers(self.backends, self.router.get, self.reranker, settings.ranking)
        self.gates = Gates(CORES, patient=patient, remote=bool(settings.store.url))
        self.searcher = self._searcher(self.gates.searches)
        self.answerer: Answering = self._answerer() if make_answerer is None else make_answerer(self)
        self.names = _names(settings, self.backends)
        self.embeddings = Embeddings(self.texts, self.model.get, self.names, settings.embedding.sizes)
        self.text_ranker = TextRanker(
            self.rankers, Lexical(), self.texts, self.model.get, settings.compat, self.gates.texts
        )
        self._add_documents(settings)
        self.warm_up = self._warm_up(settings)
        self._on_close("warm-up", self.warm_up.close)
        self.monitoring = Monitoring(self.metrics, self.state())
        self.presence: Presence | None = None
        self.stopping = asyncio.Event()
        """Set when the service has been told to end: long work stops, and says so."""

    async def start(self, samples: Path | None = None) -> None:
        """Begin to open the store and to load the model, without waiting: `warm_up` tells when they are there.

        `samples` is a directory to index first if there is no collection at all.
        """
        await asyncio.to_thread(self.access.open)
        await asyncio.to_thread(self.accounts.open)
        self.tracer = await asyncio.to_thread(open_tracer, self.settings.tracing)
        self.warm_up.start(samples)
        self.jobs.start()

    async def hold_home(self) -> None:
        """A service keeps others from its home; an index in this process does so itself. Raises IndexBusy."""
        if self.settings.store.url:
            await self._write_lock.get()

    async def close(self) -> None:
        """Close everything that was opened, the last first; what fails to close is logged and keeps nothing open."""
        await self._closings.aclose()

    async def _close_database(self) -> None:
        if self.database is not None:
            await asyncio.to_thread(self.database.close)

    async def _close_tracer(self) -> None:
        if self.tracer is not None:
            await self.tracer.aclose()

    def _called(self, call: CallRecord, tokens: TokenCount, usd: float) -> None:
        self.metrics.called(call, tokens, usd)
        self.access.spend(call.key, tokens.input + tokens.output + tokens.thinking)

    async def clients(self) -> Mapping[str, BackendClient]:
        """The backends that are models, by name."""
        return (await self.router.get()).clients

    def _add_access_and_accounts(self, settings: Settings) -> None:
        """Who may call, what is counted of the calls, and who hears of it."""
        self.access = Access(settings.index.home, settings.access, database=self.database)
        self._on_close("access", self.access.close)
        self.audit = AuditLog(settings.index.home / AUDIT_FILE, time.time)
        self._on_close("audit", lambda: asyncio.to_thread(self.audit.close))
        self.keys = KeyAdministration(
            self.access.file, [backend.name for backend in self.backends], clock_of(self.database), self.access.load
        )
        self.metrics = Metrics()
        self._on_close("traces", self._close_tracer)
        self.accounts: Accounts = Accounts(
            settings.index.home,
            settings.backends,
            settings.budgets,
            observe=self._called,
            of_key=self.access.budget,
            database=self.database,
        )
        self._on_close("accounts", lambda: asyncio.to_thread(self.accounts.close))

    def _add_documents(self, settings: Settings) -> None:
        """What writes to the index, and keeps it whole."""
        self.documents = Documents(self.context.get, self.gates, self._on_cluster if settings.store.url else no_cluster)
        self._on_close("readers", self.documents.close)
        room = disk_guard(settings, settings.index.home / SNAPSHOTS)
        self.snapshots = Snapshots(self.context.get, self.documents, room, installed_version())
        self.repairs = Repairs(self.context.get)
        shared = None
        if self.database is not None and self.replicas is not None:
            spool = SharedSpool(self.database, self._index_home / SPOOL_DIRECTORY)
            shared = SharedJobs(spool, self._open_job_records)
        self.jobs = Jobs(self._index_home, self.documents, self.disk, shared=shared)
        self._on_close("jobs", self.jobs.close)

    def _warm_up(self, settings: Settings) -> WarmUp:
        needs: dict[str, Callable[[], Awaitable[object]]] = {
            "store": self._ask_store,
            "embedder": self.model.get,
            "backends": self.pool.get,
        }
        if (database := self.database) is not None:
            needs["database"] = lambda: database.run(lambda db: db.execute("SELECT 1"))
        finish = self.documents.finish_unfinished
        graphs = nothing_to_do if settings.store.url else self._build_graphs
        return WarmUp(needs, finish, self._index_samples, self.disk, self._faults, self.repairs, build_graphs=graphs)

    def _add_jobs_of_models(self, settings: Settings) -> None:
        """What models do without the index."""
        router, default, deadline_s = self.router.get, settings.service.backend, settings.routing.deadline_s
        pictures = Pictures(Fetcher(settings.fetch))
        self._on_close("pictures", pictures.close)
        self.chat_service = ChatService(router, default, deadline_s, pictures, CHAT)
        self.vision_service = ChatService(router, default, deadline_s, pictures, VISION)
        chat = ChatService(router, default, deadline_s, pictures, COMPLETE)
        self.complete_service = CompleteService(chat, self.fence)
        self.classify_service = ClassifyService(router, default, self.fence)
        self.moderate_service = ModerateService(router, default, self.fence)
        self.translate_service = TranslateService(router, default, self.fence)

    def _add_reranker(self, settings: Settings, fits: Fits | None) -> None:
        self._learned: SharedRanking | None = None
        """What replicas share of models."""
        if self.database is not None and fits is None:
            self._learned = SharedRanking(self.database, controls=settings.ranking.controls)
            self._on_close("calibrations", self._learned.close)
        self.reranker = _reranker(settings, fits, self.fence, self.database, self._learned)
        self._on_close("reranker", self.reranker.close)

    def _add_embedding(self, settings: Settings, embedder: LazyEmbedder) -> None:
        self.embedder = embedder
        # Through Resource, so that a caller who gives up does not stop the loading that others wait for.
        self.model = Resource(embedder.get)
        self.texts = TextEmbedder(self.model.get)
        self._on_close("text embedder", self.texts.close)
        embedding = settings.embedding
        self.queries = QueryEmbedder(self.model.get, cache=embedding.query_cache, sentences=embedding.sentence_cache)
        self._on_close("query embedder", self.queries.close)

    def _resource(
        self, name: str, open_it: Callable[[], Awaitable[T]], close: Callable[[T], Awaitable[None]]
    ) -> Resource[T]:
        """A resource that `close` closes if anybody has opened it."""
        resource = Resource(open_it)

        async def close_if_opened() -> None:
            if (opened := await resource.settled()) is not None:
                await close(opened)

        self._on_close(name, close_if_opened)
        return resource

    def _on_close(self, name: str, close: Callable[[], Awaitable[None]]) -> None:
        async def close_or_log() -> None:
            try:
                async with asyncio.timeout(CLOSE_DURABLE_S if name in DURABLE else CLOSE_S):
                    await close()
            except TimeoutError:
                log.warning("closing takes too long, and is left", what=name)
            except Exception:
                log.exception("closing failed", what=name)

        self._closings.push_async_callback(close_or_log)

    async def _open_job_records(self) -> JobRecords:
        assert self.replicas is not None  # noqa: S101 - for mypy
        return JobRecords(await self.replicas.tables("jobs", JOB_TABLES))

    async def _lock_index(self) -> DirectoryLock:
        home = ensure_directory(self._index_home)
        if self.replicas is None:
            return DirectoryLock(home, wait=0)
        fix = "stop it, or set WINNOW_HOME: replicas share a database, and each has a home of its own"
        return DirectoryLock(home, wait=0, what="the home", fix=fix)

    async def _open_manifest(self) -> Manifest:
        if self.replicas is not None:
            return Manifest(await self.replicas.tables("manifest", MANIFEST_TABLES))
        home = self._index_home
        return await asyncio.to_thread(open_manifest, home / MANIFEST_FILE, home / QUARANTINE)

    async def _open_context(self) -> PipelineContext:
        store = await self.store.get()
        if self.settings.store.url and self.replicas is None:
            # The embedded store locks itself. A server does not, and two writers would forget each other's documents.
            await self._write_lock.get()
        context = PipelineContext(
            store=store,
            manifest=await self._open_manifest(),
            embedder=self.embedder,
            limits=self.settings.reading,
            lexical=Lexical(),
            disk=self.disk,
        )
        await show_what_counts(context)
        return context

    def _on_cluster(self, address: str) -> Reading:
        from indexing.distributed.cluster import RayReading

        return RayReading(address, self.settings.reading, self.settings.embedding)

    async def _visibility(self) -> Visibility:
        """What the writer of the index says. On a server that may be another process: only the writer can know."""
        opened = self.context.opened
        if opened is None and not self.settings.store.url:
            with suppress(WinnowError):  # searching goes on without the manifest
                opened = await self.context.get()
        return opened.visibility if opened else Visibility()

    def _searcher(self, gate: Gate) -> Searcher:
        fingerprint = self.embedder.fingerprint
        limit_s = math.inf if self._patient else EXPAND_S
        expander = Expander(self.backends, self.router.get, self.settings.ranking.deadline_ms, limit_s)
        return Searcher(
            self.store.get, self.queries, Lexical(), self.rankers, expander, fingerprint, self._visibility, gate
        )

    def _answerer(self) -> Answerer:
        settings = self.settings

        async def embed(texts: Sequence[str]) -> Vectors:
            async with self.gates.answers.visit(again=True):
                return await self.queries.embed_sentences(texts)

        return Answerer(
            self._searcher(self.gates.answers),
            self.backends,
            self.router.get,
            embed,
            settings.routing.deadline_s,
            settings.answer,
            self.fence,
            math.inf if self._patient else CONDENSE_S,
        )

    async def _open_router(self) -> Router:
        return (await self.pool.get()).router

    async def _open_pool(self) -> BackendPool:
        await asyncio.to_thread(load_sdks, self.settings.backends)
        await asyncio.to_thread(self.accounts.open)  # a command line that calls models has not started the services
        if self._learned is not None:
            await self._learned.open()
        pool = BackendPool(self.settings.backends, self.settings.routing, self.accounts.meter)
        pool.start()
        return pool

    def state(self) -> State:
        """What metrics are read of. Nothing is opened for them."""
        caches: dict[str, Counting] = {
            "scores": self.reranker.cache,
            "queries": self.queries.of_queries,
            "sentences": self.queries.of_sentences,
        }

        def clients() -> Mapping[str, BackendClient]:
            return self.pool.opened.router.clients if self.pool.opened else {}

        async def ready() -> Mapping[str, bool]:
            return {dependency.name: dependency.ready for dependency in await self.warm_up.readiness()}

        return State(
            version=installed_version(),
            gates=self.gates,
            accounts=self.accounts,
            jobs=self.jobs,
            disk=self.disk,
            caches=caches,
            clients=clients,
            store=lambda: self.store.opened,
            ready=ready,
        )

    async def _ask_store(self) -> None:
        store = await self.store.get()
        # In this process a collection that takes long to open holds up its own requests only.
        if self.settings.store.url:
            await store.collections()

    async def _faults(self) -> list[str]:
        damaged, jobs = await together((self._damaged(), self._faulty_jobs()))
        return [*damaged, *jobs]

    async def _damaged(self) -> list[str]:
        with suppress(TimeoutError, WinnowError):  # `readiness` says so
            async with asyncio.timeout(PROBE_S):
                store = await self.store.settled()
                return [damaged.text() for damaged in await store.damaged()] if store else []
        return []

    async def _faulty_jobs(self) -> list[str]:
        with suppress(TimeoutError):
            async with asyncio.timeout(PROBE_S):
                return [fault for fault in (await self.jobs.fault(),) if fault]
        return []

    async def _build_graphs(self) -> None:
        """Those that an earlier process did not get to, or that lie otherwise than the settings now say."""
        store = await self.store.get()
        for collection in await store.collections():
            try:
                await store.optimize(collection.name)
            except WinnowError as exc:
                log.warning("a graph was not built", collection=collection.name, detail=str(exc))

    async def _index_samples(self, samples: Path) -> None:
        store = await self.store.get()
        if not await store.collections() and not await store.damaged():
            summary = await self.documents.sync(SyncRequest(inputs=(str(samples),), cwd=str(samples)))
            log.info("indexed the samples", documents=summary.created, seconds=summary.seconds)


async def _release(lock: DirectoryLock) -> None:
    await asyncio.to_thread(lock.release)


async def _close_manifest(context: PipelineContext) -> None:
    await context.manifest.close()


def build_services(
    settings: Settings, *, index_home: Path | None = None, fits: Fits | None = None, patient: bool = False
) -> Services:
    """The services of these settings. Nothing is opened or loaded yet.

    With `index_home` they have an embedded index of their own there; ledger, budgets and backends stay the home's.
    """
    return Services(
        settings,
        lambda: asyncio.to_thread(open_store, settings, index_home),
        LazyEmbedder(settings.embedding, index_fingerprint(settings.embedding)),
        index_home=index_home,
        fits=fits,
        patient=patient,
    )


def open_tracer(tracing: TracingSettings) -> Tracer | None:
    """Sends traces to the endpoint; None without one. Blocks: it imports OpenTelemetry.

    That it is not installed is no reason not to serve: on many clusters every program finds the endpoint in its
    environment.
    """
    if not tracing.endpoint:
        return None
    try:
        from app.observability.otlp import Traces
    except ImportError:
        log.error("no traces are sent: OpenTelemetry is not installed", fix="pip install 'winnow[otel]'")
        return None
    return Traces(tracing.endpoint, installed_version(), texts=tracing.texts, share=tracing.share)


def open_store(settings: Settings, index_home: Path | None = None) -> VectorStore:
    """The server's store if one is configured and no place named, else the embedded one.

    Blocks. Raises IndexBusy, ConfigError.
    """
    if settings.store.url and index_home is None:
        from indexing.store.server import ServerStore

        return ServerStore.connect(settings.store, declared=settings.index.filter_fields)
    from indexing.store.embedded import EmbeddedStore

    home = index_home or settings.index.home
    ensure_home(home)
    return EmbeddedStore(
        ensure_directory(home / "index"),
        disk=disk_guard(settings, home),
        declared=settings.index.filter_fields,
        settings=settings.store,
    )


def disk_guard(settings: Settings, home: Path) -> DiskGuard:
    """The reserve of the settings on the disk of `home`."""
    return DiskGuard(home, settings.index.disk_reserve_mb * MB)


def _names(settings: Settings, backends: Backends) -> ModelNames:
    compat = settings.compat
    embedder = settings.embedding.model
    return ModelNames(backends, compat.rerank_aliases, (embedder, public_name(embedder), *compat.embed_aliases))


def _reranker(
    settings: Settings, fits: Fits | None, fence: DrawFence, database: Database | None, learned: SharedRanking | None
) -> Reranker:
    ranking, home = settings.ranking, settings.index.home
    kept: Kept | None = None
    if ranking.cache == "sqlite":
        kept = CacheFile(home / CACHE_FILE, ranking.cache_entries)
    elif ranking.cache == "database" and database is not None:
        kept = CacheTable(database, ranking.cache_entries)
    if fits is None:
        fits = calibrations(home / FITS_FILE) if learned is None else learned.fits
        trust = (TrustBook(home / TRUST_FILE) if ranking.controls else None) if learned is None else learned.trust
    else:  # who calibrates asks for the grades as they are
        trust = None
    return Reranker(ScoreCache(ranking.cache_entries, kept), fits, block=ranking.block, fence=fence, trust=trust)
