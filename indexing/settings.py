"""The settings of the index. Plain values: nothing here reads a file or the environment."""

import msgspec

QUICKSTART_MODEL = "all-MiniLM-L6-v2"
"""The embedding model in a package on PyPI (extra `quickstart`): a first run needs no model hub. It reads English."""

MULTILINGUAL_MODEL = "multilingual-e5-small"
"""Another one (extra `multilingual`), which reads a hundred languages."""


class EmbeddingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model that makes the dense vectors, and how it is run.

    `model` is the name of a model in a package (the two above), a model id of the Hugging Face hub, or a directory.
    `device` None lets torch choose. `batch_size` counts passages, `max_tokens` cuts what the model reads (None: the
    model's own limit). `sizes` are the dimensions to which callers may have vectors cut (Matryoshka); the index keeps
    whole ones.
    """

    model: str = QUICKSTART_MODEL
    revision: str | None = None
    device: str | None = None
    batch_size: int = 32
    max_tokens: int | None = None
    query_cache: int = 10_000
    sentence_cache: int = 10_000
    sizes: tuple[int, ...] = ()


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the passages are stored: embedded under the home directory, or on a Qdrant server if `url` is set."""

    url: str | None = None
    api_key: str | None = None
    timeout_s: float = 30.0
    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
