"""POST /v1/embeddings, as OpenAI offers it."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from app.api.compat.errors import openai_error, shaped
from app.api.compat.inputs import LenientJSON, inputs
from app.api.request import BodyRequest, while_connected
from app.services.embed import TextsToEmbed
from app.services.model_ids import EMBED
from app.wiring import Services
from indexing.store.base import Vector

TRUNCATED = "X-Winnow-Truncated"
"""This header counts the inputs that are longer than what the model reads."""

Encoding = Literal["float", "base64"]

QUERY_TYPES = ("query", "search_query")


class EmbeddingsBody(msgspec.Struct, frozen=True, kw_only=True):
    """What counts of POST /v1/embeddings. `input_type` is not OpenAI's: "query" for what looks for something.

    `dimensions` 0 is Infinity's word for all of them, and its client's default.
    """

    input: Any
    model: str | None = None
    encoding_format: Encoding | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=0)] | None = None
    input_type: str | None = None


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """A unit vector as JSON: numbers, or their bytes (float32, little-endian) in base64."""

    index: int
    embedding: msgspec.Raw
    object: str = "embedding"


class EmbeddingUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, frozen=True, kw_only=True):
    """In the order of the inputs. `truncated`, which is ours, lists those that the model read only in part."""

    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    truncated: tuple[int, ...] = ()
    object: str = "list"


@post(
    "/v1/embeddings",
    dto=LenientJSON[EmbeddingsBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(openai_error),
)
async def embeddings(
    request: BodyRequest, data: JSONBody[EmbeddingsBody], services: NamedDependency[Services]
) -> Response[EmbeddingList]:
    """Vectors of texts."""
    model = data.model or EMBED
    task = TextsToEmbed(
        model=model,
        inputs=inputs(data.input),
        dimensions=data.dimensions or None,
        queries=data.input_type in QUERY_TYPES,
    )
    found = await while_connected(request, services.embeddings.embed(task))
    content = EmbeddingList(
        data=await asyncio.to_thread(_encoded, found.vectors, data.encoding_format or "float"),
        model=model,
        usage=EmbeddingUsage(prompt_tokens=found.tokens, total_tokens=found.tokens),
        truncated=found.truncated,
    )
    return Response(content, headers={TRUNCATED: str(len(found.truncated))} if found.truncated else None)


def _encoded(vectors: Sequence[Vector], encoding: Encoding) -> list[Embedding]:
    """Takes a while for thousands of them, hence in a thread, and piece by piece, so that others get their turn."""
    encode = _base64 if encoding == "base64" else _numbers
    return [Embedding(index=index, embedding=msgspec.Raw(encode(vector))) for index, vector in enumerate(vectors)]


def _numbers(vector: Vector) -> bytes:
    return msgspec.json.encode(vector.tolist())


def _base64(vector: Vector) -> bytes:
    return b'"%s"' % base64.b64encode(vector.astype("<f4").tobytes())
