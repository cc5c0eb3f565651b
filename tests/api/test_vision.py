"""POST /vision: pictures from bodies and URLs reach the models, which are fake servers on real sockets."""

import base64
import json
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.config.settings import FetchSettings
from app.services.chat import ChatService
from app.services.fetch import Fetcher
from app.services.pictures import MAX_PICTURES, Pictures
from tests.api.test_answer import read_events
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.models import client_of, gemini, openai_style, services_for
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.web import Web, page
from tests.unit.indexing.readers.making import pdf

pytestmark = pytest.mark.anyio


def _picture(colour: str = "red") -> bytes:
    file = BytesIO()
    Image.new("RGB", (40, 20), colour).save(file, "PNG")
    return file.getvalue()


RED, BLUE = _picture("red"), _picture("blue")
PDF = pdf([(72, 100, "one")], [(72, 100, "two")], [(72, 100, "three")])
DOCUMENT = base64.b64encode(PDF).decode()
ENCODED = base64.b64encode(RED).decode()


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    async with GeminiServer() as server:
        yield server


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with Web() as web:
        web.names |= {"pictures.example": [["93.184.215.14"]], "inside.example": [["10.0.0.1"]]}
        web.pages["/blue.png"] = page(BLUE)
        yield web


@pytest.fixture
async def vision(server: GeminiServer, web: Web, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    services = services_for(tmp_path, {"flash": gemini(server)})
    pictures = Pictures(Fetcher(FetchSettings(), web.resolve, web))
    services.chat_service, services.vision_service = (
        ChatService(services.router.get, "auto", 30, pictures, stage) for stage in ("chat", "vision")
    )
    async with client_of(services) as client:
        yield client
    await pictures.close()


def shown(server: GeminiServer) -> list[bytes]:
    """The pictures that the model got last."""
    parts = server.bodies[-1]["contents"][-1]["parts"]
    return [base64.urlsafe_b64decode(part["inlineData"]["data"]) for part in parts if "inlineData" in part]


@pytest.mark.parametrize(
    ("given", "pictures"),
    [
        ({"image": ENCODED}, [RED]),
        ({"image": f"data:image/png;base64,{ENCODED}"}, [RED]),
        ({"image_url": "http://pictures.example/blue.png"}, [BLUE]),
        ({"images": [ENCODED, "http://pictures.example/blue.png"]}, [RED, BLUE]),
    ],
)
async def test_the_model_sees_the_picture(
    vision: httpx.AsyncClient, server: GeminiServer, given: dict[str, Any], pictures: list[bytes]
) -> None:
    """Byte by byte and in order, before the prompt; the reply has backend, usage, cost and timings."""
    reply = (await vision.post("/vision", json={"prompt": "What is it?", "system": "Be brief.", **given})).json()
    assert reply["text"] == "You said: What is it?"
    assert (reply["backend"]["used"], reply["usage"]["by_stage"].keys()) == ("flash", {"vision"})
    assert reply["usage"]["cost_usd"] > 0
    assert reply["timings_ms"].keys() == {"images", "vision", "total"}
    assert shown(server) == pictures


async def test_pages_of_a_pdf_are_shown(vision: httpx.AsyncClient, server: GeminiServer, web: Web) -> None:
    """From a body or a URL; those that are named, in their order."""
    every = {"prompt": "What is it?", "image": DOCUMENT}
    assert (await vision.post("/vision", json=every)).status_code == 200
    first, second, third = shown(server)
    assert first.startswith(b"\xff\xd8\xff")
    web.pages["/three.pdf"] = page(PDF, "application/pdf")
    some = {"prompt": "What is it?", "image_url": "http://pictures.example/three.pdf", "pages": "3, 1-2,1"}
    assert (await vision.post("/vision", json=some)).status_code == 200
    assert shown(server) == [third, first, second]


async def test_a_form_shows_its_files_and_urls_in_order(vision: httpx.AsyncClient, server: GeminiServer) -> None:
    """Whatever the files are called; the other fields are those of the JSON body, as texts."""
    parts = [
        ("prompt", (None, "What is it?")),
        ("image_url", (None, "http://pictures.example/blue.png")),
        ("files", ("red.txt", RED)),
        ("files", ("three.pdf", PDF)),
        ("pages", (None, "2")),
        ("max_output_tokens", (None, "7")),
        ("stream", (None, "false")),
    ]
    reply = await vision.post("/vision", files=parts)
    assert reply.json()["text"] == "You said: What is it?", reply.text
    assert shown(server)[:2] == [BLUE, RED]
    assert len(shown(server)) == 3
    assert server.bodies[-1]["generationConfig"]["maxOutputTokens"] == 7


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("parts", "pointer"),
    [
        ([("prompt", (None, "?"))], "/files"),
        ([("files", ("a.png", RED))], "/prompt"),
        ([("files", ("a.png", RED)), ("prompt", (None, "?")), ("prompt", (None, "?"))], "/prompt"),
        ([("files", ("a.png", RED)), ("prompt", (None, "?")), ("size", (None, "?"))], "/size"),
        ([("files", ("a.png", RED)), ("prompt", (None, "?")), ("temperature", (None, "hot"))], "/temperature"),
        ([("files", ("a.png", RED)), ("files", ("b.png", RED[:50])), ("prompt", (None, "?"))], "/files/1"),
        ([("image_url", (None, "http://10.0.0.1/a.png")), ("prompt", (None, "?"))], "/image_url/0"),
        ([*[("files", ("a.png", RED))] * (MAX_PICTURES + 1), ("prompt", (None, "?"))], f"/files/{MAX_PICTURES}"),
    ],
)
async def test_a_bad_form_is_pointed_at(
    vision: httpx.AsyncClient, server: GeminiServer, web: Web, parts: list[Any], pointer: str, stream: bool
) -> None:
    """400 with the field, and neither the model nor an address is called."""
    response = await vision.post("/vision", files=[*parts, *([("stream", (None, "true"))] if stream else [])])
    assert response.status_code == 400
    assert [problem["pointer"] for problem in response.json()["errors"]] == [pointer]
    assert (server.bodies, web.connected) == ([], [])


@pytest.mark.parametrize("stream", [False, True])
async def test_openais_chats_show_pictures_by_the_same_rules(
    vision: httpx.AsyncClient, server: GeminiServer, web: Web, stream: bool
) -> None:
    """From URLs, `data:` URLs and of several turns: each stands in its own turn."""
    turns = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://pictures.example/blue.png"}}]},
        {"role": "assistant", "content": "It is blue."},
        {"role": "user", "content": [{"type": "image_url", "image_url": f"data:image/gif;base64,{ENCODED}"}]},
        {"role": "user", "content": "And this?"},
    ]
    body = {"model": "flash", "messages": turns, "stream": stream}
    assert ["You", "said:", "And", "this?"][-1] in (await vision.post("/v1/chat/completions", json=body)).text
    assert shown(server) == [RED]
    earlier = server.bodies[-1]["contents"][0]["parts"][0]["inlineData"]["data"]
    assert base64.urlsafe_b64decode(earlier) == BLUE


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "url",
    ["http://inside.example/a.png", "http://127.0.0.1/", f"data:image/png;base64,{ENCODED[:60]}", "file:///etc/passwd"],
)
async def test_openais_chats_refuse_pictures_by_the_same_rules(
    vision: httpx.AsyncClient, server: GeminiServer, web: Web, url: str, stream: bool
) -> None:
    """400 with the part in `param` (where pings came first, the stream says it); nothing is connected to."""
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    body = {"model": "flash", "messages": [{"role": "user", "content": content}], "stream": stream}
    response = await vision.post("/v1/chat/completions", json=body)
    assert response.status_code == 400 or stream
    assert '"param":"messages.0.content.1.image_url"' in response.text
    assert (server.bodies, web.connected) == ([], [])


async def test_it_streams(vision: httpx.AsyncClient) -> None:
    """The events of /chat, and `done` with the same timings."""
    body = {"prompt": "What is it?", "image": ENCODED, "stream": True}
    events = read_events((await vision.post("/vision", json=body)).text)
    assert "".join(data["text"] for _, name, data in events if name == "delta") == "You said: What is it?"
    assert events[-1][2]["timings_ms"].keys() == {"images", "first_token", "vision", "total"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({}, "/image_url"),
        ({"image": ENCODED, "image_url": "http://pictures.example/blue.png"}, "/image_url"),
        ({"images": []}, "/images"),
        ({"images": [ENCODED] * (MAX_PICTURES + 1)}, "/images"),
        ({"image": ENCODED, "pages": "0"}, "/pages"),
        ({"image": ENCODED, "pages": "1-"}, "/pages"),
        ({"image": ENCODED, "pages": "3-1"}, "/pages"),
        ({"image": ENCODED, "pages": "1-99999999999"}, "/pages"),
        ({"image": DOCUMENT, "pages": "4"}, "/image"),
        ({"image_url": "http://inside.example/blue.png"}, "/image_url"),
        ({"image_url": "http://169.254.169.254/latest/meta-data"}, "/image_url"),
        ({"image": "file:///etc/passwd"}, "/image"),
        ({"image": "not base64!"}, "/image"),
        ({"images": [ENCODED, base64.b64encode(RED[:50]).decode()]}, "/images/1"),
        ({"images": [ENCODED, "http://127.0.0.1/"]}, "/images/1"),
        ({"image": base64.b64encode(b"<svg/>").decode()}, "/image"),
    ],
)
async def test_a_bad_picture_is_pointed_at(
    vision: httpx.AsyncClient, server: GeminiServer, web: Web, given: dict[str, Any], pointer: str, stream: bool
) -> None:
    """400 with the field, streamed or not, and neither the model nor the address is called."""
    response = await vision.post("/vision", json={"prompt": "What is it?", "stream": stream, **given})
    assert response.status_code == 400
    assert [problem["pointer"] for problem in response.json()["errors"]] == [pointer]
    assert (server.bodies, web.connected) == ([], [])


@pytest.mark.parametrize("backend", ["extractive", "none", "gpt"])
async def test_nothing_is_fetched_for_a_backend_that_cannot_see(
    vision: httpx.AsyncClient, web: Web, backend: str
) -> None:
    """422 before the URL is looked at."""
    body = {"prompt": "What is it?", "image_url": "http://pictures.example/blue.png", "backend": backend}
    assert (await vision.post("/vision", json=body)).status_code == 422
    assert web.resolved == []


async def test_openai_style_servers_get_data_urls(tmp_path: Path) -> None:
    """The picture is a `data:` URL of its bytes."""
    async with OpenAIServer() as server:
        async with client_of(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
            response = await client.post("/vision", json={"prompt": "What is it?", "image": ENCODED})
        assert response.status_code == 200, response.text
        assert f"data:image/png;base64,{ENCODED}" in json.dumps(server.bodies())
