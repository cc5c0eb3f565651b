"""The gRPC API, as far as it is used: the messages become those of REST and back by qdrant-client's own conversions."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc as rpc
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import (
    GrpcToRest,
    RestToGrpc,
    grpc_field_type_to_payload_schema,
)
from qdrant_client.grpc import collections_service_pb2_grpc, points_service_pb2_grpc, qdrant_pb2_grpc

from tests.fakes.qdrant_server.collections import Collections
from tests.fakes.qdrant_server.refusals import Kind, Refusal
from tests.fakes.qdrant_server.server import Guard

_WORKERS = 16


class RpcServer:
    """Listens at once."""

    def __init__(self, collections: Collections, guard: Guard, version: str, port: int) -> None:
        options = [("grpc.max_receive_message_length", 32 * 2**20), ("grpc.so_reuseport", 0)]
        self._server = rpc.server(ThreadPoolExecutor(_WORKERS), options=options)
        collections_service_pb2_grpc.add_CollectionsServicer_to_server(_Collections(collections, guard), self._server)
        points_service_pb2_grpc.add_PointsServicer_to_server(_Points(collections, guard), self._server)
        qdrant_pb2_grpc.add_QdrantServicer_to_server(_Root(version), self._server)
        self.port: int = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=None).wait()


def _method(*, writes: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A method of a service, which may raise Refusal."""

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def answer(self: Any, request: Any, context: rpc.ServicerContext) -> Any:
            told = dict(context.invocation_metadata())
            key = told.get("api-key") or told.get("authorization", "").removeprefix("Bearer ") or None
            try:
                self.guard.admit(key, writes=writes)
                return method(self, request)
            except Refusal as refusal:
                context.set_trailing_metadata(refusal.metadata())
                context.abort(refusal.code, str(refusal))

        return answer

    return wrap


reads, writes = _method(writes=False), _method(writes=True)


def _given(request: Any, name: str, convert: Callable[[Any], Any]) -> Any:
    return convert(getattr(request, name)) if request.HasField(name) else None


class _Root(qdrant_pb2_grpc.QdrantServicer):
    def __init__(self, version: str) -> None:
        self._version = version

    def HealthCheck(self, request: Any, context: Any) -> Any:
        return grpc.HealthCheckReply(title="qdrant - vector search engine", version=self._version)


class _Collections(collections_service_pb2_grpc.CollectionsServicer):
    def __init__(self, collections: Collections, guard: Guard) -> None:
        self._collections, self.guard = collections, guard

    @reads
    def List(self, request: Any) -> Any:
        names = self._collections.names()
        return grpc.ListCollectionsResponse(collections=[grpc.CollectionDescription(name=name) for name in names])

    @reads
    def Get(self, request: Any) -> Any:
        info = self._collections.info(request.collection_name)
        return grpc.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

    @writes
    def Create(self, request: Any) -> Any:
        settings = models.CreateCollection(
            vectors=_given(request, "vectors_config", GrpcToRest.convert_vectors_config),
            sparse_vectors=_given(request, "sparse_vectors_config", GrpcToRest.convert_sparse_vector_config),
            hnsw_config=_given(request, "hnsw_config", GrpcToRest.convert_hnsw_config_diff),
            optimizers_config=_given(request, "optimizers_config", GrpcToRest.convert_optimizers_config_diff),
            quantization_config=_given(request, "quantization_config", GrpcToRest.convert_quantization_config),
            strict_mode_config=_given(request, "strict_mode_config", GrpcToRest.convert_strict_mode_config),
            payload=_given(request, "payload", GrpcToRest.convert_payload_storage_params),
            metadata=GrpcToRest.convert_payload(request.metadata) if len(request.metadata) else None,
            **{
                name: _given(request, name, lambda value: value)
                for name in ("shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload")
            },
        )
        return grpc.CollectionOperationResponse(result=self._collections.create(request.collection_name, settings))

    @writes
    def Update(self, request: Any) -> Any:
        change = GrpcToRest.convert_update_collection(request)
        return grpc.CollectionOperationResponse(result=self._collections.change(request.collection_name, change))

    @writes
    def Delete(self, request: Any) -> Any:
        return grpc.CollectionOperationResponse(result=self._collections.delete(request.collection_name))

    @writes
    def UpdateAliases(self, request: Any) -> Any:
        actions = [GrpcToRest.convert_alias_operations(action) for action in request.actions]
        return grpc.CollectionOperationResponse(result=self._collections.change_aliases(actions))

    @reads
    def ListAliases(self, request: Any) -> Any:
        aliases = [RestToGrpc.convert_alias_description(alias) for alias in self._collections.aliases()]
        return grpc.ListAliasesResponse(aliases=aliases)


def _updated(result: models.UpdateResult) -> Any:
    return grpc.PointsOperationResponse(result=RestToGrpc.convert_update_result(result))


def _selector(request: Any, name: str) -> Any:
    return GrpcToRest.convert_points_selector(getattr(request, name))


def _records(records: Sequence[models.Record]) -> list[Any]:
    return [RestToGrpc.convert_record(record) for record in records]


class _Points(points_service_pb2_grpc.PointsServicer):
    def __init__(self, collections: Collections, guard: Guard) -> None:
        self._collections, self.guard = collections, guard

    @writes
    def Upsert(self, request: Any) -> Any:
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        return _updated(self._collections.upsert(request.collection_name, points))

    @writes
    def Delete(self, request: Any) -> Any:
        return _updated(self._collections.delete_points(request.collection_name, _selector(request, "points")))

    @writes
    def SetPayload(self, request: Any) -> Any:
        selector = _selector(request, "points_selector")
        change = models.SetPayload(
            payload=GrpcToRest.convert_payload(request.payload),
            points=getattr(selector, "points", None),
            filter=getattr(selector, "filter", None),
            key=_given(request, "key", str),
        )
        return _updated(self._collections.set_payload(request.collection_name, change))

    @reads
    def Get(self, request: Any) -> Any:
        wanted = models.PointRequest(
            ids=[GrpcToRest.convert_point_id(one) for one in request.ids],
            with_payload=_given(request, "with_payload", GrpcToRest.convert_with_payload_interface),
            with_vector=_given(request, "with_vectors", GrpcToRest.convert_with_vectors_selector),
        )
        return grpc.GetResponse(result=_records(self._collections.get(request.collection_name, wanted)))

    @reads
    def Scroll(self, request: Any) -> Any:
        wanted = models.ScrollRequest(
            filter=_given(request, "filter", GrpcToRest.convert_filter),
            offset=_given(request, "offset", GrpcToRest.convert_point_id),
            limit=_given(request, "limit", int),
            with_payload=_given(request, "with_payload", GrpcToRest.convert_with_payload_interface),
            with_vector=_given(request, "with_vectors", GrpcToRest.convert_with_vectors_selector),
        )
        page = self._collections.scroll(request.collection_name, wanted)
        following = page.next_page_offset
        offset = None if following is None else RestToGrpc.convert_extended_point_id(following)
        return grpc.ScrollResponse(result=_records(page.points), next_page_offset=offset)

    @reads
    def Count(self, request: Any) -> Any:
        counting = models.CountRequest(
            filter=_given(request, "filter", GrpcToRest.convert_filter), exact=_given(request, "exact", bool)
        )
        result = self._collections.count(request.collection_name, counting)
        return grpc.CountResponse(result=RestToGrpc.convert_count_result(result))

    @reads
    def QueryBatch(self, request: Any) -> Any:
        queries = [GrpcToRest.convert_query_points(one) for one in request.query_points]
        responses = self._collections.query(request.collection_name, queries)
        return grpc.QueryBatchResponse(
            result=[
                grpc.BatchResult(result=[RestToGrpc.convert_scored_point(point) for point in response.points])
                for response in responses
            ]
        )

    @writes
    def CreateFieldIndex(self, request: Any) -> Any:
        if request.HasField("field_index_params") and request.field_index_params.WhichOneof("index_params"):
            schema: Any = GrpcToRest.convert_payload_schema_params(request.field_index_params)
        elif request.HasField("field_type"):
            schema = GrpcToRest.convert_payload_schema_type(grpc_field_type_to_payload_schema(request.field_type))
        else:
            raise Refusal(Kind.BAD_REQUEST, "an index needs a type")
        return _updated(self._collections.create_index(request.collection_name, request.field_name, schema))

    @writes
    def DeleteFieldIndex(self, request: Any) -> Any:
        return _updated(self._collections.delete_index(request.collection_name, request.field_name))
