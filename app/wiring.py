"""Builds the services from settings and owns their lifetime. Heavy packages are imported here, when first needed."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec
import structlog

from app.accounting.accounts import Accounts
from app.backends.client import BackendClient
from app.backends.pool import Fleet
from app.backends.registry import load_sdks
from app.backends.router import Backends, Router, declared
from app.config.settings import Settings
from app.domain import Answer, AnswerDone, AnswerEvent, Caller, Question
from app.errors import ConfigError, WinnowError
from app.instance import Presence
from app.ranking.cache import CACHE_FILE, CacheFile, ScoreCache
from app.ranking.calibration import FITS_FILE, Fits, calibrations
from app.ranking.reranker import Reranker
from app.services.answer import Answerer
from app.services.chat import Tasks
from app.services.documents import Catalogue, Library
from app.services.embed import Embeddings
from app.services.jobs import Jobs
from app.services.model_ids import ModelNames, public_name
from app.services.ranking import Rankers
from app.services.rerank import TextRanker
from app.services.search import Searcher
from app.text.languages import prepare as prepare_languages
from indexing.embedding.batching import LazyEmbedder, QueryEmbedder, TextEmbedder
from indexing.pipeline.context import PipelineContext, index_fingerprint
from indexing.pipeline.manifest import Manifest
from indexing.pipeline.progress import SyncRequest
from indexing.retrieval.bm25 import Lexical
from indexing.store.base import VectorStore
from indexing.store.lock import DirectoryLock

T = TypeVar("T")

MANIFEST_FILE = "manifest.sqlite3"

PROBE_S = 2.0
"""How long a readiness probe waits for a dependency."""

log = structlog.get_logger()


class Resource(Generic[T]):
    """Something that is opened once, by whoever needs it first. After a failure the next one tries again."""

    def __init__(self, open_it: Callable[[], Awaitable[T]]) -> None:
        self._open = open_it
        self._opening: asyncio.Future[T] | None = None

    async def get(self) -> T:
        """Raises what opening raises."""
        if self._opening is None or (self._opening.done() and _failed(self._opening)):
            self._opening = asyncio.ensure_future(self._open())
        return await asyncio.shield(self._opening)

    @property
    def opened(self) -> T | None:
        """It, if it is there already."""
        opening = self._opening
        return None if opening is None or not opening.done() or _failed(opening) else opening.result()

    async def settled(self) -> T | None:
        """It, once an opening that is under way has ended; None if nobody asked for it, or it failed."""
        if self._opening is None:
            return None
        await asyncio.wait((self._opening,))
        return None if _failed(self._opening) else self._opening.result()


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the service cannot do without. `detail` says what is wrong and the fix; "" when ready."""

    name: str
    ready: bool
    detail: str = ""


class Answering(Protocol):
    """`app.services.answer.Answerer`, as the routes see it."""

    async def answer(self, question: Question, caller: Caller = ...) -> Answer: ...

    async def whole(self, question: Question, caller: Caller = ...) -> AnswerDone: ...

    def stream(self, question: Question, caller: Caller = ...) -> AsyncGenerator[AnswerEvent, None]:
        """Ends in AnswerDone, or raises."""


class Services:
    """What the routes use. `start` before the first request, `close` after the last.

    Searching and writing share `store` and `embedder`: one process owns the embedded index. `index_home` is where the
    index lies if not in the home, and `fits` are the calibrations if not the home's.
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
    ) -> None:
        self.settings = settings
        self._index_home = index_home or settings.index.home
        self.backends = named_backends(settings)
        self.accounts = Accounts(settings.index.home, settings.backends, settings.budgets)
        self.fleet = Resource(self._open_fleet)
        self.tasks = Tasks(self._router, settings.service.backend, settings.routing.deadline_s)
        self.store = Resource(open_store)
        self.embedder = embedder
        # Through Resource, so that a caller who gives up does not stop the loading that others wait for.
        self.model = Resource(embedder.get)
        self.queries = QueryEmbedder(self.model.get, cache=settings.embedding.query_cache)
        self.reranker = _reranker(settings, fits)
        self.rankers = Rankers(self.backends, self._router, self.reranker, settings.ranking)
        self.searcher = Searcher(self.store.get, self.queries, Lexical(), self.rankers, embedder.fingerprint)
        self.answerer: Answering = self._answerer() if make_answerer is None else make_answerer(self)
        self.names = _names(settings, self.backends)
        self.texts = TextEmbedder(self.model.get)
        self.embeddings = Embeddings(self.texts, self.model.get, self.names, settings.embedding.sizes)
        self.text_ranker = TextRanker(self.rankers, Lexical(), self.texts, self.model.get, settings.compat)
        self.bench = Resource(self._open_bench)
        self.library = Library(self.bench.get)
        self.catalogue = Catalogue(self.bench.get)
        self.jobs = Jobs()
        self._warming: asyncio.Task[None] | None = None
        self.warmed = asyncio.Event()
        """Set when each dependency has been opened and loaded, or has failed."""
        self._samples: Path | None = None
        self._writing: DirectoryLock | None = None
        self.presence: Presence | None = None
        self._needs = {"store": self._ask_store, "embedder": self.model.get, "backends": self.fleet.get}
        self.stopping = asyncio.Event()
        """Set when the service has been told to end: long work stops, and says so."""

    async def start(self, samples: Path | None = None) -> None:
        """Begin to open the store and to load the model, without waiting: `readiness` tells when they are there.

        `samples` is a directory to index first if there is no collection at all.
        """
        await asyncio.to_thread(self.accounts.open)
        self._samples = samples
        self._warming = asyncio.create_task(self._warm())

    async def readiness(self, timeout_s: float | None = PROBE_S) -> list[Dependency]:
        """Try each dependency; one that needs longer than `timeout_s` is not ready."""
        found = list(await asyncio.gather(*(_try(name, need, timeout_s) for name, need in self._needs.items())))
        if self._samples is not None:
            found.append(Dependency(name="samples", ready=False, detail="the sample documents are being indexed"))
        return found

    async def _warm(self) -> None:
        """All at once, each telling when it is there: what fails keeps nobody else from getting ready."""
        needs = (*self._needs.items(), ("languages", lambda: asyncio.to_thread(prepare_languages)))
        await asyncio.gather(*(_told(name, need) for name, need in needs))
        self.warmed.set()
        if self._samples is not None:
            await self._index_samples(self._samples)

    async def _index_samples(self, samples: Path) -> None:
        try:
            if not await (await self.store.get()).collections():
                summary = await self.library.sync(SyncRequest(inputs=(str(samples),), cwd=str(samples)))
                log.info("indexed the samples", documents=summary.created, seconds=summary.seconds)
        except WinnowError as exc:
            log.error("the samples were not indexed", detail=str(exc))
        finally:
            self._samples = None

    async def close(self) -> None:
        """Let go of everything that was opened."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await self.jobs.close()
        await self.library.close()
        await self.queries.close()
        await self.texts.close()
        if (bench := await self.bench.settled()) is not None:
            await bench.manifest.close()
        if self._writing is not None:
            self._writing.release()
        if (store := await self.store.settled()) is not None:
            await store.close()
        await self.reranker.close()
        if (fleet := await self.fleet.settled()) is not None:
            await fleet.close()
        await asyncio.to_thread(self.accounts.close)

    async def _open_bench(self) -> PipelineContext:
        store, home = await self.store.get(), self._index_home
        if self.settings.store.url and self._writing is None:
            # The embedded store locks itself. A server does not, and two writers would forget each other's documents.
            self._writing = DirectoryLock(ensured(home), wait=0)
        return PipelineContext(
            store=store,
            manifest=await asyncio.to_thread(Manifest, home / MANIFEST_FILE),
            embedder=self.embedder,
            limits=self.settings.reading,
            lexical=Lexical(),
        )

    def _answerer(self) -> Answerer:
        told = self.settings
        return Answerer(
            self.searcher,
            self.backends,
            self._router,
            self.queries.embed_together,
            told.routing.deadline_s,
            told.answer.min_relevance,
        )

    async def clients(self) -> Mapping[str, BackendClient]:
        """The backends that are models, by name."""
        return (await self._router()).clients

    async def _router(self) -> Router:
        return (await self.fleet.get()).router

    async def _open_fleet(self) -> Fleet:
        await asyncio.to_thread(load_sdks, self.settings.backends)
        await asyncio.to_thread(self.accounts.open)  # a command line that calls models has not started the services
        fleet = Fleet(self.settings.backends, self.settings.routing, self.accounts.meter)
        fleet.start()
        return fleet

    async def _ask_store(self) -> None:
        await (await self.store.get()).collections()


async def _try(name: str, attempt: Callable[[], Awaitable[object]], timeout_s: float | None) -> Dependency:
    try:
        async with asyncio.timeout(timeout_s):
            await attempt()
    except TimeoutError:
        return Dependency(name=name, ready=False, detail="it is still starting, or does not answer")
    except WinnowError as exc:
        return Dependency(name=name, ready=False, detail=str(exc))
    return Dependency(name=name, ready=True)


async def _told(name: str, attempt: Callable[[], Awaitable[object]]) -> None:
    """Try it, for the log."""
    try:
        dependency = await _try(name, attempt, timeout_s=None)
    except Exception:
        log.exception("not ready", dependency=name)
        return
    if dependency.ready:
        log.info("ready", dependency=name)
    else:
        log.error("not ready", dependency=name, detail=dependency.detail)


def _failed(future: "asyncio.Future[T]") -> bool:
    return future.cancelled() or future.exception() is not None


def named_backends(settings: Settings) -> Backends:
    """Those of the settings. Raises ConfigError for a setting that names one which is not there."""
    return Backends(declared(settings.backends), settings.service.backend, settings.routing.auto)


def build_services(settings: Settings, *, index_home: Path | None = None, fits: Fits | None = None) -> Services:
    """The real ones. Nothing is opened or loaded yet.

    With `index_home` they have an embedded index of their own there; ledger, budgets and backends stay the home's.
    """
    return Services(
        settings,
        lambda: asyncio.to_thread(open_store, settings, index_home),
        LazyEmbedder(settings.embedding, index_fingerprint(settings.embedding)),
        index_home=index_home,
        fits=fits,
    )


def open_store(settings: Settings, index_home: Path | None = None) -> VectorStore:
    """The server's store if one is configured and no place named, else the embedded one.

    Blocks. Raises IndexBusy, ConfigError.
    """
    if settings.store.url and index_home is None:
        from indexing.store.server import ServerStore

        return ServerStore.connect(settings.store)
    from indexing.store.embedded import EmbeddedStore

    return EmbeddedStore(ensured((index_home or settings.index.home) / "index"))


def ensured(directory: Path) -> Path:
    """It, made if it was not there. Raises ConfigError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"{directory} cannot be made: {exc.strerror}; WINNOW_HOME names another place") from exc
    return directory


def _names(settings: Settings, backends: Backends) -> ModelNames:
    told = settings.compat
    embedder = settings.embedding.model
    return ModelNames(backends, told.rerank_aliases, (embedder, public_name(embedder), *told.embed_aliases))


def _reranker(settings: Settings, fits: Fits | None) -> Reranker:
    ranking, home = settings.ranking, settings.index.home
    file = CacheFile(home / CACHE_FILE, ranking.cache_entries) if ranking.cache == "sqlite" else None
    fitted = calibrations(home / FITS_FILE) if fits is None else fits
    return Reranker(ScoreCache(ranking.cache_entries, file), fitted, block=ranking.block)
