"""How a collection lies on a Qdrant server: what `[store]` asks for, what a collection has, and how to get there. Pure.

What is not set is left to the server. All but the number of shards may be changed while a collection is there; Qdrant
converts what is stored in the background.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from qdrant_client import models

from indexing.settings import Quantization, StoreSettings
from indexing.store.base import CollectionSpec

DENSE, SPARSE = "dense", "sparse"

DISTANCES = {"cosine": models.Distance.COSINE, "dot": models.Distance.DOT, "euclid": models.Distance.EUCLID}


_PARAMS = {
    "replication_factor": "replication_factor",
    "write_consistency_factor": "write_consistency_factor",
    "payload_on_disk": "on_disk_payload",
}
"""Fields that are parameters of a collection, and Qdrant's names for them."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How one collection lies there. The fields are those of StoreSettings; None: as the server does by itself."""

    shard_number: int | None
    replication_factor: int | None
    write_consistency_factor: int | None
    quantization: Quantization | None
    quantized_in_ram: bool | None
    vectors_on_disk: bool | None
    payload_on_disk: bool | None
    hnsw_on_disk: bool | None

    def text(self) -> str:
        """For people."""
        return ", ".join(_words(self))


class Wanted(msgspec.Struct, frozen=True):
    """A field in which a collection is not what the settings ask for. `fixed`: only a rebuild changes it."""

    field: str
    has: Any
    asked: Any

    @property
    def fixed(self) -> bool:
        return self.field == "shard_number"

    def text(self) -> str:
        return f"{self.field} is {_plain(self.has)}, and [store] says {_plain(self.asked)}"


def layout_of(info: models.CollectionInfo) -> Layout:
    """As the server describes the collection."""
    params, vectors = info.config.params, _dense(info)
    quantization = vectors.quantization_config or info.config.quantization_config
    kind = _kind(quantization)
    return Layout(
        shard_number=params.shard_number,
        replication_factor=params.replication_factor,
        write_consistency_factor=params.write_consistency_factor,
        quantization=kind,
        quantized_in_ram=None if kind is None else bool(getattr(quantization, kind).always_ram),
        vectors_on_disk=bool(vectors.on_disk),
        payload_on_disk=params.on_disk_payload,
        hnsw_on_disk=bool(
            _first((vectors.hnsw_config or models.HnswConfigDiff()).on_disk, info.config.hnsw_config.on_disk)
        ),
    )


def differences(settings: StoreSettings, layout: Layout) -> list[Wanted]:
    """What of the settings a collection does not have."""
    asked = {field: getattr(settings, field) for field in Layout.__struct_fields__}
    if settings.quantization is None or settings.quantization != layout.quantization:
        del asked["quantized_in_ram"]  # it comes with the quantization
    return [
        Wanted(field, getattr(layout, field), _of_settings(value))
        for field, value in asked.items()
        if value is not None and getattr(layout, field) != _of_settings(value)
    ]


def creation(spec: CollectionSpec, settings: StoreSettings) -> dict[str, Any]:
    """The arguments of `create_collection`."""
    return {
        "vectors_config": {
            DENSE: models.VectorParams(
                size=spec.dimension, distance=DISTANCES[spec.distance], on_disk=settings.vectors_on_disk
            )
        },
        "sparse_vectors_config": {SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
        "shard_number": settings.shard_number,
        "replication_factor": settings.replication_factor,
        "write_consistency_factor": settings.write_consistency_factor,
        "on_disk_payload": settings.payload_on_disk,
        "hnsw_config": _hnsw(settings.hnsw_on_disk),
        "quantization_config": _quantization(settings),
    }


def change(settings: StoreSettings, wanted: list[Wanted]) -> dict[str, Any]:
    """The arguments of `update_collection`; {} if nothing is wanted that can be changed."""
    fields = {one.field for one in wanted if not one.fixed}
    params = {theirs: getattr(settings, ours) for ours, theirs in _PARAMS.items() if ours in fields}
    arguments: dict[str, Any] = {}
    if params:
        arguments["collection_params"] = models.CollectionParamsDiff(**params)
    if "vectors_on_disk" in fields:
        arguments["vectors_config"] = {DENSE: models.VectorParamsDiff(on_disk=settings.vectors_on_disk)}
    if "hnsw_on_disk" in fields:
        arguments["hnsw_config"] = _hnsw(settings.hnsw_on_disk)
    if fields & {"quantization", "quantized_in_ram"}:
        arguments["quantization_config"] = _quantization(settings) or models.Disabled.DISABLED
    return arguments


def dense_params(settings: StoreSettings, layout: Layout) -> models.SearchParams | None:
    """How the dense side is searched: what was found by quantized vectors is scored again by the whole ones."""
    if layout.quantization is None:
        return None
    oversampling = settings.oversampling if settings.rescore else None
    quantization = models.QuantizationSearchParams(rescore=settings.rescore, oversampling=oversampling)
    return models.SearchParams(quantization=quantization)


def _quantization(settings: StoreSettings) -> Any:
    in_ram = settings.quantized_in_ram
    match settings.quantization:
        case "scalar":
            kind = models.ScalarType.INT8
            scalar = models.ScalarQuantizationConfig(type=kind, quantile=0.99, always_ram=in_ram)
            return models.ScalarQuantization(scalar=scalar)
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=in_ram))
        case "turbo":
            return models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(always_ram=in_ram))
    return None


def _kind(quantization: object) -> Quantization | None:
    match quantization:
        case models.ScalarQuantization():
            return "scalar"
        case models.BinaryQuantization():
            return "binary"
        case models.TurboQuantization():
            return "turbo"
    return None


def _hnsw(on_disk: bool | None) -> models.HnswConfigDiff | None:
    return None if on_disk is None else models.HnswConfigDiff(on_disk=on_disk)


def _dense(info: models.CollectionInfo) -> models.VectorParams:
    vectors = info.config.params.vectors
    return vectors[DENSE] if isinstance(vectors, dict) else models.VectorParams(size=1, distance=models.Distance.DOT)


def _first(*values: bool | None) -> bool | None:
    return next((value for value in values if value is not None), None)


def _of_settings(value: Any) -> Any:
    return None if value == "none" else value


def _plain(value: Any) -> str:
    return str(value).lower()  # as in the settings; None: none


def _words(layout: Layout) -> Iterator[str]:
    shards, replicas = layout.shard_number or 1, layout.replication_factor or 1
    yield f"{shards} shard{'s' if shards > 1 else ''}"
    yield f"{replicas} replica{'s' if replicas > 1 else ''}"
    if replicas > 1:
        yield f"{layout.write_consistency_factor or 1} of which confirm a write"
    if layout.quantization:
        yield f"{layout.quantization} quantization{' in RAM' if layout.quantized_in_ram else ''}"
    parts = {"vectors": layout.vectors_on_disk, "payloads": layout.payload_on_disk, "graphs": layout.hnsw_on_disk}
    if on_disk := [part for part, there in parts.items() if there]:
        yield f"{' and '.join(on_disk)} on disk"
