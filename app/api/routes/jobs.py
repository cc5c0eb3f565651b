"""GET /jobs, GET and DELETE /jobs/{id}."""

from typing import Annotated

from litestar import delete, get
from litestar.params import FromPath, FromQuery, QueryParameter

from app.api.openapi import problems
from app.api.request import BodyRequest, Injected, caller_of
from app.services.job_records import JobState
from app.services.jobs import Job, JobList, Jobs


@get(
    "/jobs",
    operation_id="jobs",
    summary="Large uploads",
    responses=problems(400, 401, 403, 429, 503),
    opt={"scope": "write"},
)
async def list_jobs(
    request: BodyRequest,
    jobs: Injected[Jobs],
    in_state: Annotated[JobState | None, QueryParameter(name="state")] = None,
    collection: FromQuery[str | None] = None,
    cursor: FromQuery[str] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> JobList:
    """The newest first, page by page: `cursor` is the `next_cursor` of the page before."""
    audience = caller_of(request).audience
    return await jobs.page(audience, cursor=cursor, limit=limit, state=in_state, collection=collection)


@get(
    "/jobs/{job_id:str}",
    operation_id="job",
    summary="The state of a large upload",
    responses=problems(401, 403, 404, 429, 503),
    raises=[],
    opt={"scope": "write"},
)
async def show_job(request: BodyRequest, job_id: FromPath[str], jobs: Injected[Jobs]) -> Job:
    """Its progress. Jobs survive a restart of the service; of the finished ones the last 1000 are remembered."""
    return await jobs.find(job_id, caller_of(request).audience)


@delete(
    "/jobs/{job_id:str}",
    status_code=204,
    operation_id="cancel_job",
    summary="Cancel a large upload",
    responses=problems(401, 403, 404, 429, 503, 507),
    raises=[],
    opt={"scope": "write"},
)
async def cancel_job(request: BodyRequest, job_id: FromPath[str], jobs: Injected[Jobs]) -> None:
    """What it has written stays. A job that is finished is forgotten."""
    await jobs.cancel(job_id, caller_of(request).audience)
