"""GET /jobs/{id}."""

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.api.openapi import problems
from app.services.jobs import Job
from app.wiring import Services


@get("/jobs/{job_id:str}", operation_id="job", summary="A large upload", responses=problems(403, 404), raises=[])
async def show_job(job_id: FromPath[str], services: NamedDependency[Services]) -> Job:
    """How far it has come. The last 1000 jobs are remembered, and none of them survives a restart of the service."""
    return services.jobs.find(job_id)
