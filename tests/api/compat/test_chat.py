"""POST /v1/chat/completions."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.config.settings import Settings
from app.domain import AnswerDone, CitationMade, SourcesFound, TextDelta, Turn, Usage
from app.errors import Overloaded, Refused, UpstreamRateLimited, UpstreamTimeout
from indexing.errors import EmbedderMismatch
from tests.api.compat import webui_prompts
from tests.api.test_answer import CITATION
from tests.fakes.answerer import DONE, ScriptedAnswerer
from tests.fakes.answering import hit
from tests.fakes.chat_chunks import deltas, read_chunks
from tests.fakes.faults import Fault
from tests.fakes.models import client_of, openai_style, services_for
from tests.fakes.openai_server import SECRET, OpenAIServer
from tests.unit.indexing.readers.test_pictures import saved, solid

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
HIT = hit("Yes.", 0, title="The Handbook")
ANSWER = msgspec.structs.replace(
    DONE.answer,
    answer="Yes [1].",
    citations=(msgspec.structs.replace(CITATION, result_id=HIT.id),),
    results=(HIT,),
    usage=Usage(requests=2, input_tokens=70, cached_tokens=30, output_tokens=7, cost_usd=0.25),
)
SCRIPT = (
    SourcesFound((HIT,)),
    TextDelta("Ye"),
    TextDelta("s [1]."),
    CitationMade(ANSWER.citations[0]),
    AnswerDone(ANSWER),
)
REFUSAL = msgspec.structs.replace(DONE.answer, answer="No idea.", answerable=False, abstain_reason="no_results")


def ask(text: str = "Does it?", model: str = "winnow", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture
async def models(tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, OpenAIServer]]:
    """A client of a service with one backend, called "gemma", whose model is "tiny"."""
    server = OpenAIServer(api_key="k")
    async with server, client_of(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
        yield client, server


def asked_of(server: OpenAIServer) -> Any:
    """The last request for a reply that the model got; probes ask for a token or two."""
    return [body for body in server.bodies() if (body.get("max_tokens") or 0) > 16][-1]


async def test_an_answer_is_a_completion(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """OpenAI's shape, all tokens of all calls, citations as annotations, and the rest of it under `winnow`."""
    answerer.script = SCRIPT
    reply = (await client.post(PATH, json=ask(model="winnow:handbook@gemma"))).json()
    [choice] = reply["choices"]
    assert (reply["object"], reply["model"], choice["finish_reason"]) == (
        "chat.completion",
        "winnow:handbook@gemma",
        "stop",
    )
    assert reply["usage"] == {
        "prompt_tokens": 70,
        "completion_tokens": 7,
        "total_tokens": 77,
        "prompt_tokens_details": {"cached_tokens": 30},
    }
    message = choice["message"]
    assert (message["role"], message["content"]) == ("assistant", "Yes [1].")
    assert message["annotations"] == [
        {
            "type": "url_citation",
            "url_citation": {
                "url": "http://localhost/documents/d?collection=handbook&quote=0,3#char=0,3",
                "title": "The Handbook",
                "start_index": 0,
                "end_index": 4,
            },
        }
    ]
    assert message["winnow"]["citations"][0]["quote"] == "Yes"
    assert message["winnow"]["usage"]["cost_usd"] == 0.25
    assert (message["winnow"]["answerable"], message["winnow"]["abstain_reason"]) == (True, None)
    [question] = answerer.questions
    assert (question.search.collection, question.search.backend) == ("handbook", "gemma")


async def test_a_stream_says_the_same(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """The concatenated deltas are the content; annotations, reason and `winnow` are those of the whole completion."""
    answerer.script = SCRIPT
    whole = (await client.post(PATH, json=ask())).json()["choices"][0]
    response = await client.post(PATH, json=ask(stream=True))
    chunks = read_chunks(response.text)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "".join(deltas(chunks)) == whole["message"]["content"]
    assert [one for some in deltas(chunks, "annotations") for one in some] == whole["message"]["annotations"]
    assert deltas(chunks, "winnow") == [whole["message"]["winnow"]]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert [delta for delta in deltas(chunks, "role")] == ["assistant"]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1


@pytest.mark.parametrize(("options", "times"), [(None, 0), ({}, 0), ({"include_usage": True}, 1)])
async def test_usage_is_told_once_and_when_asked_for(
    client: httpx.AsyncClient, answerer: ScriptedAnswerer, options: dict[str, Any] | None, times: int
) -> None:
    """In a last chunk without choices, as OpenAI does it; RAGFlow adds up what it finds."""
    answerer.script = SCRIPT
    chunks = read_chunks((await client.post(PATH, json=ask(stream=True, stream_options=options))).text)
    told = [chunk for chunk in chunks if chunk.get("usage")]
    assert [(chunk["choices"], chunk["usage"]["total_tokens"]) for chunk in told] == [([], 77)] * times
    assert all(chunk["choices"] for chunk in chunks if chunk not in told)


async def test_a_refusal_is_content(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """Who abstains says so in words, stops, and tells programs why."""
    answerer.script = (TextDelta("No idea."), AnswerDone(REFUSAL))
    [choice] = (await client.post(PATH, json=ask())).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("No idea.", "stop")
    assert choice["message"]["winnow"]["abstain_reason"] == "no_results"
    assert choice["message"]["annotations"] == []


async def test_a_conversation_becomes_a_question(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """The last user message is asked, what was said before goes along, and the system's words are instructions.

    Parts are joined; tools' messages, empty ones and unknown fields are passed over; what is too much is cut.
    """
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": "x" * 5000},
        {"role": "user", "content": "Is there dental cover?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
        {"role": "assistant", "content": "There is [1]."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And from"},
                {"type": "image_url", "image_url": {"url": "https://site.example/a.png"}},
                {"type": "text", "text": "when?"},
            ],
        },
        {"role": "assistant", "content": "From"},
    ]
    body = {"model": "winnow", "messages": messages, "max_tokens": 99_999, "temperature": 0.9, "drop_params": True}
    assert (await client.post(PATH, json=body)).status_code == 200
    [question] = answerer.questions
    assert question.search.text == "And from\nwhen?"
    assert question.messages == (Turn("user", "Is there dental cover?"), Turn("assistant", "There is [1]."))
    assert (question.instructions[:11], len(question.instructions)) == ("Be brief.\n\n", 4000)
    assert (question.max_output_tokens, question.temperature) == (8192, 0.9)


@pytest.mark.parametrize(
    ("model", "collection", "backend"),
    [
        ("winnow", "default", None),
        (" winnow ", "default", None),
        ("winnow:manuals", "manuals", None),
        ("winnow@extractive", "default", "extractive"),
        ("winnow:manuals@auto", "manuals", "auto"),
        ("winnow:", "default", None),
    ],
)
async def test_the_model_names_collection_and_backend(
    client: httpx.AsyncClient, answerer: ScriptedAnswerer, model: str, collection: str, backend: str | None
) -> None:
    """Both parts may be left out."""
    assert (await client.post(PATH, json=ask(model=model))).status_code == 200
    [question] = answerer.questions
    assert (question.search.collection, question.search.backend) == (collection, backend)


@pytest.mark.parametrize("model", ["gpt-4o", "winnow-rerank", "winnow-embed", "winnowing", "extractive", ""])
async def test_another_model_is_not_there(client: httpx.AsyncClient, model: str) -> None:
    """404 model_not_found in OpenAI's shape, which says what there is."""
    response = await client.post(PATH, json=ask(model=model))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "winnow:COLLECTION" in error["message"]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hello"}]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages.0.content"),
        ({"temperature": 3}, "temperature"),
        ({"n": 2}, "n"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
    ],
)
async def test_what_cannot_be_done_is_said(client: httpx.AsyncClient, wrong: dict[str, Any], param: str) -> None:
    """400 that names the field; nothing else is done in its stead."""
    response = await client.post(PATH, json=ask() | wrong)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    "harmless",
    [
        {"n": 1, "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
        {"n": None, "stop": None, "max_tokens": None, "temperature": None, "stream": None, "stream_options": None},
        {"temperature": "0.7", "stream": "false", "max_completion_tokens": "20"},
        {"max_tokens": -1, "stop": ["", "END"]},
        {"response_format": {"type": "text"}, "logprobs": True, "top_p": 0.1, "user": "u", "metadata": {"a": "b"}},
    ],
)
async def test_what_does_not_matter_is_ignored(client: httpx.AsyncClient, harmless: dict[str, Any]) -> None:
    """Nulls, numbers in quotes, tools that need not be called, and whatever else clients send."""
    assert (await client.post(PATH, json=ask() | harmless)).status_code == 200


async def test_an_early_failure_keeps_its_status(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """What fails before the first word is no stream, although the sources were found."""
    answerer.script = (SourcesFound((HIT,)), UpstreamRateLimited("g", "g wants us to wait", retry_after=6.2))
    response = await client.post(PATH, json=ask(stream=True))
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert response.json()["error"]["code"] == "upstream_rate_limited"
    assert "x-should-retry" not in response.headers


async def test_what_stays_as_it_is_need_not_be_asked_again(
    client: httpx.AsyncClient, answerer: ScriptedAnswerer
) -> None:
    """OpenAI's SDK asks again after 409 and 5xx unless it is told that this is of no use."""
    for exc, status in ((UpstreamRateLimited("g", "spent", quota="day"), 503), (EmbedderMismatch("rebuild it"), 409)):
        answerer.script = (exc,)
        response = await client.post(PATH, json=ask())
        assert (response.status_code, response.headers["x-should-retry"]) == (status, "false")


async def test_a_late_failure_is_an_error_chunk(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """It ends the stream in OpenAI's shape, and then the stream is done."""
    answerer.script = (SourcesFound((HIT,)), TextDelta("Ye"), UpstreamTimeout("g", "g did not answer in time"))
    response = await client.post(PATH, json=ask(stream=True))
    *said, failed = read_chunks(response.text)
    assert (response.status_code, deltas(said)) == (200, ["Ye"])
    assert failed["error"] == {
        "message": "g did not answer in time",
        "type": "server_error",
        "param": None,
        "code": "upstream_timeout",
    }


async def test_silence_is_bridged_by_pings(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """Comments before the first word, too: proxies do not wait for a slow model; no delta is lost over it."""
    answerer.script = (SourcesFound((HIT,)), 0.25, *SCRIPT[1:2], 0.25, *SCRIPT[2:])
    text = (await client.post(PATH, json=ask(stream=True))).text
    assert text.startswith(": ping\n\n")
    assert text.count(": ping\n\n") >= 3
    assert "".join(deltas(read_chunks(text))) == "Yes [1]."


async def test_a_programmers_error_tells_nothing(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """Neither whole nor in a stream."""
    for stream, said in ((False, ()), (True, (TextDelta("Ye"),))):
        answerer.script = (*said, ValueError("the secret is swordfish"))
        response = await client.post(PATH, json=ask(stream=stream))
        assert "swordfish" not in response.text
        assert "internal_error" in response.text


async def test_links_begin_with_the_public_address(settings: Settings, tmp_path: Path) -> None:
    """Where programs reach the service under another name than users' browsers, the setting says which."""
    told = msgspec.structs.replace(settings.service, public_url="https://rag.example/winnow/")
    services = services_for(tmp_path, {})
    services.settings = msgspec.structs.replace(services.settings, service=told)
    services.answerer = ScriptedAnswerer(SCRIPT)
    async with client_of(services) as client:
        reply = (await client.post(PATH, json=ask())).json()
    url = reply["choices"][0]["message"]["annotations"][0]["url_citation"]["url"]
    assert url.startswith("https://rag.example/winnow/documents/d?")


@pytest.mark.parametrize("model", ["tiny", "gemma", "auto"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_backends_model_is_asked_straight(
    models: tuple[httpx.AsyncClient, OpenAIServer], model: str, stream: bool
) -> None:
    """By its id or its backend's name; the conversation goes through, and what it cost is told."""
    client, server = models
    body = ask(model=model, stream=stream, stream_options={"include_usage": True}, max_tokens=100, temperature=0.5)
    body["messages"].insert(0, {"role": "system", "content": "Be brief."})
    response = await client.post(PATH, json=body)
    if stream:
        chunks = read_chunks(response.text)
        content, usage = "".join(deltas(chunks)), chunks[-1]["usage"]
        [about] = deltas(chunks, "winnow")
    else:
        content, usage = response.json()["choices"][0]["message"]["content"], response.json()["usage"]
        about = response.json()["choices"][0]["message"]["winnow"]
    assert content == server.model.answer
    assert about["backend"]["used"] == "gemma"
    assert usage["completion_tokens"] == about["usage"]["output_tokens"] > 0
    asked = asked_of(server)
    assert [turn["role"] for turn in asked["messages"]] == ["system", "user"]
    assert (asked["max_tokens"], asked["temperature"]) == (100, 0.5)


async def test_what_a_model_can_be_told_goes_through(models: tuple[httpx.AsyncClient, OpenAIServer]) -> None:
    """Stops, a seed, a schema, pictures; the temperature is OpenAI's default where none is given."""
    client, server = models
    picture = base64.b64encode(saved(solid(), "PNG")).decode()
    body = ask(
        model="tiny",
        stop="END",
        seed=7,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    )
    body["messages"] = [
        {"role": "user", "content": "Look."},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}]},
    ]
    assert (await client.post(PATH, json=body)).status_code == 200
    asked = asked_of(server)
    assert (asked["seed"], asked["temperature"], asked["stop"][0]) == (7, 1.0, "END")
    assert asked["response_format"]["json_schema"]["schema"] == {"type": "object"}
    [turn] = asked["messages"]
    assert [part["type"] for part in turn["content"]] == ["image_url", "text"]


@pytest.mark.parametrize("url", ["data:image/gif;base64,AA==", "data:image/png;base64,!", "data:image/png,x"])
async def test_what_is_no_picture_is_named(models: tuple[httpx.AsyncClient, OpenAIServer], url: str) -> None:
    """400, with the part in `param`."""
    body = ask(model="tiny")
    body["messages"][0]["content"] = [{"type": "image_url", "image_url": {"url": url}}]
    response = await models[0].post(PATH, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages.0.content.0.image_url")


async def test_a_model_is_not_asked_to_go_on(models: tuple[httpx.AsyncClient, OpenAIServer]) -> None:
    """A conversation that does not end with the user is refused before any call."""
    body = ask(model="tiny")
    body["messages"].append({"role": "assistant", "content": "Well,"})
    assert (await models[0].post(PATH, json=body)).status_code == 400


async def test_a_cut_reply_says_so(models: tuple[httpx.AsyncClient, OpenAIServer]) -> None:
    """finish_reason length, streamed or not."""
    client, _ = models
    whole = (await client.post(PATH, json=ask(model="tiny", max_tokens=2))).json()
    chunks = read_chunks((await client.post(PATH, json=ask(model="tiny", max_tokens=2, stream=True))).text)
    assert whole["choices"][0]["finish_reason"] == chunks[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("prompt", [*webui_prompts.ALL, webui_prompts.WITH_SOURCES])
async def test_open_webuis_background_tasks_go_to_the_model(
    models: tuple[httpx.AsyncClient, OpenAIServer], prompt: str
) -> None:
    """No search, no citations: the index is empty here, and would be missed."""
    client, server = models
    reply = (await client.post(PATH, json=ask(prompt, max_tokens=1000))).json()
    assert reply["choices"][0]["message"]["content"] == server.model.answer
    assert asked_of(server)["messages"][-1]["content"] == prompt


@pytest.mark.parametrize("stream", [False, True])
async def test_without_a_model_a_background_task_is_no_error(
    client: httpx.AsyncClient, answerer: ScriptedAnswerer, stream: bool
) -> None:
    """Open WebUI gets a title from the user's own words, and the answerer is left alone."""
    response = await client.post(PATH, json=ask(webui_prompts.TITLE, stream=stream))
    content = (
        "".join(deltas(read_chunks(response.text))) if stream else response.json()["choices"][0]["message"]["content"]
    )
    assert content == '{"title": "When does the dental cover of…"}'
    assert answerer.questions == []


@pytest.mark.parametrize(
    ("exc", "status"),
    [(Refused("g", "declined"), 400), (Overloaded("busy"), 503), (UpstreamTimeout("g", "late"), 504)],
)
async def test_statuses_are_those_that_clients_act_on(
    client: httpx.AsyncClient, answerer: ScriptedAnswerer, exc: Exception, status: int
) -> None:
    """The same streamed or not."""
    answerer.script = (exc,)
    for stream in (False, True):
        assert (await client.post(PATH, json=ask(stream=stream))).status_code == status


@pytest.mark.parametrize("fault", [Fault.ERROR_IN_STREAM, Fault.DROPPED_MIDWAY, Fault.TRUNCATED_STREAM])
async def test_a_model_that_breaks_off_is_an_error_chunk(
    models: tuple[httpx.AsyncClient, OpenAIServer], fault: Fault
) -> None:
    """After its first words; the provider's own text is not repeated."""
    client, server = models
    await client.post(PATH, json=ask(model="tiny"))
    server.expect(fault)
    response = await client.post(PATH, json=ask(model="tiny", stream=True))
    *said, failed = read_chunks(response.text)
    assert deltas(said)
    assert failed["error"]["type"] == "server_error"
    assert SECRET not in response.text
