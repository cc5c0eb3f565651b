"""POST /retrieval, as Dify asks and checks it."""

import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.api.compat.dify import DEADLINE_MS, dify_error
from app.api.compat.metadata_conditions import MetadataCondition, conditions_of
from app.api.problem_details import STATUS, Problem
from app.domain import ANONYMOUS, BackendUse, Caller, Query, SearchResult
from app.services.search import MAX_LOOKED_THROUGH, NOT_ALL_LOOKED_THROUGH
from app.wiring import Services
from tests.api.test_search_ranked import scorer, searching
from tests.fakes.corpus import fill, passage
from tests.fakes.models import openai_style, services_for

pytestmark = pytest.mark.anyio

HEADERS = {"Authorization": "Bearer any key", "Content-Type": "application/json"}


async def ask(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    """The bytes that Dify sends: json.dumps as data."""
    sent = {
        "knowledge_id": "default",
        "query": "dental cover",
        "retrieval_setting": {"top_k": 4, "score_threshold": 0.0},
    }
    return await client.post("/retrieval", content=json.dumps({**sent, **body}), headers=HEADERS)


async def found(client: httpx.AsyncClient, **body: Any) -> list[str]:
    response = await ask(client, **body)
    assert response.status_code == 200, response.text
    return [record["metadata"]["document_id"] for record in response.json()["records"]]


async def test_records_have_what_dify_reads(client: httpx.AsyncClient) -> None:
    """Content, a score in [0,1], a title, and an object of metadata with the document's id and place."""
    records = (await ask(client)).json()["records"]
    assert len(records) == 4
    best = records[0]
    assert set(best) == {"content", "score", "title", "metadata"}
    assert (best["content"], best["title"]) == ("Dental cover starts on the first day of work.", "Dental")
    assert best["metadata"] == {
        "lang": "en",
        "year": 2024,
        "document_id": "dental",
        "source": "dental.txt",
        "start": 0,
        "end": 45,
        "chunk_id": best["metadata"]["chunk_id"],
        "ranked_by": "none",
    }
    scores = [record["score"] for record in records]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize(
    "body",
    [
        {"retrieval_setting": {"top_k": None, "score_threshold": None}},
        {"retrieval_setting": None},
        {"retrieval_setting": {"top_k": "2", "score_threshold": "0.0"}},
        {"retrieval_setting": {"top_k": 0, "score_threshold": -3}},
        {"metadata_condition": None},
        {"metadata_condition": {"logical_operator": "and", "conditions": []}},
        {"metadata_condition": {"conditions": None}},
        {"user": "u", "inputs": {}, "extra": None},
    ],
)
async def test_what_dify_may_send_is_understood(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """Nulls, numbers in quotes, numbers out of range and unknown fields are no reason to refuse."""
    assert (await found(client, **body))[0] == "dental"


async def test_top_k_and_threshold_cut(client: httpx.AsyncClient) -> None:
    """`top_k` bounds the number of records, `score_threshold` their score."""
    assert len(await found(client, retrieval_setting={"top_k": 1, "score_threshold": 0})) == 1
    response = await ask(client, retrieval_setting={"top_k": 4, "score_threshold": 0.5})
    scores = [record["score"] for record in response.json()["records"]]
    assert len(scores) < len(await found(client, retrieval_setting={"top_k": 4, "score_threshold": 0}))
    assert scores
    assert min(scores) >= 0.5


CONDITIONS = [
    ("author", "is", "bob", {"pump"}),
    ("author", "=", "BOB", {"pump"}),
    ("author", "is not", "bob", {"valve", "hose"}),
    ("author", "≠", "bob", {"valve", "hose"}),
    ("author", "contains", "bob", {"pump", "valve"}),
    ("author", "not contains", "bob", {"hose"}),
    ("author", "start with", "ann", {"valve"}),
    ("author", "end with", "arl", {"hose"}),
    ("author", "in", ["bob", "carl"], {"pump", "hose"}),
    ("author", "in", "bob, carl", {"pump", "hose"}),
    ("author", "not in", ["bob", "carl"], {"valve"}),
    ("author", "empty", None, {"tap"}),
    ("author", "not empty", None, {"pump", "valve", "hose"}),
    ("tags", "empty", None, {"valve", "hose", "tap"}),
    ("tags", "contains", "lu", {"pump"}),
    ("year", "=", "2022", {"valve"}),
    ("year", "=", 2022, {"valve"}),
    ("year", ">", 2019, {"pump", "valve"}),
    ("year", "<", "2022", {"hose"}),
    ("year", "≥", 2022, {"pump", "valve"}),
    ("year", "≤", 2022, {"valve", "hose"}),
    ("made", "before", "2022-07-15", {"hose"}),
    ("made", "after", "2019-01-31", {"pump", "valve", "hose"}),
    ("made", "≥", "2022-07-15", {"pump", "valve"}),
    ("made", "before", 1657843200, {"hose"}),
    ("made", "after", "1657843200", {"pump"}),
    ("made", "is", 1657843200.0, {"valve"}),
    ("author", "in", [], set()),
    ("author", "not in", [None], {"pump", "valve", "hose"}),
    ("author", "is", None, {"pump", "valve", "hose", "tap"}),
    ("title", "is", "tap", {"tap"}),
    (["author", "title"], "contains", "ta", {"tap"}),
    ("nobody has it", "is", "x", set()),
]


def case_id(value: object) -> str:
    """The same in every process: a set is written in any order."""
    return str(sorted(value)) if isinstance(value, set) else str(value)


@pytest.mark.parametrize(("name", "operator", "value", "expected"), CONDITIONS, ids=case_id)
async def test_each_operator_selects(
    client: httpx.AsyncClient, manuals: str, name: Any, operator: str, value: Any, expected: set[str]
) -> None:
    """Every operator that Dify offers means over a real store what its users read in it."""
    condition = {"name": name, "comparison_operator": operator}
    asked = {"logical_operator": "and", "conditions": [condition if value is None else {**condition, "value": value}]}
    assert set(await found(client, knowledge_id=manuals, query="water", metadata_condition=asked)) == expected


async def test_conditions_are_joined(client: httpx.AsyncClient, manuals: str) -> None:
    """By `logical_operator`; RAGFlow's `logic` is understood too."""
    conditions = [
        {"name": "author", "comparison_operator": "is", "value": "bob"},
        {"name": "year", "comparison_operator": "<", "value": 2020},
    ]
    for word, expected in (("and", set()), ("or", {"pump", "hose"})):
        for key in ("logical_operator", "logic"):
            asked = {key: word, "conditions": conditions}
            names = await found(client, knowledge_id=manuals, query="water", metadata_condition=asked)
            assert set(names) == expected


async def test_a_rare_match_is_found_far_down(client: httpx.AsyncClient, services: Services) -> None:
    """What no store can filter by is looked for among the best thousand of each side, not among the first few."""
    crowd = [passage(f"d{n}", "water water", {"code": f"x-{n}-y"}) for n in range(300)]
    await fill(
        await services.store.get(), [*crowd, passage("rare", "some water", {"code": "a needle here"})], name="crowd"
    )
    asked = {"conditions": [{"name": "code", "comparison_operator": "contains", "value": "NEEDLE"}]}
    assert await found(client, knowledge_id="crowd", query="water", metadata_condition=asked) == ["rare"]


async def test_equal_texts_are_found_in_any_depth(client: httpx.AsyncClient, services: Services) -> None:
    """Where words must be equal the store is asked for them, so that no depth hides a match."""
    crowd = [passage(f"d{n}", f"water {n}", {"code": f"x{n}"}) for n in range(MAX_LOOKED_THROUGH + 1)]
    rare = passage("rare", "nothing in common", {"code": "Needle"})
    await fill(await services.store.get(), [*crowd, rare], name="deep")
    equals = {"conditions": [{"name": "code", "comparison_operator": "is", "value": "needle"}]}
    assert await found(client, knowledge_id="deep", query="water", metadata_condition=equals) == ["rare"]
    inside = {"conditions": [{"name": "code", "comparison_operator": "contains", "value": "needl"}]}
    assert await found(client, knowledge_id="deep", query="water", metadata_condition=inside) == []
    query = Query(text="water", collection="deep", conditions=conditions_of(msgspec.convert(inside, MetadataCondition)))
    assert (await services.searcher.search(query, ANONYMOUS)).warnings == (NOT_ALL_LOOKED_THROUGH,)


PROBE = b'{"knowledge_id": "", "query": "", "retrieval_setting": {"top_k": 1, "score_threshold": 0.0}}'
"""What Dify from 1.15 on asks while it saves an address."""


@pytest.mark.parametrize(
    ("sent", "headers"),
    [
        (b"", {"Authorization": "Bearer k"}),
        (PROBE, HEADERS),
        (b"", HEADERS),
        (b"{}", HEADERS),
        (b"null", HEADERS),
        (b"[", HEADERS),
    ],
)
async def test_the_check_on_saving_passes(client: httpx.AsyncClient, sent: bytes, headers: dict[str, str]) -> None:
    """Dify posts nothing, or no question, and takes 403, 404 and 502 for a wrong address: it gets 400, in its shape."""
    response = await client.post("/retrieval", content=sent, headers=headers)
    assert response.status_code == 400
    assert set(response.json()) == {"error_code", "error_msg"}


ONE = "/metadata_condition/conditions/0"


def one_condition(logic: str = "and", **condition: Any) -> dict[str, Any]:
    return {"metadata_condition": {"logical_operator": logic, "conditions": [{"name": "author", **condition}]}}


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"knowledge_id": "nope"}, 400, 2001, "collection 'nope' not found"),
        ({"knowledge_id": "default@nobody"}, 422, 2001, "unknown backend 'nobody'; known are"),
        ({"query": "  "}, 400, 400, "/query: "),
        ({"retrieval_setting": {"top_k": "many"}}, 400, 400, "/retrieval_setting/top_k: "),
        (one_condition(comparison_operator="like", value=1), 400, 400, f"{ONE}/comparison_operator: unknown operator"),
        (one_condition(comparison_operator="is", value=[]), 400, 400, f"{ONE}/value: '=' takes a text"),
        (one_condition(comparison_operator="exists"), 400, 400, f"{ONE}/comparison_operator: unknown operator"),
        (one_condition("xor", comparison_operator="empty"), 400, 400, "/metadata_condition/logical_operator: "),
    ],
)
async def test_refusals_are_in_its_shape(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, code: int, says: str
) -> None:
    """An error code, and a sentence that says what and where."""
    response = await ask(client, **body)
    assert (response.status_code, response.json()["error_code"]) == (status, code)
    assert response.headers["content-type"] == "application/json"
    assert says in response.json()["error_msg"]


@pytest.mark.parametrize("ours", sorted(set(STATUS.values())))
def test_no_error_is_taken_for_a_wrong_address(ours: int) -> None:
    """Of all statuses that our errors have none becomes 403, 404 or 502, and each stays an error."""
    told, _ = dify_error(Problem(type="", title="", status=ours, detail="", instance=""), Exception())
    assert told >= 400
    assert told not in (403, 404, 502)


async def test_a_model_ranks_where_it_is_named(tmp_path: Path) -> None:
    """`collection@backend` says who ranks; the score is then the model's."""
    async with scorer() as server, searching(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
        body = {"query": "dental cover office", "knowledge_id": "default@gemma"}
        records = (await ask(client, **body)).json()["records"]
        assert {record["metadata"]["ranked_by"] for record in records} == {"gemma"}
        body["knowledge_id"] = "default@none"
        records = (await ask(client, **body)).json()["records"]
        assert {record["metadata"]["ranked_by"] for record in records} == {"none"}


class ListeningSearcher:
    """Finds nothing, and remembers what it was asked."""

    def __init__(self) -> None:
        self.queries: list[Query] = []

    async def search(self, query: Query, caller: Caller = ANONYMOUS) -> SearchResult:
        self.queries.append(query)
        return SearchResult(
            query=query.text, collection="", results=(), backend=BackendUse(requested="auto", used="none")
        )


async def test_models_are_given_the_time_that_dify_has(client: httpx.AsyncClient, services: Services) -> None:
    """Dify waits for 5 s; ranking ends well before, and what is too slow leaves the order of retrieval."""
    services.searcher = searcher = ListeningSearcher()  # type: ignore[assignment]
    assert (await ask(client)).json() == {"records": []}
    [query] = searcher.queries
    assert query.ranking.deadline_ms == DEADLINE_MS < 4000
    assert query.ranking.on_failure == "degrade"


async def test_a_page_long_question_is_cut(client: httpx.AsyncClient) -> None:
    """A longer query than /search takes is cut, not refused."""
    assert (await found(client, query="dental " * 5000))[0] == "dental"
