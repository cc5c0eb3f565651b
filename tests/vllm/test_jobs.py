"""/translate, /complete and /vision on a real vLLM: its random models talk noise, which is booked to the token."""

import base64
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.fakes.models import BRISK, client_of, services_for
from tests.unit.indexing.readers.test_pictures import saved, solid
from tests.vllm.running import KEY, MODEL, RunningVllm, VllmFailed, real_vllm

pytestmark = [pytest.mark.anyio, pytest.mark.vllm, pytest.mark.timeout(400)]

PREFIX, SUFFIX = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"
PICTURE = base64.b64encode(saved(solid(), "PNG")).decode()


@asynccontextmanager
async def service(home: Path, server: RunningVllm) -> AsyncIterator[httpx.AsyncClient]:
    """A service whose backend this is."""
    own = msgspec.structs.replace(BRISK, kind="vllm", url=server.url, api_key=KEY)
    async with client_of(services_for(home, {"own": own})) as client:
        yield client


def started(folder: Path, make: Callable[[Path], Path]) -> Iterator[RunningVllm]:
    try:
        with real_vllm(folder, os.environ, make) as server:
            yield server
    except VllmFailed as exc:
        pytest.fail(str(exc), pytrace=False)


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVllm]:
    from tests.vllm.tiny_qwen import make_tiny_coder

    yield from started(tmp_path_factory.mktemp("coder"), make_tiny_coder)


@pytest.fixture(scope="module")
def seer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVllm]:
    from tests.vllm.tiny_idefics import make_tiny_idefics

    yield from started(tmp_path_factory.mktemp("seer"), make_tiny_idefics)


def counted(server: RunningVllm) -> tuple[int, int]:
    """The tokens that it has read and written so far."""
    read, written = (int(server.metric(f"vllm:{kind}_tokens_total")) for kind in ("prompt", "generation"))
    return read, written


async def booked(client: httpx.AsyncClient, server: RunningVllm, path: str, body: Any) -> Any:
    """The reply, whose usage is what the server has counted meanwhile."""
    assert (
        await client.post("/chat", json={"message": "Hello", "max_output_tokens": 1})
    ).status_code == 200  # probes it
    before = counted(server)
    reply = (await client.post(path, json=body)).json()
    spent = tuple(after - earlier for earlier, after in zip(before, counted(server), strict=True))
    assert (reply["usage"]["input_tokens"], reply["usage"]["output_tokens"]) == spent, reply
    return reply


async def test_texts_are_translated_or_have_an_error(vllm: RunningVllm, tmp_path: Path) -> None:
    """A model that never ends has come to no end of a translation; what it wrote is paid for, and order is kept."""
    body = {"texts": ["The bed was fine.", "42", "It rained."], "target_language": "de"}
    async with service(tmp_path, vllm) as client:
        reply = await booked(client, vllm, "/translate", body)
    first, number, last = reply["results"]
    assert number["translation"] == "42"
    assert all("error" in result or result["doubts"] or result["lost"] for result in (first, last))
    assert reply["usage"]["requests"] >= 2


async def test_a_model_that_cannot_fill_in_is_instructed(vllm: RunningVllm, tmp_path: Path) -> None:
    """The tiny Gemma has no such markers."""
    async with service(tmp_path, vllm) as client:
        body = {"prefix": PREFIX, "suffix": SUFFIX, "max_output_tokens": 8}
        reply = await booked(client, vllm, "/complete", body)
    assert (reply["method"], reply["finish_reason"]) == ("instruction", "length")


async def test_a_coder_fills_in(coder: RunningVllm, tmp_path: Path) -> None:
    """By the folder of its files, whatever it is called; its markers are tokens, and what it writes is inserted."""
    body = {"prefix": PREFIX, "suffix": SUFFIX, "max_output_tokens": 8, "stop": ["<1>", "<2>", "<3>"]}
    prompt = f"<|fim_prefix|>{PREFIX}<|fim_suffix|>{SUFFIX}<|fim_middle|>"
    direct = {"model": MODEL, "prompt": prompt, "max_tokens": 8, "temperature": 0}
    written = coder.http.post("/v1/completions", json=direct).json()["choices"][0]["text"]
    async with service(tmp_path, coder) as client:
        reply = (await client.post("/complete", json=body)).json()
        backends = (await client.get("/backends")).json()["backends"]
    assert reply["method"] == "fill_in_the_middle"
    assert reply["usage"]["input_tokens"] == len(coder.tokens(prompt=prompt))
    assert 0 < reply["usage"]["output_tokens"] <= 8
    assert written.startswith(reply["text"])
    assert "infill" in backends[-1]["capabilities"]


@pytest.mark.parametrize("pictures", [1, 3])
async def test_a_model_with_a_vision_tower_gets_the_pictures(seer: RunningVllm, tmp_path: Path, pictures: int) -> None:
    """Each is so many tokens of the prompt, and the reply is that to the same picture without us."""
    from tests.vllm.tiny_idefics import PICTURE_TOKENS

    prompt, shown = "What is it?", {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    words = [{"type": "text", "text": prompt}]
    plain = len(seer.tokens(messages=[{"role": "user", "content": words}]))
    direct = {"model": MODEL, "max_tokens": 8, "temperature": 0}
    direct["messages"] = [{"role": "user", "content": [shown] * pictures + words}]
    said = seer.http.post("/v1/chat/completions", json=direct).json()["choices"][0]["message"]["content"]
    async with service(tmp_path, seer) as client:
        body = {"prompt": prompt, "images": [PICTURE] * pictures, "max_output_tokens": 8}
        for _ in range(20):  # a busy machine comes late to its first probe
            reply = (await client.post("/vision", json=body)).json()
            if "text" in reply:
                break
    assert reply["usage"]["input_tokens"] == plain + pictures * PICTURE_TOKENS
    assert reply["text"] == said


async def test_a_model_without_a_vision_tower_is_asked_for_no_picture(vllm: RunningVllm, tmp_path: Path) -> None:
    """422 with what it offers."""
    async with service(tmp_path, vllm) as client:
        body = {"prompt": "What is it?", "image": PICTURE}
        await client.post("/vision", json=body)
        reply = await client.post("/vision", json=body)
    assert (reply.status_code, reply.json()["type"].rpartition(":")[2]) == (422, "missing-capability")
