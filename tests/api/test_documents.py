"""POST /documents as JSON, GET /documents, GET and DELETE /documents/{id}."""

import asyncio
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from litestar import Litestar

from app.services.document_validation import Validated
from app.services.documents import MAX_AT_ONCE, Documents, Overtake
from app.wiring import Services
from indexing.pipeline.ingest import DocumentResult
from indexing.pipeline.progress import SyncRequest

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


async def post(client: httpx.AsyncClient, collection: str, *documents: Any) -> list[dict[str, Any]]:
    """The results."""
    response = await client.post("/documents", json={"collection": collection, "documents": documents})
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


async def found(client: httpx.AsyncClient, collection: str, query: str) -> list[dict[str, Any]]:
    response = await client.post("/search", json={"query": query, "collection": collection})
    assert response.status_code == 200, response.text
    hits: list[dict[str, Any]] = response.json()["results"]
    return hits


def one(document_id: str, collection: str) -> str:
    return f"/documents/{quote(document_id, safe='')}?collection={collection}"


async def test_a_document_is_created_updated_and_left_alone(client: httpx.AsyncClient) -> None:
    """The same content is `unchanged`, other content replaces it, and searches see the newest alone."""
    dental = {"id": "d", "text": "Dental cover starts at once.", "title": "Dental", "source": "handbook.pdf"}
    (created,) = await post(client, "life", dental)
    expected = {
        "id": "d",
        "source": "handbook.pdf",
        "status": "created",
        "passages": 1,
        "reason": None,
        "detail": None,
        "warnings": [],
    }
    assert created == expected
    assert (await post(client, "life", dental))[0]["status"] == "unchanged"
    assert (await post(client, "life", {**dental, "text": "Dental cover starts later."}))[0]["status"] == "updated"
    hits = await found(client, "life", "dental")
    assert [(hit["document_id"], hit["text"]) for hit in hits] == [("d", "Dental cover starts later.")]


async def test_unchanged_documents_are_not_embedded(client: httpx.AsyncClient, services: Services) -> None:
    """Nothing is embedded, and the passages keep their time of indexing."""
    await post(client, "same", {"id": "d", "text": "dental"})
    before = (await client.get(one("d", "same"))).json()
    await post(client, "same", {"id": "d", "text": "dental"})
    assert (await client.get(one("d", "same"))).json() == before


BAD: list[tuple[Any, str, str]] = [
    ({"id": "x"}, "invalid", "/documents/1/text: this field is required"),
    ({"text": 1}, "invalid", "/documents/1/text: expected str, got int"),
    ({"text": "x", "txt": 1}, "invalid", "did you mean text"),
    ({"text": "x", "metadata": []}, "invalid", "/documents/1/metadata: expected object"),
    ({"text": "x", "title": "t" * 501}, "invalid", "/documents/1/title"),
    (None, "invalid", "/documents/1: expected object"),
    ("text", "invalid", "/documents/1: expected object"),
    ({"text": "", "id": "e"}, "empty", "no text"),
    ({"text": " \n\t"}, "empty", "no text"),
    ({"text": "\0\0"}, "empty", "no text"),
    ({"text": "x", "id": ""}, "invalid_id", "1 to 512"),
    ({"text": "x", "id": "i" * 513}, "invalid_id", "not 513"),
    ({"text": "x", "id": "a\nb"}, "invalid_id", "control"),
    ({"text": "x", "id": ".."}, "invalid_id", "URL"),
    ({"text": "x", "id": "/"}, "invalid_id", "URL"),
    ({"text": "x", "id": "good"}, "duplicate_id", "same request"),
    ({"text": "x", "metadata": {"big": 2**63}}, "invalid_metadata", "64 bits"),
    ({"text": "x", "metadata": {"a": "x" * 66_000}}, "invalid_metadata", "65536 bytes"),
    ({"text": "x", "metadata": {"a": [[[[[[[[1]]]]]]]]}}, "invalid_metadata", "8 levels"),
]


@pytest.mark.parametrize(("bad", "reason", "says"), BAD)
async def test_one_bad_document_fails_alone(client: httpx.AsyncClient, bad: Any, reason: str, says: str) -> None:
    """It fails with its reason, in its place; its neighbours are indexed."""
    good = [{"id": "good", "text": "good"}, {"id": "fine", "text": "fine"}]
    first, failed, last = await post(client, f"bad-{reason}", good[0], bad, good[1])
    assert {first["status"], last["status"]} <= {"created", "unchanged"}
    assert (failed["status"], failed["reason"]) == ("failed", reason)
    assert says in failed["detail"]


async def test_a_number_out_of_range_fails_alone(client: httpx.AsyncClient) -> None:
    """JSON can spell what no float holds."""
    body = b'{"collection": "range", "documents": [{"text": "x", "metadata": {"a": 1e999}}, {"text": "y"}]}'
    results = (await client.post("/documents", content=body, headers=JSON)).json()["results"]
    assert [result["reason"] for result in results] == ["invalid", None]


async def test_deep_nesting_does_not_bring_the_service_down(client: httpx.AsyncClient) -> None:
    """Ten thousand brackets are a bad request."""
    body = b'{"documents": [{"text": "x", "metadata": {"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}]}"
    assert (await client.post("/documents", content=body, headers=JSON)).status_code == 400


async def test_a_lone_surrogate_fails_its_document_alone(client: httpx.AsyncClient) -> None:
    """In text, title or metadata; pairs and escaped backslashes stay, and NUL is replaced."""
    body = (
        rb'{"collection": "clean", "documents": [{"id": "c", "text": "nul\u0000 pair \ud83e\uddb7 \\ud83e"},'
        rb'{"text": "lone \ud83e"}, {"text": "t", "title": "\udc00t"}, {"text": "t", "metadata": {"k": ["\ud800"]}}]}'
    )
    results = (await client.post("/documents", content=body, headers=JSON)).json()["results"]
    assert [result["reason"] for result in results] == [None, "invalid", "invalid", "invalid"]
    assert all("lone surrogate" in result["detail"] for result in results[1:])
    shown = (await client.get("/documents/c?collection=clean")).json()
    assert shown["text"] == "nul  pair \U0001f9b7 \\ud83e"
    envelope = await client.post(
        "/documents", content=rb'{"collection": "\ud83e", "documents": [{"text": "x"}]}', headers=JSON
    )
    assert envelope.status_code == 400
    assert "lone surrogate" in envelope.json()["detail"]


async def test_titles_and_sources_cannot_command_a_terminal(client: httpx.AsyncClient) -> None:
    """Escape sequences and control characters are removed where a document enters."""
    odd = "\x1b[31mred\x1b]0;owned\x07\x9b2J\u202e.txt\r\n"
    await post(client, "escapes", {"id": "e", "text": "dental", "title": odd, "source": odd})
    shown = (await client.get("/documents/e?collection=escapes")).json()
    assert (shown["title"], shown["source"]) == ("red2J.txt  ", "red2J.txt  ")


async def test_any_metadata_comes_back_and_can_be_filtered_by(client: httpx.AsyncClient) -> None:
    """Scalars, lists and objects, integers of 64 bits, odd keys."""
    metadata = {"a": 2**63 - 1, "b": -(2**63), "c": [1, "x", {"d": None}], "": True, "e.f": 1.5, "g": {"h": "歯"}}
    await post(client, "meta", {"id": "m", "text": "dental", "metadata": metadata}, {"id": "n", "text": "dental"})
    assert (await client.get("/documents/m?collection=meta")).json()["metadata"] == metadata
    body = {"query": "dental", "collection": "meta", "filter": {"g.h": "歯"}}
    hits = (await client.post("/search", json=body)).json()["results"]
    assert [hit["document_id"] for hit in hits] == ["m"]


async def test_a_document_without_an_id_is_known_by_source_or_content(client: httpx.AsyncClient) -> None:
    """The source names it, or else its content; so sending it again changes nothing, or replaces it."""
    by_content, by_source = {"text": "dental cover"}, {"text": "office hours", "source": "https://x/office"}
    first = await post(client, "ids", by_content, by_source)
    again = await post(client, "ids", by_content, {**by_source, "text": "office closed"})
    assert [result["status"] for result in again] == ["unchanged", "updated"]
    assert [result["id"] for result in first] == [result["id"] for result in again]


IDS = [
    "a/b",
    "https://host/path/?q=1#f",
    "trailing/",
    "//x",
    " ",
    "a b",
    "100%",
    "%2F",
    "ü/歯",
    "a+b",
    "...",
    "i" * 512,
]


@pytest.mark.parametrize("document_id", IDS)
async def test_any_id_can_be_shown_and_deleted(client: httpx.AsyncClient, document_id: str) -> None:
    """URL-encoded, an id comes back as it was given."""
    await post(client, "odd", {"id": document_id, "text": "dental"})
    shown = await client.get(one(document_id, "odd"))
    assert (shown.status_code, shown.json()["id"]) == (200, document_id)
    assert (await client.delete(one(document_id, "odd"))).status_code == 204
    assert (await client.get(one(document_id, "odd"))).status_code == 404


async def test_a_document_shows_its_text_and_its_passages(client: httpx.AsyncClient) -> None:
    """The text as it was sent, and every range of it in order; the text can be left out."""
    text = "\n\n".join(f"Paragraph {n}. " + "Words of a long document follow here. " * 30 for n in range(6)) + " \n"
    (result,) = await post(client, "ranges", {"id": "r", "text": text, "title": "T", "metadata": {"lang": "en"}})
    shown = (await client.get("/documents/r?collection=ranges")).json()
    assert (shown["text"], shown["text_complete"]) == (text, True)
    assert shown["passages"] == result["passages"] == len(shown["ranges"]) > 1
    assert all(text[part["start"] : part["end"]].strip() for part in shown["ranges"])
    assert [part["start"] for part in shown["ranges"]] == sorted(part["start"] for part in shown["ranges"])
    assert (shown["title"], shown["metadata"], shown["origin"]) == ("T", {"lang": "en"}, "api")
    without = (await client.get("/documents/r?collection=ranges&include_text=false")).json()
    assert without == {**shown, "text": None, "text_complete": None}


async def test_the_text_of_a_file_is_put_together(
    client: httpx.AsyncClient, services: Services, tmp_path: Path
) -> None:
    """From its passages, so that their ranges hold; the white space between them is not known any more."""
    text = "\n\n\n".join(f"Paragraph {n}. " + "Words of a long document follow here. " * 30 for n in range(6))
    (tmp_path / "long.txt").write_text(text)
    await services.documents.sync(SyncRequest(inputs=("long.txt",), cwd=str(tmp_path), collection="assembled"))
    (entry,) = (await client.get("/documents?collection=assembled")).json()["documents"]
    shown = (await client.get(one(entry["id"], "assembled"))).json()
    assert shown["text_complete"] is False
    assert shown["text"].split() == text.split()
    for part in shown["ranges"]:
        assert shown["text"][part["start"] : part["end"]] == text[part["start"] : part["end"]]


async def test_both_spellings_of_an_id_meet(client: httpx.AsyncClient) -> None:
    """Put decomposed, shown and deleted composed; its source is composed, too."""
    (result,) = await post(client, "nfc", {"id": "cafe\u0301", "text": "dental", "source": "cafe\u0301.md"})
    assert (result["id"], result["source"]) == ("caf\u00e9", "caf\u00e9.md")
    for spelling in ("cafe\u0301", "caf\u00e9"):
        assert (await client.get(one(spelling, "nfc"))).json()["id"] == "caf\u00e9"
    assert (await client.delete(one("caf\u00e9", "nfc"))).status_code == 204


BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"}


async def test_a_browser_gets_a_page_to_read(client: httpx.AsyncClient) -> None:
    """All of the text in one piece, with the quote marked under the name that the link's fragment has."""
    text = "\n\n".join(f"Paragraph {n}. " + f"Words of part {n} & more <b>follow</b> here. " * 30 for n in range(6))
    await post(client, "pages", {"id": "r", "text": text, "title": "<i>T</i>", "source": "r.md"})
    start = text.index("Paragraph 4")
    shown = await client.get(f"/documents/r?collection=pages&quote={start},{start + 40}", headers=BROWSER)
    assert shown.headers["content-type"].startswith("text/html")
    assert shown.headers["content-security-policy"].startswith("default-src 'none'")
    body = shown.text.partition("<main>")[2].partition("</main>")[0]
    before, opened, after = body.partition(f'<mark id="char={start},{start + 40}">')
    assert opened
    assert unescape(after.partition("</mark>")[0]) == text[start : start + 40]
    assert unescape((before + after).replace("</mark>", "")).split() == text.split()
    assert "<i>" not in shown.text
    assert "<b>" not in body


async def test_a_program_gets_json(client: httpx.AsyncClient) -> None:
    """Whatever it accepts, unless that is a page above all."""
    await post(client, "pages", {"id": "j", "text": "dental"})
    for accept in ("*/*", "application/json", "application/json, text/html;q=0.5"):
        shown = await client.get("/documents/j?collection=pages&quote=0,3", headers={"Accept": accept})
        assert (shown.json()["id"], shown.headers["vary"]) == ("j", "Accept")


async def test_a_deleted_document_is_found_no_more(client: httpx.AsyncClient) -> None:
    """204, then 404, and the next search does not know it."""
    await post(client, "gone", {"id": "d", "text": "dental"}, {"id": "o", "text": "dental office"})
    assert (await client.delete("/documents/d?collection=gone")).status_code == 204
    assert {hit["document_id"] for hit in await found(client, "gone", "dental")} == {"o"}
    again = await client.delete("/documents/d?collection=gone")
    assert (again.status_code, again.json()["type"]) == (404, "urn:winnow:problem:not-found")
    assert (await post(client, "gone", {"id": "d", "text": "dental"}))[0]["status"] == "created"


async def test_pages_hold_every_document_once(client: httpx.AsyncClient) -> None:
    """The cursor leads through all of them by id, and ends in null."""
    await post(client, "paged", *({"id": f"é/{n}", "text": f"text {n}"} for n in range(7)))
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        params = {"collection": "paged", "limit": "3", "cursor": cursor}
        page = (await client.get("/documents", params=params)).json()
        assert len(page["documents"]) <= 3
        seen += [document["id"] for document in page["documents"]]
        cursor = page["next_cursor"]
    assert seen == [f"é/{n}" for n in range(7)]
    assert set(page["documents"][0]) == {
        *("id", "title", "source", "passages", "indexed_at", "origin", "tenant", "allowed")
    }
    assert page["documents"][0]["indexed_at"].endswith("Z")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("cursor=%21", "cursor"),
        ("cursor=_w==", "cursor"),
        ("cursor=é", "cursor"),
        ("limit=0", "limit: "),
        ("limit=x", "limit: "),
    ],
)
async def test_a_bad_page_is_refused(client: httpx.AsyncClient, query: str, says: str) -> None:
    """400, naming the parameter."""
    response = await client.get(f"/documents?{query}")
    assert response.status_code == 400
    assert says in response.json()["detail"]


@pytest.mark.parametrize("path", ["/documents?collection=nope", "/documents/x?collection=nope", "/documents/nope"])
async def test_what_is_not_there_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    """Unknown collections and documents are 404 with their name."""
    response = await client.get(path)
    assert response.status_code == 404
    assert "nope" in response.json()["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/documents"),
        ({"documents": []}, "/documents"),
        ({"documents": {}}, "/documents"),
        ({"documents": [{"text": "x"}] * 1001}, "/documents"),
        ({"documents": [{"text": "x"}], "collection": 1}, "/collection"),
        ({"documents": [{"text": "x"}], "wait": True}, "/wait"),
    ],
)
async def test_the_envelope_is_strict(client: httpx.AsyncClient, body: dict[str, Any], pointer: str) -> None:
    """What is wrong around the documents is 400 with a pointer, and nothing is indexed."""
    response = await client.post("/documents", json=body)
    assert response.status_code == 400
    assert response.json()["errors"][0]["pointer"] == pointer


POST_DOCUMENTS = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/documents",
    "raw_path": b"/documents",
    "root_path": "",
    "query_string": b"",
    "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
    "client": ("127.0.0.1", 50000),
    "server": ("localhost", 80),
}


class NeverDone(Documents):
    """Indexing that goes on until it is cancelled."""

    def __init__(self, services: Services) -> None:
        super().__init__(services.context.get, services.gates)
        self.begun = asyncio.Event()
        self.uploads = 0

    async def index_at_once(
        self, collection: str, documents: Sequence[Validated], size: int, overtake: Overtake
    ) -> list[DocumentResult]:
        self.uploads += 1
        self.begun.set()
        await asyncio.Event().wait()
        return []


async def test_a_client_that_hangs_up_frees_its_place(app: Litestar, services: Services) -> None:
    """At once: as many uploads as may be under way hang up, and the next one is indexed, too."""
    services.documents = documents = NeverDone(services)
    body = b'{"documents": [{"text": "x"}]}'

    async def upload_and_leave() -> None:
        events = iter([{"type": "http.request", "body": body}])

        async def receive() -> Any:
            if event := next(events, None):
                return event
            await documents.begun.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            """Nobody is there."""

        documents.begun.clear()
        await app({**POST_DOCUMENTS, "state": {}}, receive, send)  # type: ignore[arg-type]

    async with app.lifespan():
        for _ in range(MAX_AT_ONCE + 1):
            async with asyncio.timeout(20):
                await upload_and_leave()
    assert documents.uploads == MAX_AT_ONCE + 1


@pytest.mark.parametrize("name", ["../etc", "a b", ".hidden", "x" * 65])
async def test_a_bad_collection_name_is_refused(client: httpx.AsyncClient, name: str) -> None:
    """400, even where no document would have reached it."""
    response = await client.post("/documents", json={"collection": name, "documents": [{}]})
    assert (response.status_code, response.json()["type"]) == (400, "urn:winnow:problem:invalid-name")


async def test_only_two_media_types_are_read(client: httpx.AsyncClient) -> None:
    """415 names both."""
    response = await client.post("/documents", content=b"text", headers={"Content-Type": "text/plain"})
    assert response.status_code == 415
    assert "application/json" in response.json()["detail"]
    assert "multipart/form-data" in response.json()["detail"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_json_body_is_refused(client: httpx.AsyncClient, chunked: bool) -> None:
    """413 beyond 10 MB, with and without an announced length, though files may be larger."""
    body = b'{"documents": [{"text": "' + b"a" * 10_000_000 + b'"}]}'

    async def pieces() -> Any:
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    response = await client.post("/documents", content=pieces() if chunked else body, headers=JSON)
    assert response.status_code == 413
    assert "10000000 bytes" in response.json()["detail"]


async def test_two_at_once_leave_one_document(client: httpx.AsyncClient) -> None:
    """Whichever of several versions comes last is the whole document: no passages of another stay."""
    versions = [
        {"id": "d", "text": "\n\n".join(f"dental {n} {m} " + "word " * 200 for m in range(n))} for n in range(1, 7)
    ]
    await asyncio.gather(*(post(client, "race", version) for version in versions))
    page = (await client.get("/documents?collection=race")).json()["documents"]
    shown = (await client.get("/documents/d?collection=race")).json()
    (winner,) = (version for version in versions if shown["text"] == version["text"])
    assert (len(page), page[0]["passages"]) == (1, len(shown["ranges"]))
    hits = await found(client, "race", "dental")
    assert hits
    assert all(hit["text"] == winner["text"][hit["start"] : hit["end"]] for hit in hits)
    assert (await client.get("/collections/race")).json()["passages"] == len(shown["ranges"])


async def test_ids_of_indexed_files_are_not_taken(client: httpx.AsyncClient, services: Services, tmp_path: Any) -> None:
    """A document of a file is kept in step by `winnow index` alone; the list says where each is from."""
    records = tmp_path / "records.jsonl"
    records.write_text('{"id": "r1", "text": "dental record"}\n')
    await services.documents.sync(SyncRequest(inputs=(str(records),), cwd=str(tmp_path), collection="files"))
    (result,) = await post(client, "files", {"id": "r1", "text": "mine"})
    assert (result["status"], result["reason"]) == ("failed", "duplicate_id")
    assert "records.jsonl" in result["detail"]
    (entry,) = (await client.get("/documents?collection=files")).json()["documents"]
    assert (entry["id"], entry["origin"]) == ("r1", "file")
    assert str(tmp_path) not in str(entry)


async def test_a_collection_of_another_model_takes_nothing(client: httpx.AsyncClient, services: Services) -> None:
    """409 with the command that rebuilds it."""
    from tests.fakes.corpus import fill

    await fill(await services.store.get(), name="foreign", fingerprint="another model")
    response = await client.post("/documents", json={"collection": "foreign", "documents": [{"text": "x"}]})
    assert (response.status_code, response.json()["type"]) == (409, "urn:winnow:problem:embedder-mismatch")
