"""The collections of a server: each a shard of the engine in a directory, with its settings beside it."""

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from pydantic import BaseModel
from qdrant_client import models
from qdrant_client.http.models import QueryResponse

from tests.fakes.qdrant_server import conversion
from tests.fakes.qdrant_server.refusals import Kind, Refusal
from tests.fakes.qdrant_server.strict_mode import Schema, check_exact, check_filter, check_limit

DONE = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)
_HNSW = models.HnswConfig(m=16, ef_construct=100, full_scan_threshold=10_000, max_indexing_threads=0, on_disk=False)
_OPTIMIZERS = models.OptimizersConfig(
    deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=5
)
_WAL = models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0)


class State(BaseModel):
    """What a collection's file says of it: how it was created, as changed since, and its indexes."""

    created: models.CreateCollection
    indexes: dict[str, models.PayloadFieldSchema] = {}


class _Collection:
    """One of them. Its shard allows several readers, and one writer at a time."""

    def __init__(self, directory: Path, state: State) -> None:
        self._directory = directory
        self.state = state
        self.writing = threading.Lock()
        shard = directory / "shard"
        if shard.exists():
            self.shard = edge.EdgeShard.load(str(shard))
        else:
            shard.mkdir(parents=True)
            self.shard = edge.EdgeShard.create(str(shard), conversion.shard_config(state.created))
            self.save()

    def save(self) -> None:
        path = self._directory / "state.json"
        path.with_suffix(".new").write_text(self.state.model_dump_json(exclude_none=True), encoding="utf-8")
        path.with_suffix(".new").replace(path)

    @property
    def limits(self) -> models.StrictModeConfig:
        return self.state.created.strict_mode_config or models.StrictModeConfig()

    def kinds(self) -> dict[str, Schema]:
        return {
            path: one if isinstance(one, Schema) else Schema(one.type.value) for path, one in self.state.indexes.items()
        }

    def check(self, condition: models.Filter | None, *, writes: bool = False) -> None:
        check_filter(self.limits, condition, self.kinds(), writes=writes)

    def info(self) -> models.CollectionInfo:
        created, shard = self.state.created, self.shard.info()
        hnsw = _HNSW.model_copy(update=_given(created.hnsw_config))
        indexed = {path: one.points for path, one in shard.payload_schema.items()}
        return models.CollectionInfo(
            status=models.CollectionStatus.GREEN,
            optimizer_status=models.OptimizersStatusOneOf.OK,
            indexed_vectors_count=shard.indexed_vectors_count,
            points_count=shard.points_count,
            segments_count=shard.segments_count,
            config=models.CollectionConfig(
                params=models.CollectionParams(
                    vectors=created.vectors,
                    shard_number=created.shard_number or 1,
                    replication_factor=created.replication_factor or 1,
                    write_consistency_factor=created.write_consistency_factor or 1,
                    on_disk_payload=created.on_disk_payload if created.on_disk_payload is not None else True,
                    payload=created.payload,
                    sparse_vectors=created.sparse_vectors,
                ),
                hnsw_config=hnsw,
                optimizer_config=_OPTIMIZERS.model_copy(update=_given(created.optimizers_config)),
                wal_config=_WAL,
                quantization_config=created.quantization_config,
                strict_mode_config=None
                if created.strict_mode_config is None
                else models.StrictModeConfigOutput(**created.strict_mode_config.model_dump(exclude_none=True)),
                metadata=created.metadata,
            ),
            payload_schema={
                path: models.PayloadIndexInfo(
                    data_type=kind,
                    params=None if isinstance(params := self.state.indexes[path], Schema) else params,
                    points=indexed.get(path, 0),
                )
                for path, kind in self.kinds().items()
            },
        )

    def change(self, change: models.UpdateCollection) -> None:
        """Merge what may be changed later into the settings; the engine's own shard stays as it is."""
        created = self.state.created
        for name, diff in (change.vectors or {}).items():
            created.vectors[name] = _merged(created.vectors[name], diff)
        for name, field in (("hnsw_config", change.hnsw_config), ("optimizers_config", change.optimizers_config)):
            if field is not None:
                setattr(created, name, _merged(getattr(created, name) or type(field)(), field))
        for name, value in _given(change.params).items():
            setattr(created, name, value)
        for name, sparse in (change.sparse_vectors or {}).items():
            created.sparse_vectors[name] = _merged(created.sparse_vectors[name], sparse)
        if change.quantization_config is not None:
            disabled = isinstance(change.quantization_config, models.Disabled)
            created.quantization_config = None if disabled else change.quantization_config
        if change.strict_mode_config is not None:
            before = created.strict_mode_config or models.StrictModeConfig()
            created.strict_mode_config = _merged(before, change.strict_mode_config)
        if change.metadata is not None:
            created.metadata = {**(created.metadata or {}), **change.metadata}
        self.save()


def _given(part: BaseModel | None) -> dict[str, Any]:
    """The fields that are set, as they are."""
    return {} if part is None else {name: value for name, value in part if value is not None}


def _merged(before: Any, diff: BaseModel) -> Any:
    given = {name: (None if isinstance(value, models.Disabled) else value) for name, value in _given(diff).items()}
    return before.model_copy(update=given)


@contextmanager
def _engine() -> Iterator[None]:
    """Its errors are plain `Exception`s: what it does not take is the caller's fault."""
    try:
        yield
    except Exception as exc:
        if type(exc) is not Exception:
            raise
        raise Refusal(Kind.BAD_INPUT, str(exc)) from exc


class Collections:
    """All of a server, in `directory`. Every method may raise Refusal."""

    def __init__(self, directory: Path, *, keeps_metadata: bool = True) -> None:
        """`keeps_metadata`: servers before 1.16 do not, and say nothing about it."""
        self._directory = directory
        self._keeps_metadata = keeps_metadata
        self._aliases_file = directory / "aliases.json"
        self._table = threading.RLock()
        self._open: dict[str, _Collection] = {}
        self._aliases: dict[str, str] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(directory.glob("*/state.json")):
            self._open[path.parent.name] = _Collection(path.parent, State.model_validate_json(path.read_text()))
        if self._aliases_file.exists():
            listed = models.CollectionsAliasesResponse.model_validate_json(self._aliases_file.read_text())
            self._aliases = {one.alias_name: one.collection_name for one in listed.aliases}

    def close(self) -> None:
        for one in self._open.values():
            one.shard.close()

    # Collections and aliases

    def names(self) -> list[str]:
        with self._table:
            return sorted(self._open)

    def create(self, name: str, settings: models.CreateCollection) -> bool:
        with self._table:
            self._refuse_taken(name)
            if name in self._aliases:
                raise Refusal(
                    Kind.BAD_INPUT,
                    f"Can't create collection with name {name}. Alias with the same name already exists",
                )
            if not self._keeps_metadata:
                settings.metadata = None
            self._open[name] = _Collection(self._directory / name, State(created=settings))
        return True

    def change(self, name: str, change: models.UpdateCollection) -> bool:
        collection = self._find(name)
        with collection.writing:
            collection.change(change)
        return True

    def delete(self, name: str) -> bool:
        with self._table:
            if (collection := self._open.pop(name, None)) is None:
                return False
            self._aliases = {alias: target for alias, target in self._aliases.items() if target != name}
            self._save_aliases()
            with collection.writing:
                collection.shard.close()
            shutil.rmtree(self._directory / name)
        return True

    def info(self, name: str) -> models.CollectionInfo:
        return self._find(name).info()

    def aliases(self) -> list[models.AliasDescription]:
        with self._table:
            pairs = sorted(self._aliases.items())
        return [models.AliasDescription(alias_name=alias, collection_name=target) for alias, target in pairs]

    def change_aliases(self, operations: Sequence[Any]) -> bool:
        """All of them or none, and no request between two of them."""
        with self._table:
            after = dict(self._aliases)
            for operation in operations:
                match operation:
                    case models.CreateAliasOperation(create_alias=one):
                        if one.collection_name not in self._open:
                            raise _missing(one.collection_name)
                        self._refuse_taken(one.alias_name)
                        after[one.alias_name] = one.collection_name
                    case models.DeleteAliasOperation(delete_alias=one):
                        after.pop(one.alias_name, None)
                    case models.RenameAliasOperation(rename_alias=one):
                        if one.old_alias_name not in after:
                            raise Refusal(Kind.NOT_FOUND, f"Alias {one.old_alias_name} does not exists!")
                        after[one.new_alias_name] = after.pop(one.old_alias_name)
            self._aliases = after
            self._save_aliases()
        return True

    # Points

    def upsert(self, name: str, points: Sequence[models.PointStruct]) -> models.UpdateResult:
        collection = self._find(name)
        limits = collection.limits
        check_limit(limits, len(points), limits.upsert_max_batchsize, "upsert limit")
        rows = [conversion.point(one) for one in points]
        with collection.writing, _engine():
            if rows:
                collection.shard.update(edge.UpdateOperation.upsert_points(rows))
        return DONE

    def delete_points(self, name: str, selector: Any) -> models.UpdateResult:
        collection = self._find(name)
        if isinstance(selector, models.FilterSelector):
            collection.check(selector.filter, writes=True)
            operation = edge.UpdateOperation.delete_points_by_filter(conversion.condition(selector.filter))
        else:
            operation = edge.UpdateOperation.delete_points(conversion.ids(list(selector.points)))
        with collection.writing, _engine():
            collection.shard.update(operation)
        return DONE

    def set_payload(self, name: str, change: models.SetPayload) -> models.UpdateResult:
        collection = self._find(name)
        if change.points is not None:
            ids = conversion.ids(list(change.points))
            operation = edge.UpdateOperation.set_payload(ids, change.payload, change.key)
        else:
            collection.check(change.filter, writes=True)
            condition = conversion.condition(change.filter)
            operation = edge.UpdateOperation.set_payload_by_filter(condition, change.payload, change.key)
        with collection.writing, _engine():
            collection.shard.update(operation)
        return DONE

    def scroll(self, name: str, request: models.ScrollRequest) -> models.ScrollResult:
        collection = self._find(name)
        limit = 10 if request.limit is None else request.limit
        check_limit(collection.limits, limit, collection.limits.max_query_limit, "limit")
        collection.check(request.filter)
        with _engine():
            records, following = collection.shard.scroll(
                edge.ScrollRequest(
                    offset=None if request.offset is None else conversion.ids([request.offset])[0],
                    limit=limit,
                    filter=conversion.condition(request.filter),
                    with_payload=True if request.with_payload is None else conversion.selector(request.with_payload),
                    with_vector=request.with_vector or False,
                )
            )
        return models.ScrollResult(
            points=[_record(one) for one in records], next_page_offset=None if following is None else str(following)
        )

    def get(self, name: str, request: models.PointRequest) -> list[models.Record]:
        payload = True if request.with_payload is None else conversion.selector(request.with_payload)
        with _engine():
            ids = conversion.ids(list(request.ids))
            return [_record(one) for one in self._find(name).shard.retrieve(ids, payload, request.with_vector or False)]

    def count(self, name: str, request: models.CountRequest) -> models.CountResult:
        collection = self._find(name)
        exact = request.exact is not False
        check_exact(collection.limits, exact)
        collection.check(request.filter)
        with _engine():
            counting = edge.CountRequest(exact=exact, filter=conversion.condition(request.filter))
            return models.CountResult(count=collection.shard.count(counting))

    def query(self, name: str, requests: Sequence[models.QueryRequest]) -> list[QueryResponse]:
        collection = self._find(name)
        limits = collection.limits
        check_limit(limits, len(requests), limits.search_max_batchsize, "search batch size")
        for request in requests:
            check_limit(limits, request.limit, limits.max_query_limit, "limit")
            collection.check(request.filter)
            if request.params is not None:
                check_exact(limits, request.params.exact)
                quantization = request.params.quantization
                oversampling = None if quantization is None else quantization.oversampling
                check_limit(limits, oversampling, limits.search_max_oversampling, "oversampling")
                collection.check(conversion.idf_corpus(request.params))
        with _engine():
            batch = edge.QueryBatchRequest([conversion.query(request) for request in requests])
            return [
                QueryResponse(points=[_scored(one) for one in hits]) for hits in collection.shard.query_batch(batch)
            ]

    # Payload indexes

    def create_index(self, name: str, path: str, schema: Any) -> models.UpdateResult:
        collection = self._find(name)
        limits = collection.limits
        check_limit(limits, len({*collection.state.indexes, path}), limits.max_payload_index_count, "indexes")
        with collection.writing, _engine():
            collection.shard.update(edge.UpdateOperation.create_field_index(path, conversion.index_schema(schema)))
            collection.state.indexes[path] = schema
            collection.save()
        return DONE

    def delete_index(self, name: str, path: str) -> models.UpdateResult:
        collection = self._find(name)
        with collection.writing, _engine():
            collection.shard.update(edge.UpdateOperation.delete_field_index(path))
            collection.state.indexes.pop(path, None)
            collection.save()
        return DONE

    def _find(self, name: str) -> _Collection:
        with self._table:
            collection = self._open.get(self._aliases.get(name, name))
        if collection is None:
            raise _missing(name)
        return collection

    def _refuse_taken(self, name: str) -> None:
        if name in self._open:
            raise Refusal(Kind.ALREADY_EXISTS, f"Collection `{name}` already exists!")

    def _save_aliases(self) -> None:
        listed = models.CollectionsAliasesResponse(aliases=self.aliases())
        new = self._aliases_file.with_suffix(".new")
        new.write_text(listed.model_dump_json(), encoding="utf-8")
        new.replace(self._aliases_file)


def _missing(name: str) -> Refusal:
    return Refusal(Kind.NOT_FOUND, f"Collection `{name}` doesn't exist!")


def _record(one: edge.Record) -> models.Record:
    return models.Record(id=_outgoing(one.id), payload=one.payload, vector=conversion.stored(one.vector))


def _scored(one: edge.ScoredPoint) -> models.ScoredPoint:
    return models.ScoredPoint(
        id=_outgoing(one.id),
        version=one.version,
        score=one.score,
        payload=one.payload,
        vector=conversion.stored(one.vector),
    )


def _outgoing(point_id: Any) -> int | str:
    return point_id if isinstance(point_id, int) else str(point_id)
