"""What a body may be, and what is said about one that may not."""

from typing import Any

import httpx
import pytest

from app.api.bodies import decode, field_problem
from app.api.schemas import AnswerRequest, SearchRequest
from app.errors import FieldProblem, InvalidRequest

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


async def refusal(client: httpx.AsyncClient, body: dict[str, Any], path: str = "/search") -> dict[str, Any]:
    """The problem that comes back for a body."""
    response = await client.post(path, json=body)
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["instance"] == response.headers["x-request-id"]
    return problem


BAD_SEARCHES: list[tuple[dict[str, Any], str]] = [
    ({}, "/query"),
    ({"query": ""}, "/query"),
    ({"query": " \n"}, "/query"),
    ({"query": "a" * 8193}, "/query"),
    ({"query": 1}, "/query"),
    ({"query": None}, "/query"),
    ({"queries": []}, "/queries"),
    ({"queries": "x"}, "/queries"),
    ({"queries": ["x", " "]}, "/queries/1"),
    ({"query": "x", "queries": ["y"] * 6}, "/queries"),
    ({"query": "x", "limit": 0}, "/limit"),
    ({"query": "x", "limit": 101}, "/limit"),
    ({"query": "x", "limit": "10"}, "/limit"),
    ({"query": "x", "limit": True}, "/limit"),
    ({"query": "x", "limit": 1.5}, "/limit"),
    ({"query": "x", "candidates": 0}, "/candidates"),
    ({"query": "x", "candidates": 1001}, "/candidates"),
    ({"query": "x", "mode": "magic"}, "/mode"),
    ({"query": "x", "expand_query": "magic"}, "/expand_query"),
    ({"query": "x", "expand_query": True}, "/expand_query"),
    ({"query": "x", "collection": ""}, "/collection"),
    ({"query": "x", "backend": ""}, "/backend"),
    ({"query": "x", "min_score": -0.1}, "/min_score"),
    ({"query": "x", "min_score": 1.1}, "/min_score"),
    ({"query": "x", "group_by_document": 1}, "/group_by_document"),
    ({"query": "x", "include_text": "yes"}, "/include_text"),
    ({"query": "x", "ranking": {"depth": 0}}, "/ranking/depth"),
    ({"query": "x", "ranking": {"depth": 1001}}, "/ranking/depth"),
    ({"query": "x", "ranking": {"depth": "1"}}, "/ranking/depth"),
    ({"query": "x", "ranking": {"deadline_ms": 60_001}}, "/ranking/deadline_ms"),
    ({"query": "x", "ranking": {"strategy": "best"}}, "/ranking/strategy"),
    ({"query": "x", "ranking": {"on_failure": "panic"}}, "/ranking/on_failure"),
    ({"query": "x", "ranking": None}, "/ranking"),
    ({"query": "x", "filter": []}, "/filter"),
    ({"query": "x", "filter": {"year": {"gte": 1, "about": 2}}}, "/filter/year/about"),
    ({"query": "x", "filter": {"and": [{"a": 1}, {"b": {"near": 2}}]}}, "/filter/and/1/b/near"),
]


@pytest.mark.parametrize(("body", "pointer"), BAD_SEARCHES)
async def test_a_bad_field_is_pointed_at(client: httpx.AsyncClient, body: dict[str, Any], pointer: str) -> None:
    """Wrong types, values out of range and missing fields are 400 with the field's JSON pointer."""
    (error,) = (await refusal(client, body))["errors"]
    assert error["pointer"] == pointer
    assert error["detail"]


@pytest.mark.parametrize(
    ("extra", "pointer"),
    [
        ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "/messages/1/role"),
        ({"messages": [{"role": "user", "content": "a"}] * 51}, "/messages"),
        ({"messages": [{"role": "user"}]}, "/messages/0/content"),
        ({"max_output_tokens": 8193}, "/max_output_tokens"),
        ({"temperature": 2.1}, "/temperature"),
        ({"context_tokens": 255}, "/context_tokens"),
        ({"min_relevance": 2}, "/min_relevance"),
        ({"check_citations": "never"}, "/check_citations"),
        ({"instructions": "x" * 4001}, "/instructions"),
        ({"language": ""}, "/language"),
        ({"stream": "true"}, "/stream"),
        ({"limit": 0}, "/limit"),
    ],
)
async def test_a_bad_field_of_a_question_is_pointed_at(
    client: httpx.AsyncClient, extra: dict[str, Any], pointer: str
) -> None:
    """The ranges of /answer are kept as well."""
    (error,) = (await refusal(client, {"query": "x", **extra}, path="/answer"))["errors"]
    assert error["pointer"] == pointer


@pytest.mark.parametrize(
    ("body", "pointer", "says"),
    [
        ({"query": "x", "limt": 3}, "/limt", "did you mean limit?"),
        ({"query": "x", "zzz": 3}, "/zzz", "known are query, queries, collection"),
        ({"query": "x", "a/b~c": 3}, "/a~1b~0c", "unknown field"),
        ({"query": "x", "ranking": {"dept": 1}}, "/ranking/dept", "did you mean depth?"),
    ],
)
async def test_an_unknown_field_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str, says: str
) -> None:
    """A field that does not exist is refused by name, with the likely right one."""
    (error,) = (await refusal(client, body))["errors"]
    assert error["pointer"] == pointer
    assert says in error["detail"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body is empty"),
        (b"  \n", "the body is empty"),
        (b'{"query": "x",}', "byte 14"),
        (b'{"query": NaN}', "byte 10"),
        (b'{"query": "x", "min_score": Infinity}', "byte 28"),
        (b'{"query": "x"} {"query": "y"}', "byte 16"),
        (b'{"query": "\xff"}', "not UTF-8"),
        (b'{"query": "x", "filter": {"year": {"gte": 1e999}}}', "out of range"),
        (b"[]", "expected object"),
        (b'"x"', "expected object"),
        (b"null", "expected object"),
        (b'{"query": "x", "filter": ' + b'{"a":' * 100_000, "nested too deeply"),
        (b'{"query": "x", "filter": ' + b'{"not":' * 20 + b'{"a":1}' + b"}" * 21, "8"),
    ],
)
async def test_what_is_not_json_is_refused(client: httpx.AsyncClient, body: bytes, says: str) -> None:
    """Empty, malformed, unrepresentable and too deep bodies are 400 with what is wrong and where."""
    response = await client.post("/search", content=body, headers=JSON)
    assert response.status_code == 400
    assert says in response.json()["detail"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "json", ""]
)
async def test_only_json_is_read(client: httpx.AsyncClient, content_type: str) -> None:
    """Another content type, or none, is 415 with the header that is needed."""
    response = await client.post("/search", content=b'{"query": "x"}', headers={"Content-Type": content_type})
    assert response.status_code == 415
    assert "Content-Type: application/json" in response.json()["detail"]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", 'Application/JSON; charset="UTF-8"'])
async def test_a_charset_may_be_named(client: httpx.AsyncClient, content_type: str) -> None:
    """UTF-8 may be said."""
    response = await client.post("/search", content=b'{"query": "x"}', headers={"Content-Type": content_type})
    assert response.status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_body_is_refused(client: httpx.AsyncClient, chunked: bool) -> None:
    """More than the limit is 413, with and without an announced length."""
    body = b'{"query": "' + b"a" * 10_000_000 + b'"}'

    async def pieces() -> Any:
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    response = await client.post("/search", content=pieces() if chunked else body, headers=JSON)
    assert response.status_code == 413
    assert response.json()["type"] == "urn:winnow:problem:request-entity-too-large"


def test_candidates_are_raised_to_the_limit() -> None:
    """Fewer candidates than results would be no search."""
    assert decode(b'{"query": "x", "limit": 80, "candidates": 5}', SearchRequest).to_query().candidates == 80


def test_a_question_carries_everything_over() -> None:
    """No field of the body is lost on the way to the use case; `conditions` are for other products' bodies."""
    body = (
        b'{"query": "q", "queries": ["p"], "collection": "c", "limit": 3, "candidates": 7, "mode": "dense",'
        b'"expand_query": "multi", "filter": {"a": 1}, "backend": "b",'
        b'"ranking": {"strategy": "duel", "depth": 9, "deadline_ms": 5, "cascade": "none", "on_failure": "fail"},'
        b'"min_score": 0.1,'
        b'"group_by_document": true, "include_text": false, "messages": [{"role": "user", "content": "m"}],'
        b'"answer_backend": "extractive", "max_output_tokens": 2, "temperature": 1, "context_tokens": 300,'
        b'"min_relevance": 0.3, "check_citations": "model", "instructions": "i", "language": "de",'
        b'"fallback": "extractive"}'
    )
    question = decode(body, AnswerRequest).to_question()
    untouched = decode(b'{"query": "x"}', AnswerRequest).to_question()
    for kind, plain in ((question, untouched), (question.search, untouched.search)):
        for field in {*kind.__struct_fields__} - {"conditions"}:
            assert getattr(kind, field) != getattr(plain, field), field
    for field in question.search.ranking.__struct_fields__:
        assert getattr(question.search.ranking, field) != getattr(untouched.search.ranking, field), field


def test_a_message_without_a_place_is_about_the_whole_body() -> None:
    """msgspec names no path for the outermost object."""
    assert field_problem("Expected `object`, got `array`", SearchRequest) == FieldProblem(
        "", "expected object, got array"
    )


def test_decoding_names_the_place_in_its_text() -> None:
    """The text alone is enough for a person."""
    with pytest.raises(InvalidRequest, match="/ranking/depth: expected int >= 1"):
        decode(b'{"query": "x", "ranking": {"depth": 0}}', SearchRequest)


BOM = b"\xef\xbb\xbf"


async def test_a_byte_order_mark_is_passed_over(client: httpx.AsyncClient) -> None:
    """Editors on Windows put it before JSON."""
    for path, body in (("/search", b'{"query": "dental"}'), ("/documents", b'{"documents": [{"text": "x"}]}')):
        response = await client.post(path, content=BOM + body, headers=JSON)
        assert response.status_code == 200, response.text


LONE = (
    rb"\ud83d",
    rb"\ud83d and more text",
    rb"\ude00\ud83d",
    b"\xed\xa0\xbd and more",
    rb"a\\\ud83d",
    rb"\uD83D\\ude00",
)
TAKING_TEXT = (
    ("/search", b'{"query": "%s"}'),
    ("/answer", b'{"query": "%s", "limit": 2, "include_text": true}'),
    ("/chat", b'{"messages": [{"role": "user", "content": "%s"}]}'),
    ("/v1/rerank", b'{"query": "a", "documents": ["%s"]}'),
    ("/v1/embeddings", b'{"input": "%s", "model": "m"}'),
    ("/v1/chat/completions", b'{"model": "m", "messages": [{"role": "user", "content": "%s"}]}'),
)


@pytest.mark.parametrize(("path", "body"), TAKING_TEXT)
@pytest.mark.parametrize("text", LONE)
async def test_a_lone_surrogate_is_refused_by_name(
    client: httpx.AsyncClient, path: str, body: bytes, text: bytes
) -> None:
    """Alike everywhere, however it is spelled and wherever it stands."""
    response = await client.post(path, content=body % text, headers=JSON)
    assert response.status_code == 400
    assert "lone surrogate" in response.text


async def test_whole_pairs_are_characters(client: httpx.AsyncClient) -> None:
    """Also beside a backslash, and spelled in capitals."""
    body = rb'{"query": "dental \ud83e\uDDB7 \\\ud83e\uddb7 \\ud83e"}'
    assert (await client.post("/search", content=body, headers=JSON)).status_code == 200


async def test_what_is_long_is_not_repeated(client: httpx.AsyncClient) -> None:
    """A refusal has a few lines, whatever the body has: a name, a value, a path."""
    long = "x" * 9000
    for body in ({"query": "x", "mode": long}, {"query": "x", long: 1}, {"query": "x", "ranking": {long: {long: 1}}}):
        problem = await refusal(client, body)
        assert len(str(problem)) < 3000
        assert problem["detail"].count("x") > 100
