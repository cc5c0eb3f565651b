"""/usage and /cost/estimate."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Literal

import msgspec
from litestar import get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromQuery, JSONBody, QueryParameter
from litestar.response import Stream
from msgspec import Meta

from app.accounting.accounts import Accounts, UsageReport
from app.accounting.estimator.models import GPUS, MONTH_H, Estimate, Workload
from app.accounting.reports import DEFAULT_SINCE, ExportedCall, GroupBy
from app.api.openapi import problems
from app.api.request import Injected, StrictJSON
from app.errors import pointing_at

LINES = "application/x-ndjson"

Since = Annotated[str, QueryParameter(description="A date, a time (RFC 3339), or how long ago: 90m, 24h, 7d, 4w.")]
Until = Annotated[str | None, QueryParameter(description="As `since`; default: now.")]


@get("/usage", operation_id="usage", summary="Calls, tokens, dollars", responses=problems(400, 403, 503), raises=[])
async def show_usage(
    accounts: Injected[Accounts],
    since: Since = DEFAULT_SINCE,
    until: Until = None,
    group_by: FromQuery[GroupBy] = "backend",
) -> UsageReport:
    """What the model calls used, by group, with their latencies; and how the budgets stand."""
    return await asyncio.to_thread(accounts.usage, since, until, group_by)


@get(
    "/usage/export",
    operation_id="export_usage",
    summary="Every model call",
    responses={
        200: ResponseSpec(
            ExportedCall, description="One JSON object a line", media_type=LINES, generate_examples=False
        ),
        **problems(400, 403, 503),
    },
    raises=[],
)
async def export_usage(accounts: Injected[Accounts], since: Since = DEFAULT_SINCE, until: Until = None) -> Stream:
    """The ledger's rows in the order of time, a JSON object a line, as a stream of any length."""
    pages = accounts.export(since, until)
    first = await _next(pages)  # while a failure can still have a status
    return Stream(_stream(first, pages), media_type=LINES)


async def _stream(first: bytes | None, pages: Iterator[bytes]) -> AsyncIterator[bytes]:
    page = first
    while page is not None:
        yield page
        page = await _next(pages)


async def _next(pages: Iterator[bytes]) -> bytes | None:
    return await asyncio.to_thread(next, pages, None)


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
async def estimate_cost(data: JSONBody[EstimateRequest], accounts: Injected[Accounts]) -> Estimate:
    """Dollars over every API and on GPUs of one's own, the break-even points, and every assumption."""
    return await asyncio.to_thread(accounts.estimate, data.to_workload())
