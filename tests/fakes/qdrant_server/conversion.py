"""Requests in the classes of qdrant-client, which are made from Qdrant's OpenAPI, as the engine wants them."""

from typing import Any, cast
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

from tests.fakes.qdrant_server.refusals import Kind, Refusal

_DISTANCES = {
    models.Distance.COSINE: edge.Distance.Cosine,
    models.Distance.DOT: edge.Distance.Dot,
    models.Distance.EUCLID: edge.Distance.Euclid,
    models.Distance.MANHATTAN: edge.Distance.Manhattan,
}
_KINDS = {kind: getattr(edge.PayloadSchemaType, kind.value.capitalize()) for kind in models.PayloadSchemaType}
_PARAMS = {
    models.KeywordIndexParams: edge.KeywordIndexParams,
    models.IntegerIndexParams: edge.IntegerIndexParams,
    models.FloatIndexParams: edge.FloatIndexParams,
    models.BoolIndexParams: edge.BoolIndexParams,
    models.DatetimeIndexParams: edge.DatetimeIndexParams,
    models.TextIndexParams: edge.TextIndexParams,
}
_TOKENIZERS = {
    models.TokenizerType.PREFIX: edge.TokenizerType.Prefix,
    models.TokenizerType.WHITESPACE: edge.TokenizerType.Whitespace,
    models.TokenizerType.WORD: edge.TokenizerType.Word,
    models.TokenizerType.MULTILINGUAL: edge.TokenizerType.Multilingual,
}
_TURBO_BITS = {bits: getattr(edge.TurboQuantBitSize, bits.value.capitalize()) for bits in models.TurboQuantBitSize}


def shard_config(collection: models.CreateCollection) -> edge.EdgeConfig:
    """A shard for a new collection. Where its parts lie in memory is for servers, and left out."""
    vectors = cast("dict[str, models.VectorParams]", collection.vectors)
    return edge.EdgeConfig(
        vectors={
            name: edge.EdgeVectorParams(
                size=one.size,
                distance=_DISTANCES[one.distance],
                quantization_config=_quantization(one.quantization_config or collection.quantization_config),
            )
            for name, one in vectors.items()
        },
        sparse_vectors={
            name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if one.modifier else None)
            for name, one in (collection.sparse_vectors or {}).items()
        },
    )


def _quantization(config: object) -> Any:
    match config:
        case models.ScalarQuantization():
            return edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8, quantile=config.scalar.quantile)
        case models.BinaryQuantization():
            return edge.BinaryQuantizationConfig()
        case models.TurboQuantization():
            bits = config.turbo.bits
            return edge.TurboQuantQuantizationConfig(bits=None if bits is None else _TURBO_BITS[bits])
    return None


def index_schema(schema: object) -> Any:
    """Of a payload index."""
    if isinstance(schema, models.PayloadSchemaType):
        return _KINDS[schema]
    if type(schema) not in _PARAMS:
        raise Refusal(Kind.BAD_REQUEST, f"no such index: {schema}")
    params = cast("models.KeywordIndexParams", schema).model_dump(exclude_none=True, exclude={"type"})
    if "tokenizer" in params:
        params["tokenizer"] = _TOKENIZERS[params["tokenizer"]]
    return _PARAMS[type(schema)](**params)


def point(one: models.PointStruct) -> edge.Point:
    vectors = cast("dict[str, Any]", one.vector)
    return edge.Point(_id(one.id), {name: _vector(vector) for name, vector in vectors.items()}, dict(one.payload or {}))


def _id(value: models.ExtendedPointId) -> int | UUID:
    return value if isinstance(value, int) else UUID(str(value))


def ids(values: list[models.ExtendedPointId]) -> list[Any]:
    return [_id(value) for value in values]


def _vector(vector: Any) -> Any:
    if isinstance(vector, models.SparseVector):
        return edge.SparseVector(list(vector.indices), list(vector.values))
    return list(vector)


def stored(vectors: Any) -> Any:
    """The vectors of a point, on their way out."""
    if not isinstance(vectors, dict):
        return vectors
    return {
        name: models.SparseVector(indices=list(one.indices), values=list(one.values))
        if isinstance(one, edge.SparseVector)
        else [float(value) for value in one]
        for name, one in vectors.items()
    }


def condition(given: models.Filter | None) -> edge.Filter | None:
    if given is None:
        return None
    parts = {
        name: [_condition(one) for one in (part if isinstance(part, list) else [part])]
        for name in ("must", "should", "must_not")
        if (part := getattr(given, name)) is not None
    }
    return edge.Filter(**parts)


def _condition(one: models.Condition) -> Any:
    match one:
        case models.Filter():
            return condition(one)
        case models.IsEmptyCondition():
            return edge.IsEmptyCondition(one.is_empty.key)
        case models.IsNullCondition():
            return edge.IsNullCondition(one.is_null.key)
        case models.HasIdCondition():
            return edge.HasIdCondition(set(ids(list(one.has_id))))
        case models.HasVectorCondition():
            return edge.HasVectorCondition(one.has_vector)
        case models.FieldCondition(match=None, range=models.DatetimeRange() as within):
            moments = {side: moment.isoformat() for side, moment in within if moment is not None}
            return edge.FieldCondition(one.key, range=edge.RangeDateTime(**moments))
        case models.FieldCondition(match=None, range=models.Range() as within):
            return edge.FieldCondition(one.key, range=edge.RangeFloat(**within.model_dump(exclude_none=True)))
        case models.FieldCondition(match=match) if match is not None:
            return edge.FieldCondition(one.key, match=_match(match))
    raise Refusal(Kind.BAD_REQUEST, f"this condition is unknown here: {one}")


def _match(match: Any) -> Any:
    match match:
        case models.MatchAny():
            return edge.MatchAny(list(match.any))
        case models.MatchExcept():
            return edge.MatchExcept(list(match.except_))
        case models.MatchValue():
            # The binding takes Python's True for the integer 1, and only NumPy's for a boolean.
            value = match.value
            return edge.MatchValue(cast("bool", np.bool_(value)) if isinstance(value, bool) else value)
        case models.MatchText():
            return edge.MatchText(match.text)
        case models.MatchTextAny():
            return edge.MatchTextAny(match.text_any)
        case models.MatchPhrase():
            return edge.MatchPhrase(match.phrase)
    raise Refusal(Kind.BAD_REQUEST, f"this match is unknown here: {match}")


def query(request: models.QueryRequest) -> edge.QueryRequest:
    return edge.QueryRequest(
        limit=10 if request.limit is None else request.limit,
        offset=request.offset,
        query=_scoring(request.query, request.using),
        prefetches=[_prefetch(one) for one in _listed(request.prefetch)],
        filter=condition(request.filter),
        score_threshold=request.score_threshold,
        params=_params(request.params),
        with_vector=request.with_vector or False,
        with_payload=selector(request.with_payload),
    )


def _listed(prefetch: Any) -> list[models.Prefetch]:
    return prefetch if isinstance(prefetch, list) else [prefetch] if prefetch else []


def _prefetch(one: models.Prefetch) -> edge.Prefetch:
    return edge.Prefetch(
        limit=10 if one.limit is None else one.limit,
        query=_scoring(one.query, one.using),
        prefetches=[_prefetch(inner) for inner in _listed(one.prefetch)],
        params=_params(one.params),
        filter=condition(one.filter),
        score_threshold=one.score_threshold,
    )


def _scoring(given: Any, using: str | None) -> Any:
    match given:
        case None:
            return None
        case models.NearestQuery():
            return _scoring(given.nearest, using)
        case models.FusionQuery():
            return edge.Fusion.Rrf(k=2) if given.fusion == models.Fusion.RRF else edge.Fusion.Dbsf()
        case models.RrfQuery():
            return edge.Fusion.Rrf(k=given.rrf.k or 2, weights=given.rrf.weights)
        case list() | models.SparseVector():
            return edge.Query.Nearest(_vector(given), using=using)
    raise Refusal(Kind.BAD_REQUEST, f"this query is unknown here: {type(given).__name__}")


def _params(given: models.SearchParams | None) -> edge.SearchParams | None:
    if given is None:
        return None
    quantization = given.quantization
    return edge.SearchParams(
        hnsw_ef=given.hnsw_ef,
        exact=bool(given.exact),
        indexed_only=bool(given.indexed_only),
        quantization=None
        if quantization is None
        else edge.QuantizationSearchParams(
            ignore=bool(quantization.ignore), rescore=quantization.rescore, oversampling=quantization.oversampling
        ),
        idf=edge.IdfParams(condition(corpus)) if (corpus := idf_corpus(given)) else None,
    )


def idf_corpus(given: models.SearchParams) -> models.Filter | None:
    """Whose numbers of documents count, if not everybody's."""
    return given.idf.corpus if isinstance(given.idf, models.IdfCorpusParams) else None


def selector(given: Any) -> Any:
    """Which fields of the payload to return."""
    match given:
        case None:
            return False
        case models.PayloadSelectorInclude():
            return edge.PayloadSelector.Include(list(given.include))
        case models.PayloadSelectorExclude():
            return edge.PayloadSelector.Exclude(list(given.exclude))
    return given
