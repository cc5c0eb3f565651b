"""Every route by a key of the wrong tenant, by the table of routes: a new one is not tested until it is listed here."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar

from app.api.authentication import PUBLIC
from app.api.compat.citations import Links
from app.config.settings import AccessSettings, IndexSection, ServiceSettings, Settings
from app.domain import Citation, Hit
from app.mcp.server import build_server
from app.mcp.tools import TOOLS
from app.wiring import Services
from tests.api.conftest import local_client
from tests.api.test_every_route import operations
from tests.fakes.agents import HEADERS, call, message, messages, send

pytestmark = pytest.mark.anyio

ADMIN = "an-admins-key-of-forty-characters-or-so"
CANARY = "zanzibarite"
"""In the text, title, id, source and metadata of each document that must not be seen."""
FORGED: dict[str, Any] = {"or": [{"tenant": "b"}, {"not": {"tenant": "a"}}, {"document_id": f"{CANARY}-1"}]}
MESSAGES = [{"role": "user", "content": f"What is the {CANARY} ore?"}]
CHAT = {"messages": MESSAGES, "model": "winnow:shared"}
RAGFLOW_CHAT = {"messages": MESSAGES, "model": "m", "reference": True}
QUESTION = f"What is the {CANARY} ore?"
TEXTS = {"texts": ["What is there?"]}
RERANK = {"query": "ore mined north", "documents": ["One.", "Two."]}

ATTACKS: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/search"): {"json": {"query": QUESTION, "collection": "shared", "filter": FORGED}},
    ("POST", "/answer"): {"json": {"query": QUESTION, "collection": "shared", "filter": FORGED}},
    ("GET", "/collections"): {},
    ("PUT", "/collections/x"): {"path": "/collections/shared"},
    ("GET", "/collections/x"): {"path": "/collections/shared"},
    ("POST", "/documents"): {"json": {"collection": "shared", "documents": [{"id": "theirs", "text": "mine now"}]}},
    ("GET", "/documents"): {"params": {"collection": "shared", "cursor": "Yh8="}},
    ("GET", "/documents/x"): {"path": f"/documents/{CANARY}-1?collection=shared&tenant=b"},
    ("DELETE", "/documents/x"): {"path": "/documents/theirs?collection=shared&tenant=b"},
    ("GET", "/jobs"): {},
    ("GET", "/jobs/x"): {"path": "/jobs/{job}"},
    ("DELETE", "/jobs/x"): {"path": "/jobs/{job}"},
    ("GET", "/usage"): {},
    ("GET", "/usage/export"): {},
    ("GET", "/v1/models"): {},
    ("GET", "/v1/models/x"): {"path": f"/v1/models/winnow:{CANARY}"},
    ("POST", "/v1/chat/completions"): {"json": CHAT},
    ("GET", "/v1/vector_stores"): {},
    ("GET", "/v1/vector_stores/x"): {"path": "/v1/vector_stores/shared"},
    ("POST", "/v1/vector_stores/x/search"): {
        "path": "/v1/vector_stores/shared/search",
        "json": {"query": QUESTION, "filters": {"type": "ne", "key": "tenant", "value": "a"}},
    },
    ("GET", "/v1/vector_stores/x/files"): {"path": "/v1/vector_stores/shared/files?after=b%1Ft"},
    ("GET", "/v1/vector_stores/x/files/x"): {"path": f"/v1/vector_stores/shared/files/b%1F{CANARY}-1/content"},
    ("POST", "/retrieval"): {
        "json": {
            "knowledge_id": "shared",
            "query": QUESTION,
            "metadata_condition": {
                "conditions": [{"name": ["tenant"], "comparison_operator": "is not", "value": "a"}],
            },
        }
    },
    ("POST", "/api/v1/retrieval"): {
        "json": {"question": QUESTION, "dataset_ids": ["shared"], "document_ids": [f"{CANARY}-1", "theirs"]}
    },
    ("POST", "/api/v1/datasets/search"): {
        "json": {"question": QUESTION, "dataset_ids": ["shared"], "doc_ids": [f"{CANARY}-1", "theirs"]}
    },
    ("POST", "/api/v1/datasets/x/search"): {
        "path": "/api/v1/datasets/shared/search",
        "json": {"question": QUESTION, "doc_ids": [f"{CANARY}-1", "theirs"]},
    },
    ("POST", "/api/v1/dify/retrieval"): {"json": {"knowledge_id": "shared", "query": QUESTION}},
    ("GET", "/api/v1/dify/retrieval"): {"params": {"knowledge_id": "shared", "query": QUESTION}},
    ("GET", "/api/v1/dify/retrieval/health"): {},
    ("GET", "/api/v1/datasets"): {},
    ("GET", "/api/v1/datasets/x/documents"): {"path": "/api/v1/datasets/shared/documents"},
    ("POST", "/api/v1/openai/x/chat/completions"): {
        "path": "/api/v1/openai/shared/chat/completions",
        "json": RAGFLOW_CHAT,
    },
    ("POST", "/api/v1/chats_openai/x/chat/completions"): {
        "path": "/api/v1/chats_openai/shared/chat/completions",
        "json": RAGFLOW_CHAT,
    },
    ("POST", "/openwebui/search"): {"path": "/openwebui/search?collection=shared", "json": {"query": QUESTION}},
    # These read no documents: nothing of what is there may be in what they say.
    ("POST", "/chat"): {"json": {"message": "What is in the collection shared?"}},
    ("POST", "/vision"): {"json": {"prompt": "?", "image_url": "http://127.0.0.1/documents/theirs?collection=shared"}},
    ("POST", "/classify"): {"json": TEXTS},
    ("POST", "/moderate"): {"json": TEXTS},
    ("POST", "/translate"): {"json": {**TEXTS, "target_language": "de"}},
    ("POST", "/complete"): {"json": {"prefix": "The ore is"}},
    ("GET", "/version"): {},
    ("GET", "/backends"): {},
    ("POST", "/cost/estimate"): {"json": {"queries_per_day": 10}},
    ("POST", "/v1/rerank"): {"json": RERANK},
    ("POST", "/v2/rerank"): {"json": RERANK},
    ("POST", "/rerank"): {"json": RERANK},
    ("POST", "/tei/rerank"): {"json": {"query": "ore mined north", "texts": ["One.", "Two."]}},
    ("POST", "/v1/score"): {"json": {"text_1": "ore mined north", "text_2": ["One.", "Two."]}},
    ("POST", "/score"): {"json": {"queries": "ore mined north", "documents": ["One.", "Two."]}},
    ("POST", "/tei/embed"): {"json": {"inputs": "ore"}},
    ("GET", "/tei/info"): {},
    ("POST", "/v1/embeddings"): {"json": {"input": "ore", "model": f"winnow:{CANARY}"}},
    ("POST", "/v1/moderations"): {"json": {"input": "ore"}},
    ("POST", "/v1/completions"): {"json": {"prompt": "The ore is", "model": "winnow:shared"}},
    ("PUT", "/process"): {"content": b"An ore.", "headers": {"Content-Type": "text/plain", "X-Filename": "theirs.txt"}},
    # One message of it; tables of their own have all of them.
    ("POST", "/mcp"): {"json": call("search", query=QUESTION, collection="shared", filter=FORGED), "headers": HEADERS},
}
"""How each operation that a key of a tenant may call is attacked; the others are for admins, who see all tenants."""

THEIR_URI = f"winnow://shared/{CANARY}-1?tenant=b"
TOOL_ATTACKS: dict[str, list[dict[str, Any]]] = {
    "search": [{"query": QUESTION, "collection": "shared", "filter": FORGED}],
    "fetch": [{"id": uri} for uri in (THEIR_URI, f"winnow://shared/{CANARY}-1", f"winnow://shared/{CANARY}-2")],
    "answer": [{"query": QUESTION, "collection": "shared", "filter": FORGED}],
    "list_collections": [{}],
    "add_document": [{"id": "theirs", "text": "mine now", "collection": "shared"}],
}
"""How each tool of agents is attacked."""

RESOURCE_ATTACKS: dict[str, list[dict[str, Any]]] = {
    "resources/list": [{}, {"cursor": "shared/Yh8="}, {"cursor": f"shared/{CANARY}"}],
    "resources/read": [{"uri": uri} for uri in (THEIR_URI, f"winnow://shared/{CANARY}-1")],
    "resources/templates/list": [{}],
}
"""How each other request of agents that reads is attacked."""

SCOPES = ["search", "answer", "tasks", "write"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        service=ServiceSettings(ping_s=0.1), access=AccessSettings(admin_key=ADMIN), index=IndexSection(home=tmp_path)
    )


class Parties:
    """Clients with a key each: two tenants, of one a second key with a group, and the operator."""

    def __init__(self, operator: httpx.AsyncClient, a: httpx.AsyncClient, b: httpx.AsyncClient, hr: httpx.AsyncClient):
        self.operator, self.a, self.b, self.hr = operator, a, b, hr


@pytest.fixture
async def parties(app: Litestar, client: httpx.AsyncClient, services: Services) -> AsyncIterator[Parties]:
    client.headers["Authorization"] = f"Bearer {ADMIN}"
    async with AsyncExitStack() as stack:
        clients = []
        for name, bound in (("a", {"tenant": "a"}), ("b", {"tenant": "b"}), ("hr", {"tenant": "a", "groups": ["hr"]})):
            made = (await client.post("/keys", json={"name": name, "scopes": SCOPES, **bound})).json()
            one = await stack.enter_async_context(local_client(app, host="203.0.113.7"))
            one.headers["X-API-Key"] = made["key"]
            clients.append(one)
        yield Parties(client, *clients)
        await client.delete("/collections/shared")


async def put(client: httpx.AsyncClient, *documents: dict[str, Any], **params: str) -> httpx.Response:
    reply = await client.post("/documents", json={"collection": "shared", "documents": list(documents)}, params=params)
    assert reply.status_code in (200, 202), reply.text
    return reply


def secret(document_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": document_id,
        "text": f"The {CANARY} ore {document_id} is mined in the north.",
        "title": CANARY,
        "source": f"{CANARY}.txt",
        "metadata": {"tenant": "a", "kind": CANARY},
        **fields,
    }


async def ids(client: httpx.AsyncClient) -> list[str]:
    return [one["id"] for one in (await client.get("/documents?collection=shared")).json()["documents"]]


async def found(client: httpx.AsyncClient, **fields: Any) -> set[str]:
    body = {"query": "ore mined north", "collection": "shared", **fields}
    return {hit["document_id"] for hit in (await client.post("/search", json=body)).json()["results"]}


def test_every_operation_is_attacked(app: Litestar) -> None:
    """What a key of a tenant may call is in the table; one that is missing, or no longer there, fails here."""
    reachable = {
        (one.method, one.path)
        for one in operations(app)
        if PUBLIC not in one.scopes and not {"admin", "operator", "metrics"}.issuperset(one.scopes)
    }
    assert reachable == set(ATTACKS)


async def test_the_wrong_tenant_gets_nothing(parties: Parties, subtests: pytest.Subtests) -> None:
    """No operation, whatever filter, id, cursor or job it names, tells of another tenant, or of a group's documents."""
    await put(parties.b, secret(f"{CANARY}-1"), secret("theirs"))
    await put(parties.hr, secret(f"{CANARY}-2", allowed=["hr"]))
    await put(parties.a, {"id": "own", "text": "Ferns grow in the shade."})
    job = (await put(parties.b, secret(f"{CANARY}-3"), wait="false")).json()["id"]
    before = await found(parties.b)
    for (method, path), attack in ATTACKS.items():
        arguments = {"path": path, **attack}
        where = arguments.pop("path").format(job=job)
        with subtests.test(operation=f"{method} {path}"):
            reply = await parties.a.request(method, where, **arguments)
            shown = reply.text.replace(QUESTION, "").replace(where, "").replace(f"'{CANARY}-1'", "")
            shown = shown.replace(f"'winnow:{CANARY}'", "")  # what the request itself said
            assert CANARY not in shown + str(reply.headers)
            assert reply.status_code != 500
            assert job not in shown.replace(f"'{job}'", "")
    assert before | {f"{CANARY}-3"} >= await found(parties.b) >= before
    assert (await parties.b.get(f"/jobs/{job}")).status_code == 200


def test_every_tool_and_every_request_of_agents_is_attacked() -> None:
    """One that is missing in the tables, or no longer there, fails here."""
    assert set(TOOL_ATTACKS) == set(TOOLS)
    methods = {name for name in build_server()._request_handlers if not name.startswith("tools/")}
    assert methods - {"ping", "server/discover"} == set(RESOURCE_ATTACKS)


async def test_agents_of_the_wrong_tenant_get_nothing(parties: Parties, subtests: pytest.Subtests) -> None:
    """Whatever id, filter or cursor they name; the other tenant's documents stay as they are."""
    await put(parties.b, secret(f"{CANARY}-1"), secret("theirs"))
    await put(parties.hr, secret(f"{CANARY}-2", allowed=["hr"]))
    await put(parties.a, {"id": "own", "text": "Ferns grow in the shade."})
    before = await found(parties.b)
    attacks = [call(name, **arguments) for name, attacks in TOOL_ATTACKS.items() for arguments in attacks]
    attacks += [message(method, params) for method, attacks in RESOURCE_ATTACKS.items() for params in attacks]
    for attack in attacks:
        with subtests.test(attack=attack):
            reply = await send(parties.a, attack)
            assert reply.status_code == 200
            named = attack["params"].get("arguments", attack["params"])
            said = [value for value in named.values() if isinstance(value, str)]
            shown = reply.text
            for one in (*said, f"'{CANARY}-1'", f"'{CANARY}-2'"):
                shown = shown.replace(one, "")  # what the request itself said
            assert CANARY not in shown + str(reply.headers)
    assert await found(parties.b) == before
    for client, own in ((parties.a, "own"), (parties.b, "theirs")):
        fetched = messages(await send(client, call("fetch", id=f"winnow://shared/{own}")))[-1]["result"]
        assert not fetched["isError"]


async def test_what_is_counted_is_ones_own(parties: Parties) -> None:
    """A collection has the documents that one may see; without any it is not in the list."""
    await put(parties.b, secret("1"), secret("2"))
    assert [c["name"] for c in (await parties.a.get("/collections")).json()["collections"]] == []
    assert (await parties.a.get("/api/v1/datasets")).json()["total_datasets"] == 0
    assert "winnow:shared" not in (await parties.a.get("/v1/models")).text
    await put(parties.a, {"id": "own", "text": "Ferns grow in the shade."})
    [mine] = (await parties.a.get("/collections")).json()["collections"]
    assert (mine["documents"], mine["passages"], mine["bytes"]) == (1, 1, None)
    whole = (await parties.operator.get("/collections/shared")).json()
    assert (whole["documents"], whole["passages"]) == (3, 3)


async def test_one_id_is_a_document_of_each_tenant(parties: Parties) -> None:
    """Written, replaced and deleted by one tenant it stays as it is for the other; the operator sees both."""
    await put(parties.a, {"id": "same", "text": "An ore mined by a in the north."})
    await put(parties.b, {"id": "same", "text": "An ore mined by b in the north."})
    [result] = (await put(parties.a, {"id": "same", "text": "An ore mined by a in the south."})).json()["results"]
    assert (result["id"], result["status"]) == ("same", "updated")
    texts = [(await one.get("/documents/same?collection=shared")).json()["text"] for one in (parties.a, parties.b)]
    assert texts == ["An ore mined by a in the south.", "An ore mined by b in the north."]
    listed = (await parties.operator.get("/documents?collection=shared")).json()["documents"]
    assert [(one["id"], one["tenant"]) for one in listed] == [("same", "a"), ("same", "b")]
    assert (await parties.operator.get("/documents/same?collection=shared")).status_code == 404
    assert (await parties.operator.get("/documents/same?collection=shared&tenant=b")).json()["tenant"] == "b"
    assert (await parties.a.delete("/documents/same?collection=shared")).status_code == 204
    assert (await ids(parties.a), await found(parties.a)) == ([], set())
    assert (await ids(parties.b), await found(parties.b)) == (["same"], {"same"})
    assert (await parties.operator.delete("/documents/same?collection=shared&tenant=b")).status_code == 204
    assert await ids(parties.b) == []


async def test_links_to_documents_of_tenants_open(parties: Parties) -> None:
    """The operator finds the documents of one id that two tenants have, and its links lead to each of them."""
    for tenant, where in ((parties.a, "far north"), (parties.b, "cold north")):
        await put(tenant, {"id": "same", "text": f"The ore is mined in the {where}."})
    body = {"query": "ore mined north", "collection": "shared", "group_by_document": True}
    hits = (await parties.operator.post("/search", json=body)).json()["results"]
    assert sorted((hit["document_id"], hit["tenant"]) for hit in hits) == [("same", "a"), ("same", "b")]
    listed = await parties.operator.post("/openwebui/search?collection=shared", json={"query": "ore mined north"})
    links = Links("http://testserver.local", "shared")
    links.learn(msgspec.convert(hits, list[Hit]))
    cited = [links.annotation(citation_of(hit))["url_citation"]["url"] for hit in hits]
    opened = [*cited, *(one["link"] for one in listed.json())]
    assert {(await parties.operator.get(f"/{link.split('/', 3)[3]}")).status_code for link in opened} == {200}
    assert {link.partition("&tenant=")[2][0] for link in opened} == {"a", "b"}


async def test_other_formats_tell_documents_of_one_id_apart(parties: Parties) -> None:
    """RAGFlow counts the passages of each, in what the operator finds."""
    for tenant, name in ((parties.a, "a.txt"), (parties.b, "b.txt")):
        await put(tenant, {"id": "same", "text": f"The ore of {name} is mined in the north.", "source": name})
    body = {"question": "ore mined north", "dataset_ids": ["shared"], "similarity_threshold": 0}
    found = (await parties.operator.post("/api/v1/retrieval", json=body)).json()["data"]
    documents = sorted((one["doc_name"], one["doc_id"], one["count"]) for one in found["doc_aggs"])
    assert documents == [("a.txt", "same", 1), ("b.txt", "same", 1)]


def citation_of(hit: dict[str, Any]) -> Citation:
    place = {"page": None, "start": 0, "end": 3, "quote": "The", "answer_start": 0, "answer_end": 3}
    return Citation(marker=1, result_id=hit["id"], document_id=hit["document_id"], source=hit["source"], **place)


async def test_a_document_for_a_group_is_the_groups(parties: Parties) -> None:
    """Who has none of its groups does not find, read, list, replace or delete it, nor write for groups of others."""
    await put(parties.hr, secret("1", allowed=["hr", "legal"]), secret("2"))
    assert (await ids(parties.hr), await found(parties.hr)) == (["1", "2"], {"1", "2"})
    assert (await ids(parties.a), await found(parties.a)) == (["2"], {"2"})
    assert (await parties.a.get("/documents/1?collection=shared")).status_code == 404
    assert (await parties.a.delete("/documents/1?collection=shared")).status_code == 404
    results = (await put(parties.a, {"id": "1", "text": "x"}, {"id": "3", "text": "x", "allowed": ["hr"]})).json()
    assert [one["reason"] for one in results["results"]] == ["duplicate_id", "invalid_groups"]
    assert await ids(parties.hr) == ["1", "2"]
    await put(parties.hr, secret("1"))
    assert await ids(parties.a) == ["1", "2"]


async def test_files_are_for_a_tenant_and_its_groups(parties: Parties) -> None:
    """A form names groups as JSON does; and no tenant but one's own."""
    files = {"files": ("a.txt", b"An ore is mined in the north.", "text/plain")}
    form = {"collection": "shared", "allowed": "hr"}
    assert (await parties.hr.post("/documents", files=files, data=form)).json()["created"] == 1
    refused = (await parties.a.post("/documents", files=files, data={"collection": "shared", "tenant": "b"})).json()
    assert [one["reason"] for one in refused["results"]] == ["invalid_tenant"]
    assert (len(await ids(parties.hr)), await ids(parties.a), await ids(parties.b)) == (1, [], [])


async def test_pages_of_a_tenant_hold_its_own(parties: Parties) -> None:
    """Cursors lead through one's own documents and jobs, and say nothing of others; a forged one leads nowhere else."""
    for client in (parties.a, parties.b):
        await put(client, *({"id": f"{n}", "text": f"text {n}"} for n in range(5)))
    for client in (parties.b, parties.a, parties.b, parties.a, parties.a):
        await put(client, {"id": "late", "text": "late"}, wait="false")
    seen, cursor = [], ""
    while cursor is not None:
        page = (
            await parties.a.get("/documents", params={"collection": "shared", "limit": "2", "cursor": cursor})
        ).json()
        seen += [one["id"] for one in page["documents"]]
        cursor = page["next_cursor"]
    assert [one for one in seen if one != "late"] == [f"{n}" for n in range(5)]
    first = (await parties.a.get("/jobs?limit=2")).json()
    rest = (await parties.a.get("/jobs", params={"limit": "2", "cursor": first["next_cursor"]})).json()
    assert (len(first["jobs"]), first["next_cursor"], len(rest["jobs"]), rest["next_cursor"]) == (2, "1", 1, None)
