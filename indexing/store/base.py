"""The store's contract: collections of points, written and queried."""

import re
import secrets
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexing.documents import Audience, Candidate, Passage
from indexing.errors import CollectionDamaged, InvalidName
from indexing.filters import Filter

Vector = NDArray[np.float32]
Distance = Literal["cosine", "dot", "euclid"]


class SparseVector(msgspec.Struct, frozen=True):
    """Token ids (unique) and their weights, same length, at least one."""

    indices: list[int]
    values: list[float]


class CollectionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of a collection. `embedder` is the fingerprint of what made its dense vectors.

    `lineage` names this filling of the collection: whoever creates it or begins a rebuild gives a new one, and what is
    recorded about its content elsewhere (`indexing.pipeline.manifest`) is recorded under it. `notes` are facts measured
    while indexing that retrieval needs (`indexing.retrieval.fusion`).
    """

    dimension: int
    embedder: str
    lineage: str = ""
    distance: Distance = "cosine"
    notes: dict[str, Any] = {}


class CollectionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What can be told about a collection cheaply: every search asks for it."""

    name: str
    generation: str
    spec: CollectionSpec
    passages: int
    detail: str = ""
    """Why it is slower than it should be, though it serves."""


class Damaged(msgspec.Struct, frozen=True, kw_only=True):
    """A collection that cannot be used, and why. `spec` is None if that cannot be read either.

    `for_now`: its files are whole, and it only waits for space on the disk.
    """

    name: str
    detail: str
    spec: CollectionSpec | None = None
    for_now: bool = False

    def text(self) -> str:
        """What is wrong, with the way back."""
        return self.detail if self.for_now else str(self.error())

    def error(self) -> CollectionDamaged:
        """What requests to the collection get."""
        return CollectionDamaged(self.name, self.detail, self.spec.lineage if self.spec else "")


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A passage with its vectors. `sparse` is None for a text without a single token."""

    passage: Passage
    dense: Vector
    sparse: SparseVector | None


_SCORE_BITS = 16


def comparable(scores: Sequence[float]) -> list[float]:
    """The scores to sixteen binary digits, a fiftieth of a thousandth at most away.

    An engine adds up in the order in which points happen to lie, so that the last digits of what is mathematically one
    score differ between two passages, and for one passage between two stores with the same content (1.7e-7 of the
    score at most): that would order passages in place of their ids.
    """
    significands, exponents = np.frexp(np.asarray(scores, dtype=np.float64))
    rounded = np.rint(np.ldexp(significands, _SCORE_BITS))
    kept: list[float] = np.ldexp(rounded, exponents - _SCORE_BITS).tolist()
    return kept


class Retrieval(msgspec.Struct, frozen=True, kw_only=True):
    """A query. A side that is None is not searched. `limit` counts the candidates of each side, 1..1000."""

    dense: Vector | None = None
    sparse: SparseVector | None = None
    limit: int = 50
    filter: Filter | None = None


class Retrieved(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides, each by descending score (`comparable`), ties by passage id.

    `passages` counts what the audience may see in the collection, with which the scores of the sparse side were
    computed; None: all of it.
    """

    dense: list[Candidate] = []
    sparse: list[Candidate] = []
    passages: int | None = None


class VectorStore(Protocol):
    """Collections of passages. All methods raise StoreUnavailable when the store does not answer.

    What is asked of a damaged collection raises CollectionDamaged, except that it may be dropped or rebuilt.

    A write is visible to the next read, and survives a kill of the process, once its call has returned.

    Whoever reads passages says for whom: nothing else comes back, whatever the filter, the ids or the cursor. Documents
    are given by their keys (`indexing.documents.document_key`).
    """

    async def create(self, name: str, spec: CollectionSpec) -> CollectionInfo:
        """Create, or return the existing one when dimension and distance agree (Conflict, InvalidName).

        An existing collection keeps its spec: whether `embedder` matches is for the caller to check.
        """

    async def collections(self) -> list[CollectionInfo]:
        """All collections by name; generations under construction, and what is damaged, are not among them."""

    async def damaged(self) -> list[Damaged]:
        """The collections that are known to be damaged, by name."""

    async def info(self, name: str) -> CollectionInfo:
        """Raises CollectionNotFound."""

    async def bytes_on_disk(self, name: str) -> int | None:
        """The space that the collection takes; None if the store does not report it. Raises CollectionNotFound."""

    async def drop(self, name: str) -> None:
        """Delete the collection with every generation of it. Raises CollectionNotFound."""

    async def begin_rebuild(self, name: str, spec: CollectionSpec) -> str:
        """Start an empty generation beside the live one, if any; returns the name under which to write to it.

        An unfinished generation of an earlier, killed rebuild is discarded.
        """

    async def finish_rebuild(self, name: str, generation: str) -> None:
        """Make `generation` the live one, atomically for readers, and delete the one before."""

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Insert or replace by passage id."""

    async def delete_documents(self, name: str, keys: Sequence[str]) -> None:
        """Delete every passage of these documents."""

    async def delete_stale(self, name: str, versions: dict[str, str]) -> None:
        """For every document in `versions`, delete its passages of any other version than the one given."""

    async def retrieve(self, name: str, retrieval: Retrieval, audience: Audience) -> Retrieved:
        """The nearest passages of each side. Raises CollectionNotFound."""

    async def passages(self, name: str, key: str, audience: Audience) -> list[Passage]:
        """All passages of a document by ordinal; [] when there are none."""

    async def points(self, name: str, keys: Sequence[str], audience: Audience) -> list[Point]:
        """Every passage of these documents with its vectors, in no order. Raises CollectionNotFound."""

    async def page(
        self, name: str, after: str | None, limit: int, audience: Audience
    ) -> tuple[list[Passage], str | None]:
        """Up to `limit` passages of the whole collection from the cursor `after` on (None: the first), and the cursor
        that continues, None at the end. Raises CollectionNotFound.
        """

    async def room(self, name: str) -> None:
        """For who writes many points while nobody waits: returns once more of them would not take too much memory. That
        may take as long as a graph.
        """

    async def optimize(self, name: str) -> None:
        """Build graphs if enough has changed to be worth it; may take long, and holds up nobody. A store may also build
        them by itself.
        """

    async def close(self) -> None:
        """Release everything; nothing written is lost."""


_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
_GENERATION = re.compile(r"(?P<name>.+)--(?P<generation>[0-9a-f]{12})")


def check_name(name: str) -> str:
    """`name`, if it is a valid name for a collection. Raises InvalidName."""
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{name!r}: a collection name is 1 to 64 characters of A-Z a-z 0-9 _ . - and does not start with a dot"
        )
    if _GENERATION.fullmatch(name):
        raise InvalidName(f"{name!r}: names that end in -- and twelve hex digits are reserved for rebuilds")
    return name


def new_generation() -> str:
    """A random id of twelve hex digits."""
    return secrets.token_hex(6)


def generation_name(name: str, generation: str) -> str:
    """The name under which one generation of a collection is written to."""
    return f"{name}--{generation}"


def split_generation(physical: str) -> tuple[str, str] | None:
    """(name, generation) of a `generation_name`; None for any other text."""
    match = _GENERATION.fullmatch(physical)
    return (match["name"], match["generation"]) if match else None
