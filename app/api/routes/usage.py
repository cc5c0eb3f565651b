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
from app.accounting.estimator.models import (
    GPUS,
    LONGEST_RENTAL_H,
    MONTH_H,
    SHORTEST_RENTAL_H,
    Estimate,
    Workload,
)
from app.accounting.reports import DEFAULT_SINCE, ExportedCall, GroupBy
from app.api.openapi import problems
from app.api.request import BodyRequest, Injected, StrictJSON, caller_of
from app.errors import pointing_at

LINES = "application/x-ndjson"

Since = Annotated[str, QueryParameter(description="A date, a time (RFC 3339), or how long ago: 90m, 24h, 7d, 4w.")]
Until = Annotated[str | None, QueryParameter(description="As `since`; default: now.")]


@get(
    "/usage",
    operation_id="usage",
    summary="Usage and cost",
    responses=problems(400, 401, 403, 429, 503),
    raises=[],
    opt={"scope": "any"},
)
async def show_usage(
    request: BodyRequest,
    accounts: Injected[Accounts],
    since: Since = DEFAULT_SINCE,
    until: Until = None,
    group_by: FromQuery[GroupBy] = "backend",
) -> UsageReport:
    """Calls, tokens, cost and latencies of the model calls by group, and the state of the budgets.

    A key without the scope `admin` sees its own calls and budgets.
    """
    return await asyncio.to_thread(accounts.usage, since, until, group_by, own_key(request))


@get(
    "/usage/export",
    operation_id="export_usage",
    summary="Export every model call",
    responses={
        200: ResponseSpec(
            ExportedCall, description="One JSON object per line", media_type=LINES, generate_examples=False
        ),
        **problems(400, 401, 403, 429, 503),
    },
    raises=[],
    opt={"scope": "any"},
)
async def export_usage(
    request: BodyRequest, accounts: Injected[Accounts], since: Since = DEFAULT_SINCE, until: Until = None
) -> Stream:
    """The rows of the ledger in order of time, one JSON object per line, streamed."""
    pages = accounts.export(since, until, own_key(request))
    first = await _next(pages)  # while a failure can still have a status
    return Stream(_stream(first, pages), media_type=LINES)


def own_key(request: BodyRequest) -> str | None:
    """The key whose usage the caller may see; None: that of all."""
    caller = caller_of(request)
    return None if "admin" in caller.scopes else caller.key


async def _stream(first: bytes | None, pages: Iterator[bytes]) -> AsyncIterator[bytes]:
    page = first
    while page is not None:
        yield page
        page = await _next(pages)


async def _next(pages: Iterator[bytes]) -> bytes | None:
    return await asyncio.to_thread(next, pages, None)


Tokens = Annotated[int, Meta(ge=0, le=10**15, description="In a month.")]
Hours = Annotated[float, Meta(ge=SHORTEST_RENTAL_H, le=LONGEST_RENTAL_H)]
DollarsPerHour = Annotated[float, Meta(ge=0, le=1000)]


class EstimateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tokens of a month, and the assumptions about GPUs."""

    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cached_share: Annotated[
        float, Meta(ge=0, le=1, description="Fraction of the input tokens served from the prompt cache.")
    ] = 0.0
    hours: Annotated[
        Hours | Literal["needed"],
        Meta(description='Hours rented per month, used or not; "needed": only while there is work.'),
    ] = MONTH_H
    concurrency: Annotated[int, Meta(ge=1, le=1024, description="Concurrent requests per GPU.")] = 8
    prompt_factor: Annotated[
        float, Meta(ge=1, le=10_000, description="Prefill speed relative to the decode speed of one stream.")
    ] = 50.0
    gpus: (
        Annotated[
            dict[str, DollarsPerHour],
            Meta(description='Dollars per hour: {"RTX 4090": 0.4}. Only these are compared; default: all.'),
        ]
        | None
    ) = None

    def to_workload(self) -> Workload:
        """Raises InvalidRequest."""
        if not self.input_tokens + self.output_tokens:
            raise pointing_at("/input_tokens", "give input_tokens, output_tokens or both")
        for name in self.gpus or ():
            if name not in GPUS:
                raise pointing_at("/gpus", f"unknown GPU {name!r}; known are {', '.join(GPUS)}")
        return Workload(**msgspec.structs.asdict(self))


@post(
    "/cost/estimate",
    dto=StrictJSON[EstimateRequest],
    return_dto=None,
    status_code=200,
    operation_id="estimate_cost",
    summary="Estimate the cost of a month",
    responses=problems(400, 401, 403, 413, 415, 429, 503),
    opt={"scope": "any"},
)
async def estimate_cost(data: JSONBody[EstimateRequest], accounts: Injected[Accounts]) -> Estimate:
    """Dollars for every API and for rented GPUs, the break-even points, and every assumption."""
    return await asyncio.to_thread(accounts.estimate, data.to_workload())
