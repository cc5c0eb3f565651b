"""OpenAI's vector stores: the wire, beside what its SDK shows in tests/e2e/test_clients.py."""

from typing import Any

import httpx
import pytest

from app.api.compat.openai.vector_stores import attributes_of, filter_of
from app.errors import InvalidRequest
from indexing.filters import parse_filter

pytestmark = pytest.mark.anyio


def compare(kind: str, key: str, value: Any) -> dict[str, Any]:
    return {"type": kind, "key": key, "value": value}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (compare("eq", "kind", "pet"), {"kind": "pet"}),
        (compare("ne", "kind", "pet"), {"kind": {"ne": "pet"}}),
        (compare("gte", "year", 2020), {"year": {"gte": 2020}}),
        (compare("lt", "made", "2024-01-01"), {"made": {"lt": "2024-01-01"}}),
        (compare("in", "kind", ["a", "b"]), {"kind": ["a", "b"]}),
        (compare("nin", "kind", ["a", 1.0]), {"kind": {"nin": ["a", 1.0]}}),
        (
            {
                "type": "and",
                "filters": [
                    compare("eq", "a", True),
                    {"type": "or", "filters": [compare("gt", "b", 1), compare("eq", "c", "d")]},
                ],
            },
            {"and": [{"a": True}, {"or": [{"b": {"gt": 1}}, {"c": "d"}]}]},
        ),
        ({}, {}),
        (None, {}),
    ],
)
def test_filters(theirs: Any, ours: dict[str, Any]) -> None:
    """Each has its equal in our grammar."""
    assert filter_of(theirs) == parse_filter(ours)


def nested(depth: int) -> dict[str, Any]:
    one = compare("eq", "a", 1)
    for _ in range(depth):
        one = {"type": "and", "filters": [one, compare("eq", "b", 1)]}
    return one


@pytest.mark.parametrize(
    ("theirs", "pointer", "says"),
    [
        ([], None, ""),
        ("kind = pet", "/filters", "JSON object"),
        ({"key": "a", "value": 1}, "/filters/type", "eq, in, ne"),
        (compare("like", "a", 1), "/filters/type", "eq, in, ne"),
        ({"type": "eq", "value": 1}, "/filters/key", "attribute"),
        ({"type": "eq", "key": "a"}, "/filters/value", "required"),
        (compare("eq", "", 1), "/filters", "field name"),
        (compare("eq", "and", 1), "/filters", "takes a list"),
        (compare("gt", "a", True), "/filters", "numbers or all dates"),
        ({"type": "or", "filters": []}, "/filters/filters", "at least one"),
        (
            {
                "type": "or",
                "filters": [compare("eq", "a", 1), {"type": "and", "filters": [compare("eq", "b", {})] * 2}],
            },
            "/filters/filters/1/filters/0",
            "at least one of the operators",
        ),
        (nested(9), None, "nested"),
        (nested(900), None, "nested"),
    ],
)
def test_bad_filters_are_pointed_at(theirs: Any, pointer: str | None, says: str) -> None:
    """In the words of the request."""
    if theirs == []:
        assert filter_of(theirs) is None
        return
    with pytest.raises(InvalidRequest, match=says) as caught:
        filter_of(theirs)
    if pointer:
        assert caught.value.problems[0].pointer == pointer


def test_attributes_are_what_filters_take() -> None:
    """Nested objects by their paths, a dot in a key with a backslash, lists as JSON."""
    metadata = {"a": {"b": 1, "c": None}, "v1.2": True, "tags": ["x", 1], "name": "n"}
    assert attributes_of(metadata) == {"a.b": 1, r"v1\.2": True, "tags": '["x",1]', "name": "n"}


async def search(client: httpx.AsyncClient, store: str, **fields: Any) -> dict[str, Any]:
    response = await client.post(f"/v1/vector_stores/{store}/search", json=fields)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


async def test_a_search_is_that_of_search(client: httpx.AsyncClient, manuals: str) -> None:
    """The same passages and scores; what else there is to say is under `winnow`."""
    reply = await search(client, manuals, query="cold water", max_num_results=2)
    ours = (await client.post("/search", json={"query": "cold water", "collection": manuals, "limit": 2})).json()
    assert [(one["file_id"], one["score"]) for one in reply["data"]] == [
        (hit["document_id"], hit["score"]) for hit in ours["results"]
    ]
    first = reply["data"][0]
    assert first["content"] == [{"type": "text", "text": "The pump delivers cold water."}]
    assert first["attributes"] == {"author": "Bob", "year": 2024, "made": "2024-03-01", "tags": '["blue"]'}
    assert first["winnow"]["id"] == ours["results"][0]["id"]
    assert (reply["object"], reply["search_query"], reply["has_more"], reply["next_page"]) == (
        "vector_store.search_results.page",
        ["cold water"],
        False,
        None,
    )
    assert reply["winnow"]["backend"] == ours["backend"]
    assert {"embed", "total"} <= set(reply["winnow"]["timings_ms"])


async def test_filters_thresholds_and_several_queries(client: httpx.AsyncClient, manuals: str) -> None:
    """As OpenAI's: conditions on attributes, the lowest score, texts that are searched together."""
    newer = await search(client, manuals, query="water", filters=compare("gte", "year", 2020))
    assert [one["file_id"] for one in newer["data"]] == ["pump"]
    assert (await search(client, manuals, query="water", ranking_options={"score_threshold": 1}))["data"] == []
    both = await search(client, manuals, query=["cold water", "hose"])
    assert both["search_query"] == ["cold water", "hose"]
    assert {"pump", "hose"} <= {one["file_id"] for one in both["data"]}


@pytest.mark.parametrize("ranker", ["none", "auto", "default-2024-11-15", "somebody"])
async def test_rankers(client: httpx.AsyncClient, manuals: str, ranker: str) -> None:
    """OpenAI's names mean the default; an unknown one does too, with a warning."""
    reply = await search(client, manuals, query="water", ranking_options={"ranker": ranker})
    assert reply["winnow"]["backend"]["used"] == "none"
    assert ("not found" in str(reply["winnow"]["warnings"])) == (ranker == "somebody")


@pytest.mark.parametrize(
    ("name", "sent", "status", "param", "says"),
    [
        ("nope", {"query": "a"}, 404, None, "collection 'nope' not found"),
        ("manuals@nobody", {"query": "a"}, 400, None, "unknown backend 'nobody'"),
        ("manuals", {}, 400, "query", "required"),
        ("manuals", {"query": " "}, 400, "query", "none blank"),
        ("manuals", {"query": []}, 400, "query", "1 to 5"),
        ("manuals", {"query": "a", "filters": {"type": "x"}}, 400, "filters.type", "known types"),
        ("manuals", {"query": "a", "rewrite_query": True}, 400, None, "model"),
    ],
)
async def test_errors_are_openais(
    client: httpx.AsyncClient, manuals: str, name: str, sent: Any, status: int, param: str | None, says: str
) -> None:
    """With the field."""
    reply = await client.post(f"/v1/vector_stores/{name}/search", json=sent)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert says in error["message"]


async def test_lists_that_are_not_as_asked_are_refused(client: httpx.AsyncClient, manuals: str) -> None:
    """Backward paging and other orders, which would pass for what was asked for; other states are empty."""
    for path in ("/v1/vector_stores", f"/v1/vector_stores/{manuals}/files"):
        for query in ("before=x", "order=desc", "order=up", "limit=0"):
            assert (await client.get(f"{path}?{query}")).status_code == 400
    failed = (await client.get(f"/v1/vector_stores/{manuals}/files?filter=failed")).json()
    assert (failed["data"], failed["has_more"]) == ([], False)


async def test_the_operator_pages_through_documents_of_all_tenants(client: httpx.AsyncClient) -> None:
    """Whose ids are the same: each is listed once, can be read by its id, and is found under it."""
    for tenant in (None, "a", "b"):
        document = {"id": "docs/one.md", "text": f"Ferns of {tenant} grow.", **({"tenant": tenant} if tenant else {})}
        sent = await client.post("/documents", json={"collection": "shared", "documents": [document]})
        assert sent.status_code == 200, sent.text
    seen: list[str] = []
    more: dict[str, Any] = {"has_more": True, "last_id": ""}
    while more["has_more"]:
        query = {"limit": "1", "after": more["last_id"]}
        more = (await client.get("/v1/vector_stores/shared/files", params=query)).json()
        seen += [one["id"] for one in more["data"]]
    assert seen == ["a\x1fdocs/one.md", "b\x1fdocs/one.md", "docs/one.md"]
    found = await search(client, "shared", query="ferns grow")
    assert {one["file_id"] for one in found["data"]} == set(seen)
    for file_id, owner in zip(seen, ("a", "b", None), strict=True):
        path = f"/v1/vector_stores/shared/files/{file_id.replace('/', '%2F').replace(chr(31), '%1F')}"
        assert (await client.get(path)).json()["id"] == file_id
        assert (await client.get(f"{path}/content")).json()["data"][0]["text"] == f"Ferns of {owner} grow."
