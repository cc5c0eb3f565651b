"""What can go wrong, for the index and for the service: the root of the one error tree, and the index's own part.

    WinnowError                   `code`: a stable word for logs and records; `retryable`: asking again may help
    ├ InvalidRequest              the caller's mistake; `problems` point at the fields
    │ ├ InvalidFilter             a filter that the grammar does not allow; `pointer` counts from the filter
    │ ├ InvalidName               a name that no collection may have
    │ ├ UnreadableDocument        a document that cannot become text; `reason` is a stable code
    │ ├ NotFound                  what the request names does not exist
    │ │ └ CollectionNotFound
    │ └ Conflict                  the request contradicts what exists
    │   └ EmbedderMismatch        the collection's vectors come from another embedding model
    ├ Overloaded                  a queue is full; `retry_after` seconds (retryable)
    ├ EmbedderUnavailable         the embedding model cannot be loaded; the text names the extra or the setting
    ├ IndexBusy                   another process holds the index
    ├ StoreUnavailable            the vector store, or a file beside it, does not answer or refuses; with `retry_after`
    │ │                             seconds it may answer later (retryable)
    │ ├ StoreBusy                 it answers, and asks for patience
    │ └ CollectionDamaged         the files of one collection; the others serve
    └ DiskFull                    less than the reserve is free: nothing is written, searching goes on

`app.errors` adds the service's part. Status codes are no concern of either: `app.api.problem_details` has them.
"""

import msgspec


class FieldProblem(msgspec.Struct, frozen=True):
    """One bad field: where (a JSON pointer into the body) and what, with the fix."""

    pointer: str
    detail: str


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """A backend that was tried and did not serve, and why (a stable code, never a provider's raw text)."""

    backend: str
    reason: str


class WinnowError(Exception):
    """Base of every error raised on purpose; its text is fit for a user to read.

    `code` is the stable word for it in `fallbacks` and in the ledger. `failures` are the backends that were tried.
    """

    code = "failed"
    retryable = False
    failures: tuple[Fallback, ...] = ()


class InvalidRequest(WinnowError):
    """The request cannot be served as it stands."""

    def __init__(self, detail: str, problems: tuple[FieldProblem, ...] = ()) -> None:
        super().__init__(detail)
        self.problems = problems


def pointing_at(pointer: str, detail: str) -> InvalidRequest:
    """The error of one bad field."""
    return InvalidRequest(f"{pointer}: {detail}", (FieldProblem(pointer, detail),))


class InvalidFilter(InvalidRequest):
    """`pointer` is a JSON pointer (RFC 6901) relative to the filter, "" for the filter itself."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer = pointer
        self.detail = detail


class InvalidName(InvalidRequest):
    """No collection may have this name; the text says which names are allowed."""


class UnreadableDocument(InvalidRequest):
    """A document that cannot become text.

    `reason` is one of REASONS in `indexing.readers`; `detail` is one plain sentence without a path.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["UnreadableDocument"], tuple[str, str]]:
        # Readers run in another process: both arguments must survive pickling.
        return (UnreadableDocument, (self.reason, self.detail))


class NotFound(InvalidRequest):
    """What the request names does not exist."""


class CollectionNotFound(NotFound):
    """No collection of that name."""

    code = "collection_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"collection {name[:100]!r} not found")
        self.name = name


class Conflict(InvalidRequest):
    """The request contradicts what exists."""


class EmbedderMismatch(Conflict):
    """The collection's vectors come from another embedder than the one configured."""

    code = "embedder_mismatch"


class Overloaded(WinnowError):
    """A queue of this process is full."""

    code = "overloaded"
    retryable = True

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class EmbedderUnavailable(WinnowError):
    """The embedding model cannot be loaded."""

    code = "embedder_unavailable"


class IndexBusy(WinnowError):
    """Another process holds the index and did not release it in time. `retry_after` (s): it may pass by itself."""

    code = "index_busy"

    def __init__(self, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.retryable = retry_after is not None


class StoreUnavailable(WinnowError):
    """The vector store, or a file beside it, does not answer or refuses. `retry_after` (s): it may pass by itself."""

    code = "store_unavailable"

    def __init__(self, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.retryable = retry_after is not None


class StoreBusy(StoreUnavailable):
    """The vector store has more requests than it takes."""

    code = "store_busy"


class CollectionDamaged(StoreUnavailable):
    """One collection's files cannot be used; the others serve. `lineage` is its own if it is known, else ""."""

    code = "collection_damaged"

    def __init__(self, name: str, why: str, lineage: str = "") -> None:
        super().__init__(
            f"collection {name!r} is damaged: {why}; winnow index --rebuild --collection {name} makes it anew, and "
            "winnow snapshot restore goes back to a snapshot"
        )
        self.why = why
        self.lineage = lineage


class DiskFull(WinnowError):
    """Writing would leave less free space than the reserve; the text says how much is free and what to do."""

    code = "disk_full"
