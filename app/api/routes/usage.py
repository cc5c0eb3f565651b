"""GET /usage and GET /usage/export."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromQuery, QueryParameter
from litestar.response import Stream

from app.accounting.accounts import UsageReport
from app.accounting.moments import DEFAULT_SINCE
from app.accounting.reports import ExportedCall, GroupBy
from app.api.openapi import problems
from app.wiring import Services

LINES = "application/x-ndjson"

Since = Annotated[str, QueryParameter(description="A date, a time (RFC 3339), or how long ago: 90m, 24h, 7d, 4w.")]
Until = Annotated[str | None, QueryParameter(description="As `since`; default: now.")]


@get("/usage", operation_id="usage", summary="Calls, tokens, dollars", responses=problems(400, 403, 503), raises=[])
async def show_usage(
    services: NamedDependency[Services],
    since: Since = DEFAULT_SINCE,
    until: Until = None,
    group_by: FromQuery[GroupBy] = "backend",
) -> UsageReport:
    """What the model calls used, by group, with their latencies; and how the budgets stand."""
    return await asyncio.to_thread(services.accounts.usage, since, until, group_by)


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
async def export_usage(
    services: NamedDependency[Services], since: Since = DEFAULT_SINCE, until: Until = None
) -> Stream:
    """The ledger's rows in the order of time, a JSON object a line, as a stream of any length."""
    pages = services.accounts.export(since, until)
    first = await _next(pages)  # while a failure can still have a status
    return Stream(_stream(first, pages), media_type=LINES)


async def _stream(first: bytes | None, pages: Iterator[bytes]) -> AsyncIterator[bytes]:
    page = first
    while page is not None:
        yield page
        page = await _next(pages)


async def _next(pages: Iterator[bytes]) -> bytes | None:
    return await asyncio.to_thread(next, pages, None)
