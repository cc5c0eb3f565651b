"""RAGFlow's form of an external knowledge base of Dify: /api/v1/dify/retrieval."""

from typing import Annotated

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody, QueryParameter

from app.api.compat.dify import DifyRequest, Records, RetrievalSetting, find_records
from app.api.compat.errors import shaped
from app.api.compat.lenient_json import LenientJSON
from app.api.compat.ragflow.errors import ragflow_dify_error
from app.api.json_body import BodyRequest
from app.api.schemas import MAX_CANDIDATES
from app.domain import RankingOptions
from app.wiring import Services


class Healthy(msgspec.Struct, frozen=True, kw_only=True):
    """It answers."""

    code: int = 0
    message: str = "success"
    data: bool = True


@post(
    "/api/v1/dify/retrieval",
    dto=LenientJSON[DifyRequest],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(ragflow_dify_error),
)
async def ragflow_dify_retrieval(
    request: BodyRequest, data: JSONBody[DifyRequest], services: NamedDependency[Services]
) -> Records:
    """As POST /retrieval, with RAGFlow's errors, and all that it finds where `top_k` is not given."""
    return await find_records(request, services, data.to_query(MAX_CANDIDATES, RankingOptions()))


@get(
    "/api/v1/dify/retrieval",
    exception_handlers=shaped(ragflow_dify_error),
)
async def ragflow_dify_retrieval_by_get(
    request: BodyRequest,
    services: NamedDependency[Services],
    knowledge_id: FromQuery[str] = "",
    question: Annotated[str, QueryParameter(name="query")] = "",
    top_k: FromQuery[int | None] = None,
    score_threshold: FromQuery[float | None] = None,
) -> Records:
    """The same by parameters."""
    setting = RetrievalSetting(top_k=top_k, score_threshold=score_threshold)
    asked = DifyRequest(knowledge_id=knowledge_id, query=question, retrieval_setting=setting)
    return await find_records(request, services, asked.to_query(MAX_CANDIDATES, RankingOptions()))


@get(
    "/api/v1/dify/retrieval/health",
)
async def ragflow_dify_health() -> Healthy:
    """It does."""
    return Healthy()
