"""What counts as a failure where odd bodies are thrown at the service."""

import httpx
import msgspec
import pytest

from app.api.compat.errors import ragflow_error
from app.api.compat.ragflow.chat import RagflowChunks
from app.api.problem_details import problem_of
from app.api.sse import NativeEvents
from app.domain import Query, Question
from app.errors import InvalidRequest, Overloaded
from benchmarks.fuzz import went_wrong

UNEXPECTED, MISTAKE = ZeroDivisionError("division by zero"), InvalidRequest("`top_k` must be greater than 0")


def ragflow_reply(exc: Exception) -> httpx.Response:
    status, body = ragflow_error(problem_of(exc, "7", None), exc)
    return httpx.Response(status, content=msgspec.json.encode(body))


@pytest.mark.parametrize(("status", "failed"), [(200, False), (400, False), (500, True), (502, True), (503, False)])
def test_a_5xx_other_than_503_is_a_failure(status: int, failed: bool) -> None:
    """Whatever the body holds."""
    assert went_wrong(httpx.Response(status, text="{")) is failed


def test_a_failure_in_ragflows_format_counts_though_its_status_is_200() -> None:
    """By the `code` of its body; a mistake of the caller and a service that has no time are none."""
    assert went_wrong(ragflow_reply(UNEXPECTED))
    assert not went_wrong(ragflow_reply(MISTAKE))
    assert not went_wrong(ragflow_reply(Overloaded("too many", 1.0)))


def test_a_stream_that_ends_in_an_unexpected_error_counts() -> None:
    """In each format; one that ends in a mistake of the caller does not."""
    layouts = (NativeEvents(), RagflowChunks({}, Question(search=Query(text="x")), refers=False))
    for layout in layouts:
        for exc, failed in ((UNEXPECTED, True), (MISTAKE, False)):
            end = layout.fail(problem_of(exc, "7", None), exc)
            assert went_wrong(httpx.Response(200, content=end)) is failed
