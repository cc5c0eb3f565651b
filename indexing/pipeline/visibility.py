"""Which version of a document counts while it is being written or deleted, and searching with regard to it.

The store holds passages of two versions then. Readers see those of the version that counts alone: the earlier one
until the manifest commits the next, which is what a restart finds there as well.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from indexing.documents import Audience, Candidate
from indexing.filters import Group, OfVersions
from indexing.store.base import Retrieval, Retrieved, VectorStore

Counting = Mapping[str, str | None]
"""Key of a document in flux -> its version that counts, None if none does. Of all others every passage counts."""

_NOTHING: Counting = {}
_TRIES = 4


class Visibility:
    """What counts in each lineage. A mapping that was handed out never changes: a change makes a new one."""

    def __init__(self) -> None:
        self._lineages: dict[str, Counting] = {}

    def counting(self, lineage: str) -> Counting:
        """Of the documents in flux."""
        return self._lineages.get(lineage, _NOTHING)

    def show(self, lineage: str, versions: Counting) -> None:
        """From now on these versions count."""
        self._lineages[lineage] = {**self.counting(lineage), **versions}

    def settled(self, lineage: str, keys: Iterable[str]) -> None:
        """The store holds what counts of these documents, and nothing else."""
        settled = set(keys)
        left = {key: version for key, version in self.counting(lineage).items() if key not in settled}
        if left:
            self._lineages[lineage] = left
        else:
            self._lineages.pop(lineage, None)


async def retrieve_counting(
    store: VectorStore, name: str, retrieval: Retrieval, audience: Audience, counting: Callable[[], Counting]
) -> Retrieved:
    """As `VectorStore.retrieve`, without passages that do not count: never two versions of one document.

    It costs nothing while nothing is in flux. `counting` tells what counts at the moment.
    """
    narrowed = retrieval
    for _ in range(_TRIES):
        before = counting()
        retrieved = await store.retrieve(name, narrowed, audience)
        after = counting()
        if not before and before is after:
            return retrieved
        shown = _shown(retrieved, before, after)
        lost = any(
            len(side) >= retrieval.limit and len(kept) < len(side)
            for side, kept in ((retrieved.dense, shown.dense), (retrieved.sparse, shown.sparse))
        )
        if not lost and not _changed_meanwhile(retrieved, before, after):
            break
        if lost:  # others have stood in the places of passages that count: let the store leave them out
            narrowed = _narrowed(retrieval, after)
    return shown


def _shown(retrieved: Retrieved, before: Counting, after: Counting) -> Retrieved:
    """What counts; of a document that changed meanwhile what counts since, or else what counted before."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for candidate in (*retrieved.dense, *retrieved.sparse):
        found[candidate.passage.key].add(candidate.passage.version)
    counts: dict[str, str | None] = {}
    for key, versions in found.items():
        if key in before or key in after:
            ways = [way[key] for way in (after, before) if key in way]
            counts[key] = next((version for version in ways if version in versions), None)
            if key not in after and counts[key] is None and len(versions) == 1:
                (counts[key],) = versions  # committed and settled meanwhile

    def keep(side: list[Candidate]) -> list[Candidate]:
        return [c for c in side if counts.get(c.passage.key, c.passage.version) == c.passage.version]

    return Retrieved(dense=keep(retrieved.dense), sparse=keep(retrieved.sparse), passages=retrieved.passages)


def _changed_meanwhile(retrieved: Retrieved, before: Counting, after: Counting) -> bool:
    """Whether what was found of a document may be of the time before a change, or of that after it."""
    if before is after:
        return False
    found: dict[str, str] = {}
    for candidate in (*retrieved.dense, *retrieved.sparse):
        key, version = candidate.passage.key, candidate.passage.version
        if before.get(key, "") != after.get(key, ""):
            return True
        if found.setdefault(key, version) != version and key not in after:
            return True  # it was in flux in between
    return False


def _narrowed(retrieval: Retrieval, counting: Counting) -> Retrieval:
    """The same query, answered without passages that do not count."""
    versions = tuple(sorted({version for version in counting.values() if version is not None}))
    condition = OfVersions(keys=tuple(counting), versions=versions)
    both = condition if retrieval.filter is None else Group(op="and", conditions=(retrieval.filter, condition))
    return Retrieval(dense=retrieval.dense, sparse=retrieval.sparse, limit=retrieval.limit, filter=both)
