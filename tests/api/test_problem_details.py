"""Errors on the wire."""

from collections.abc import Iterator

import httpx
import pytest

import app.errors
import indexing.errors
from app.api.problem_details import STATUS, headers_of, problem_of
from app.errors import FieldProblem, InvalidRequest, NotAuthenticated, Overloaded, RateLimited, WinnowError
from indexing.errors import CollectionNotFound

pytestmark = pytest.mark.anyio


def tree(root: type[Exception]) -> Iterator[type[Exception]]:
    """The class and everything below it, in the packages themselves."""
    yield root
    for kind in root.__subclasses__():
        if kind.__module__ in ("app.errors", "indexing.errors"):
            yield from tree(kind)


@pytest.mark.parametrize("kind", [*tree(WinnowError)])
def test_every_error_has_its_status(kind: type[Exception]) -> None:
    """A new error class without a status of its own fails here."""
    assert kind in STATUS


def test_the_tree_is_drawn() -> None:
    """The docstrings of both modules name every class, so that a reader sees the whole tree."""
    drawn = f"{app.errors.__doc__}{indexing.errors.__doc__}"
    assert [kind.__name__ for kind in tree(WinnowError) if kind.__name__ not in drawn] == []


def test_a_class_that_nobody_listed_is_mapped_like_its_base() -> None:
    """A subclass made elsewhere keeps the meaning of its family."""

    class Odd(CollectionNotFound):
        pass

    problem = problem_of(Odd("docs"), "id", None)
    assert (problem.status, problem.type) == (404, "urn:winnow:problem:collection-not-found")


def test_a_programmers_error_is_500_without_its_text() -> None:
    """An exception from outside the trees says nothing but its id."""
    problem = problem_of(KeyError("password"), "id-7", None)
    assert (problem.status, problem.type) == (500, "urn:winnow:problem:internal-error")
    assert "password" not in problem.detail
    assert "id-7" in problem.detail


def test_bad_fields_are_listed() -> None:
    """The pointers of InvalidRequest become `errors`."""
    bad = FieldProblem("/limit", "too high")
    assert problem_of(InvalidRequest("no", (bad,)), "id", None).errors == (bad,)


@pytest.mark.parametrize(
    ("exc", "headers"),
    [
        (RateLimited("slow", retry_after=0.2), {"Retry-After": "1"}),
        (Overloaded("full", retry_after=1.2), {"Retry-After": "2"}),
        (Overloaded("full"), {"Retry-After": "1"}),
        (NotAuthenticated("who?"), {"WWW-Authenticate": "Bearer"}),
        (InvalidRequest("no"), {}),
    ],
)
def test_headers_say_when_and_how_to_come_again(exc: Exception, headers: dict[str, str]) -> None:
    """Retry-After in whole seconds, at least one; a challenge where a key is missing."""
    assert headers_of(exc) == headers


async def test_an_unknown_path_is_a_problem(client: httpx.AsyncClient) -> None:
    """404 comes in the same shape as every other error."""
    response = await client.get("/nowhere")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert set(response.json()) == {"type", "title", "status", "detail", "instance", "errors"}


async def test_a_wrong_method_names_the_right_ones(client: httpx.AsyncClient) -> None:
    """405 carries Allow."""
    response = await client.get("/search")
    assert response.status_code == 405
    assert "POST" in response.headers["allow"]
    assert response.json()["type"] == "urn:winnow:problem:method-not-allowed"
