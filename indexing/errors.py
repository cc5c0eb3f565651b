"""What can go wrong while documents are read, indexed or looked up.

    IndexingError
    ├ UnreadableDocument      one document cannot be read; the run goes on (reason: a stable code)
    ├ InvalidFilter           a filter that the grammar does not know (pointer: JSON pointer of the bad part)
    ├ InvalidName             a collection cannot be called that
    ├ CollectionNotFound      no collection of that name
    ├ CollectionConflict      a collection of that name exists with another shape
    ├ EmbedderMismatch        the collection was embedded by another model; says which command rebuilds it
    ├ EmbedderUnavailable     the embedding model cannot be loaded; says which extra or setting mends it
    ├ EmbedderBusy            too many texts wait for the embedding model (retryable, `retry_after` seconds)
    ├ UnknownTokens           token ids that cannot be turned into text here
    ├ IndexBusy               another process holds the index
    └ StoreUnavailable        the vector store does not answer or refuses (retryable)

No HTTP here: `app.api` looks the status up by class.
"""


class IndexingError(Exception):
    """Base of everything that this package raises on purpose; its text is fit for a user to read."""


class UnreadableDocument(IndexingError):
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


class InvalidFilter(IndexingError):
    """`pointer` is a JSON pointer (RFC 6901) relative to the filter, "" for the filter itself."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer = pointer
        self.detail = detail


class InvalidName(IndexingError):
    """A collection cannot be called that; the text says what it may be called."""


class CollectionNotFound(IndexingError):
    """No collection of that name."""

    def __init__(self, name: str) -> None:
        told = name[:100]
        option = "" if name == "default" else f" --collection {told}"
        super().__init__(f"there is no collection {told!r}: `winnow index PATH{option}` makes it")
        self.name = name


class CollectionConflict(IndexingError):
    """A collection of that name exists with another shape."""


class EmbedderMismatch(IndexingError):
    """The collection's vectors come from another embedder than the one configured."""


class EmbedderUnavailable(IndexingError):
    """The embedding model cannot be loaded."""


class EmbedderBusy(IndexingError):
    """Too many texts wait for the embedding model."""

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class UnknownTokens(IndexingError):
    """Token ids that cannot be turned into text here; says what to send instead."""


class IndexBusy(IndexingError):
    """Another process holds the index and did not let go in time."""


class StoreUnavailable(IndexingError):
    """The vector store does not answer, or refuses."""
