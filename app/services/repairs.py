"""Use case: collections whose manifest and store disagree, found when the service starts, and mended."""

import logging
from collections.abc import Awaitable, Callable

import msgspec

from indexing.embedding.batching import check_embedder
from indexing.errors import EmbedderMismatch, StoreUnavailable
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import finish_submitted
from indexing.pipeline.progress import Repaired, Report
from indexing.pipeline.recovery import compare, recover_lost, repair
from indexing.store.base import CollectionInfo

log = logging.getLogger(__name__)


class _Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What the check found of one filling of a collection. `recovered` None: the counts differ."""

    collection: str
    lineage: str
    recovered: int | None = None


class Repairs:
    """Checks the collections at the start, and says of what was found what still needs somebody's attention."""

    def __init__(self, context: Callable[[], Awaitable[PipelineContext]]) -> None:
        self._context = context
        self._unusable = ""
        """Why the manifest cannot be used at all; "" if it can."""
        self._findings: list[_Finding] = []

    async def check(self) -> None:
        """Recover what the manifest lost as a whole, and look for other differences; the log also has collections of
        another embedding model. Raises StoreUnavailable, which is a warning, too: searching goes on without the
        manifest.
        """
        try:
            context = await self._context()
        except StoreUnavailable as exc:
            self._unusable = str(exc)
            raise
        self._unusable = ""
        lost = {one.collection: one.recovered for one in await recover_lost(context)}
        self._findings = []
        for info in await context.store.collections():
            try:
                check_embedder(info, context.embedder.fingerprint)
            except EmbedderMismatch as exc:
                log.warning("%s", exc)
            finding = _Finding(collection=info.name, lineage=info.spec.lineage, recovered=lost.get(info.name))
            if sentence := await _sentence(context, finding, info):
                self._findings.append(finding)
                log.warning(sentence)

    async def warnings(self) -> list[str]:
        """What still holds of what was found, with the way out. Raises what the store raises."""
        if self._unusable:
            return [self._unusable]
        if not self._findings:
            return []
        context = await self._context()
        found = {info.name: info for info in await context.store.collections()}
        told = [(one, await _sentence(context, one, found.get(one.collection))) for one in self._findings]
        # What has been mended is not looked at again.
        self._findings = [finding for finding, sentence in told if sentence]
        return [sentence for _, sentence in told if sentence]

    async def repair(self, name: str, report: Report) -> Repaired:
        """Make manifest and store agree. Raises CollectionNotFound."""
        context = await self._context()
        repaired = await repair(context, name, report)
        lineage = (await context.store.info(name)).spec.lineage
        await finish_submitted(context, name, lineage, report)
        self._findings = [finding for finding in self._findings if finding.collection != name]
        return repaired


async def _sentence(context: PipelineContext, finding: _Finding, info: CollectionInfo | None) -> str:
    """The finding and the way out; "" if it no longer holds: the collection is gone or made anew, or it was mended."""
    name = finding.collection
    if info is None or info.spec.lineage != finding.lineage:
        return ""
    if finding.recovered is not None and not await context.manifest.sources(finding.lineage, limit=1):
        return (
            f"collection {name!r}: the manifest had lost it; {finding.recovered} documents were recovered from the "
            "index. Run winnow index over its folders again, so that their files are known; if it has none, "
            f"winnow collections repair {name} takes note"
        )
    compared = await compare(context.manifest, context.store, info)
    if compared.agree:
        return ""
    return (
        f"collection {name!r}: the manifest counts {compared.recorded.passages} passages, the index "
        f"{compared.stored}; winnow collections repair {name} makes them agree"
    )
