"""POST /v1/embeddings, as OpenAI offers it."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, post
from litestar.params import JSONBody

from app.api.compat.errors import openai_error, shaped
from app.api.compat.inputs import LenientJSON, inputs
from app.api.request import BodyRequest, Injected, while_connected
from app.services.embed import Embeddings
from app.services.model_ids import EMBED
from indexing.store.base import Vector

TRUNCATED = "X-Winnow-Truncated"
"""The header that counts the inputs which are longer than what the model reads."""

Encoding = Literal["float", "base64"]

QUERY_TYPES = ("query", "search_query")


class EmbeddingsBody(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of POST /v1/embeddings that are read. `input_type`, not OpenAI's, is "query" for queries.

    `dimensions` 0 means all of them: the default of Infinity's client.
    """

    input: Any
    model: str | None = None
    encoding_format: Encoding | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=0)] | None = None
    input_type: str | None = None


@post(
    "/v1/embeddings",
    dto=LenientJSON[EmbeddingsBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(openai_error),
    opt={"scope": "search"},
)
async def create_embeddings(
    request: BodyRequest, data: JSONBody[EmbeddingsBody], embeddings: Injected[Embeddings]
) -> Response[dict[str, Any]]:
    """Unit vectors in the order of the inputs. `truncated`, which is ours, lists the inputs that the model read only in
    part.
    """
    model = data.model or EMBED
    queries = data.input_type in QUERY_TYPES
    embedding = embeddings.embed(model, inputs(data.input), dimensions=data.dimensions or None, queries=queries)
    embedded = await while_connected(request, embedding)
    vectors = await encoded(embedded.vectors, data.encoding_format or "float")
    content = {
        "data": [{"index": index, "embedding": one, "object": "embedding"} for index, one in enumerate(vectors)],
        "model": model,
        "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
        "truncated": embedded.truncated,
        "object": "list",
    }
    return Response(content, headers={TRUNCATED: str(len(embedded.truncated))} if embedded.truncated else None)


async def encoded(vectors: Sequence[Vector], encoding: Encoding) -> list[msgspec.Raw]:
    """Each vector's numbers in JSON, or their bytes (float32, little-endian) in base64.

    Takes a while for thousands of them, hence in a thread, and piece by piece, so that others get their turn.
    """
    encode = _base64 if encoding == "base64" else _numbers
    return await asyncio.to_thread(lambda: [msgspec.Raw(encode(vector)) for vector in vectors])


def _numbers(vector: Vector) -> bytes:
    return msgspec.json.encode(vector.tolist())


def _base64(vector: Vector) -> bytes:
    return b'"%s"' % base64.b64encode(vector.astype("<f4").tobytes())
