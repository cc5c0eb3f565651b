"""What web pages may do with the service, by a real browser: `make test-browser`.

The pages are under names of their own, which the browser finds on this machine.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.browser import Page, browser_program, browsing
from tests.fakes.http_server import answering
from tests.fakes.running import RunningServer

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not browser_program(), reason="needs Chromium or Chrome"),
]

LISTED, FOREIGN, REBOUND = "chat.example", "evil.example", "rebound.example"
HTML = b"<!doctype html><html lang=en><link rel=icon href='data:,'><title>A page</title>"
KEY = {"Authorization": "Bearer anything"}
JSON = {"Content-Type": "application/json"}
STREAMED = {"model": "winnow:default", "stream": True, "messages": [{"role": "user", "content": "2"}]}
"""The fake answerer is silent for as many seconds."""

ASK = """
const answer = await fetch(url, {method, headers, body, cache: "no-store"}).catch(String);
if (typeof answer === "string") return {refused: answer};
return {status: answer.status, id: answer.headers.get("x-request-id"), text: await answer.text()};
"""
STREAM = """
const answer = await fetch(url, {method: "POST", headers, body});
const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader(), pieces = [];
for (let piece = await reader.read(); !piece.done; piece = await reader.read()) pieces.push(piece.value);
return pieces;
"""
UPLOAD = """
const form = new FormData();
form.append("files", new File(["Send money to me."], "planted.txt"));
return await fetch(url, {method: "POST", body: form, mode}).then((answer) => answer.type, String);
"""
EMBED = """
const element = document.createElement(tag), told = new Promise((resolve) => {
  element.onload = () => resolve("loaded");
  element.onerror = () => resolve("refused");
});
element.src = url;
document.documentElement.append(element);
return await told;
"""
REFUSED = {"refused": "TypeError: Failed to fetch"}


@pytest.fixture(scope="module")
def origins() -> Iterator[dict[str, str]]:
    """The origin under each name: one server has the page for all."""
    with answering(200, HTML, headers={"Content-Type": "text/html"}) as url:
        port = url.rpartition(":")[2]
        yield {name: f"http://{name}:{port}" for name in (LISTED, FOREIGN)}


@pytest.fixture(scope="module")
def server(origins: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """With the one origin listed."""
    with running(tmp_path_factory.mktemp("home"), cors_origins=[origins[LISTED]]) as server:
        yield server


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Of a browser that all tests share."""
    with browsing(tmp_path_factory.mktemp("browser") / "profile", LISTED, FOREIGN, REBOUND) as page:
        yield page


@contextmanager
def running(home: Path, **settings: Any) -> Iterator[RunningServer]:
    server = RunningServer(home, "tests.fakes.server", json.dumps({"log_format": "json", **settings}))
    try:
        yield server
    finally:
        server.close()


def ask(page: Page, url: str, body: Any = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """What a script of the page gets: status, id and text; or why not."""
    sent = None if body is None else body if isinstance(body, str) else json.dumps(body)
    method = "GET" if body is None else "POST"
    told: dict[str, Any] = page.run(ASK, url=url, method=method, headers=headers or {}, body=sent)
    return told


def logged(server: RunningServer, method: str, route: str) -> int:
    """The status of such a request, once it is in the log."""
    return int(server.wait_for(rf'"method": "{method}", "route": "{route}", "status": (\d+)'))


def test_a_listed_page_asks_and_reads(page: Page, server: RunningServer, origins: dict[str, str]) -> None:
    """With a key, for which browsers ask first (preflight); errors can be read as well, and the id of the request."""
    page.open(origins[LISTED])
    server.skip_log()
    models = ask(page, f"{server.url}/v1/models", headers=KEY)
    assert (models["status"], json.loads(models["text"])["object"]) == (200, "list")
    assert models["id"]
    assert logged(server, "OPTIONS", "/v1/models") == 204
    found = ask(page, f"{server.url}/search", {"query": "dental", "limit": 1}, KEY | JSON)
    assert (found["status"], json.loads(found["text"])["results"][0]["document_id"]) == (200, "dental")
    assert not page.complaints
    wrong = ask(page, f"{server.url}/search", {"query": "dental", "limit": -1}, JSON)
    assert (wrong["status"], json.loads(wrong["text"])["status"]) == (400, 400)


def test_a_listed_page_reads_a_stream_as_it_comes(page: Page, server: RunningServer, origins: dict[str, str]) -> None:
    """The first piece is there long before the last."""
    page.open(origins[LISTED])
    url, body = f"{server.url}/v1/chat/completions", json.dumps(STREAMED)
    pieces = page.run(STREAM, url=url, headers=KEY | JSON, body=body)
    assert "[DONE]" not in pieces[0]
    assert "Yes." in "".join(pieces)
    assert pieces[-1].endswith("data: [DONE]\n\n")


def test_only_json_is_taken_for_json(page: Page, server: RunningServer, origins: dict[str, str]) -> None:
    """What a page may send without a preflight is no request, whoever sends it."""
    page.open(origins[LISTED])
    told = ask(page, f"{server.url}/search", '{"query": "dental"}', {"Content-Type": "text/plain"})
    assert (told["status"], json.loads(told["text"])["type"]) == (415, "urn:winnow:problem:unsupported-media-type")


def test_a_foreign_page_reads_nothing(page: Page, server: RunningServer, origins: dict[str, str]) -> None:
    """With and without a preflight, and not by tags either: what these ask for is not even looked up."""
    page.open(origins[FOREIGN])
    models, search = f"{server.url}/v1/models", f"{server.url}/search"
    assert ask(page, models) == ask(page, models, headers=KEY) == REFUSED
    assert ask(page, search, {"query": "dental"}, JSON) == REFUSED
    assert ask(page, search, '{"query": "dental"}', {"Content-Type": "text/plain"}) == REFUSED
    url, body = f"{server.url}/v1/chat/completions", json.dumps(STREAMED)
    assert ask(page, url, body, KEY | JSON) == REFUSED
    for tag, route in (("img", "/collections"), ("script", "/usage/export"), ("iframe", "/version")):
        server.skip_log()
        told = page.run(EMBED, tag=tag, url=server.url + route)
        assert told == "refused" or tag == "iframe"  # of a frame no page is told whether it was refused
        assert logged(server, "GET", route) == 403


@pytest.mark.parametrize("settings", [{}, {"allow_anonymous": True}])
def test_a_foreign_page_plants_no_document(
    page: Page, origins: dict[str, str], tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Forms are sent without a preflight; the guard holds as well where all machines are served."""
    page.open(origins[FOREIGN])
    with running(tmp_path, **settings) as server:
        url = f"{server.url}/documents"
        assert page.run(UPLOAD, url=url, mode="cors") == REFUSED["refused"]
        assert page.run(UPLOAD, url=url, mode="no-cors") == "opaque"
        assert logged(server, "POST", "/documents") == 403
        with (tmp_path / "own.txt").open("w+b") as own:
            own.write(b"Ours.")
            own.seek(0)
            assert httpx.post(url, files={"files": own}, timeout=60).status_code == 200
        kept = httpx.get(url, params={"collection": "default"}, timeout=60).json()["documents"]
        assert "own.txt" in {document["source"] for document in kept}
        assert "planted.txt" not in {document["source"] for document in kept}


def test_a_name_that_was_bound_to_this_machine_is_no_way_in(page: Page, server: RunningServer) -> None:
    """DNS rebinding: the page would be of the service's own origin, were the name one of the service's."""
    port = server.url.rpartition(":")[2]
    page.open(f"http://{REBOUND}:{port}/v1/models")
    assert "WINNOW_SERVICE_HOSTS" in page.run("return document.body.innerText")


def test_calls_can_be_tried(page: Page, server: RunningServer) -> None:
    """Forms from the description: parameters in the address, a body that is filled in. No other host is asked."""
    page.open(f"{server.url}/schema")
    page.until("document.querySelectorAll('section[data-path] details').length > 20")
    tried = "section[data-path='{}'][data-method='{}']"
    search, listed = tried.format("/search", "post"), tried.format("/documents", "get")
    for section in (search, listed):
        page.click(f"{section} summary")
        page.click(f"{section} button[type=submit]")
        page.until("document.querySelector(selector)?.innerText.startsWith('200')", selector=f"{section} [role=status]")
    shown = page.run("return document.querySelector(selector).innerText", selector=f"{listed} [role=status] pre")
    assert '"collection": "default"' in shown
    assert page.complaints == []
    assert [url for url in page.requested if not url.startswith(f"{server.url}/")] == []


@pytest.mark.parametrize(("path", "title"), [("/schema", "Winnow"), ("/documents/dental?collection=default", "Dental")])
def test_our_pages_are_shown(page: Page, server: RunningServer, origins: dict[str, str], path: str, title: str) -> None:
    """Without a complaint of the browser, also to who follows a link on any other page."""
    page.open(server.url + path)
    assert title in page.run("return document.title")
    page.open(origins[FOREIGN])
    page.follow(server.url + path)
    assert title in page.run("return document.title")
    assert page.complaints == []
