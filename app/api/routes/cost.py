"""POST /cost/estimate."""

import asyncio
from typing import Annotated, Literal

import msgspec
from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from app.accounting.estimator.hardware import GPUS
from app.accounting.estimator.models import MONTH_H, Estimate, Workload
from app.api.json_body import StrictJSON
from app.api.openapi import problems
from app.errors import pointing_at
from app.wiring import Services

Tokens = Annotated[int, Meta(ge=0, le=10**15, description="In a month.")]
Hours = Annotated[float, Meta(gt=0, le=744)]
DollarsPerHour = Annotated[float, Meta(ge=0, le=1000)]


class EstimateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A month's tokens, and what to assume of GPUs."""

    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cached_share: Annotated[float, Meta(ge=0, le=1, description="The part of the input that a cache serves.")] = 0.0
    hours: Annotated[
        Hours | Literal["needed"], Meta(description='Rented a month, used or not; "needed": only while there is work.')
    ] = MONTH_H
    concurrency: Annotated[int, Meta(ge=1, le=1024, description="Conversations that a GPU serves at once.")] = 8
    prompt_factor: Annotated[
        float, Meta(ge=1, le=10_000, description="How much faster a prompt is read than one stream is written.")
    ] = 50.0
    gpus: (
        Annotated[
            dict[str, DollarsPerHour],
            Meta(description='Dollars per hour: {"RTX 4090": 0.4}. Only these are looked at; default: all.'),
        ]
        | None
    ) = None

    def to_workload(self) -> Workload:
        """Raises InvalidRequest."""
        if not self.input_tokens + self.output_tokens:
            raise pointing_at("/input_tokens", "give input_tokens, output_tokens or both: there is nothing to estimate")
        for name in self.gpus or ():
            if name not in GPUS:
                raise pointing_at("/gpus", f"{name!r} is not known; known are {', '.join(GPUS)}")
        return Workload(**msgspec.structs.asdict(self))


@post(
    "/cost/estimate",
    dto=StrictJSON[EstimateRequest],
    return_dto=None,
    status_code=200,
    operation_id="estimate_cost",
    summary="What would a month cost?",
    responses=problems(400, 403, 413, 415, 503),
)
async def estimate_cost(data: JSONBody[EstimateRequest], services: NamedDependency[Services]) -> Estimate:
    """Dollars over every API and on GPUs of one's own, the break-even points, and every assumption."""
    return await asyncio.to_thread(services.accounts.estimate, data.to_workload())
