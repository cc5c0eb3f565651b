"""Use case: collections whose manifest and store disagree, found when the service starts, and mended."""

import logging
from collections.abc import Awaitable, Callable

from indexing.embedding.batching import check_embedder
from indexing.errors import EmbedderMismatch, StoreUnavailable
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import finish_submitted
from indexing.pipeline.progress import Repaired, Report
from indexing.pipeline.recovery import compare, recover_lost, repair

log = logging.getLogger(__name__)


class Repairs:
    """`warnings` are what the check found that needs somebody's attention, with the way out."""

    def __init__(self, context: Callable[[], Awaitable[PipelineContext]]) -> None:
        self._context = context
        self.warnings: list[str] = []

    async def check(self) -> None:
        """Recover what the manifest lost as a whole, and look for other differences; the log also has collections of
        another embedding model. Raises StoreUnavailable, which is a warning, too: searching goes on without the
        manifest.
        """
        try:
            context = await self._context()
        except StoreUnavailable as exc:
            self.warnings = [str(exc)]
            raise
        self.warnings = [
            f"collection {one.collection!r}: the manifest had lost it; {one.recovered} documents were recovered from "
            "the index. Run winnow index over its folders again, so that their files are known"
            for one in await recover_lost(context)
        ]
        for info in await context.store.collections():
            try:
                check_embedder(info, context.embedder.fingerprint)
            except EmbedderMismatch as exc:
                log.warning("%s", exc)
            found = await compare(context.manifest, context.store, info)
            if not found.agree:
                self.warnings.append(
                    f"collection {info.name!r}: the manifest counts {found.recorded.passages} passages, the index "
                    f"{found.stored}; winnow collections repair {info.name} makes them agree"
                )
        for warning in self.warnings:
            log.warning(warning)

    async def repair(self, name: str, report: Report) -> Repaired:
        """Make manifest and store agree. Raises CollectionNotFound."""
        context = await self._context()
        repaired = await repair(context, name, report)
        lineage = (await context.store.info(name)).spec.lineage
        await finish_submitted(context, name, lineage, report)
        self.warnings = [warning for warning in self.warnings if not warning.startswith(f"collection {name!r}:")]
        return repaired
