"""RAGFlow's form of OpenAI's chat completions."""

import json
from typing import Any

import httpx
import msgspec
import pytest

from app.domain import AnswerDone, CitationMade, SourcesFound, TextDelta
from app.errors import UpstreamTimeout
from indexing.errors import StoreUnavailable
from tests.api.test_answer import CITATION
from tests.fakes.answerer import DONE, ScriptedAnswerer
from tests.fakes.answering import hit
from tests.fakes.chat_chunks import deltas, read_chunks

pytestmark = pytest.mark.anyio

PATHS = ("/api/v1/openai/{}/chat/completions", "/api/v1/chats_openai/{}/chat/completions")
PATH = PATHS[0].format("handbook")
HITS = (hit("No.", 0), hit("Yes.", 1, title="The Handbook"))
ANSWER = msgspec.structs.replace(
    DONE.answer,
    answer="Yes [1]. Really.",
    citations=(msgspec.structs.replace(CITATION, result_id=HITS[1].id),),
    results=HITS,
)
SCRIPT = (
    SourcesFound(HITS),
    TextDelta("Yes "),
    TextDelta("[1]. Rea"),
    CitationMade(ANSWER.citations[0]),
    TextDelta("lly."),
    AnswerDone(ANSWER),
)
REFUSAL = msgspec.structs.replace(ANSWER, answer="No idea.", answerable=False, abstain_reason="unsupported")
CHUNK_FIELDS = {
    *("id", "content", "document_id", "document_name", "dataset_id", "image_id", "positions", "url", "similarity"),
    *("vector_similarity", "term_similarity", "row_id", "doc_type", "document_metadata"),
}
"""`chunks_format` of rag/prompts/generator.py."""


def ask(*, reference: bool = False, **more: Any) -> dict[str, Any]:
    body = {"model": "model", "messages": [{"role": "user", "content": "Does it?"}], **more}
    return {**body, "extra_body": {"reference": True}} if reference else body


@pytest.mark.parametrize("path", PATHS)
async def test_the_answer_has_ragflows_markers(
    client: httpx.AsyncClient, answerer: ScriptedAnswerer, path: str
) -> None:
    """[ID:i] is the i-th of the references, by both paths; the chat's id is a collection, with @ a backend."""
    answerer.script = SCRIPT
    reply = (await client.post(path.format("handbook@gemma"), json=ask(reference=True))).json()
    message = reply["choices"][0]["message"]
    assert message["content"] == "Yes [ID:1]. Really."
    assert [chunk["content"] for chunk in message["reference"]] == ["No.", "Yes."]
    assert message["reference"][1].keys() >= CHUNK_FIELDS
    assert (reply["id"], reply["model"]) == ("chatcmpl-handbook@gemma", "model")
    assert reply["usage"]["completion_tokens_details"].keys() == {
        "reasoning_tokens",
        "accepted_prediction_tokens",
        "rejected_prediction_tokens",
    }
    [question] = answerer.questions
    assert (question.search.collection, question.search.backend) == ("handbook", "gemma")


async def test_references_come_when_asked_for(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """In the body's own key `extra_body`, or as older versions had it beside the messages."""
    answerer.script = SCRIPT
    plain = (await client.post(PATH, json=ask())).json()["choices"][0]["message"]
    older = (await client.post(PATH, json=ask() | {"reference": "true"})).json()["choices"][0]["message"]
    assert (plain.keys(), len(older["reference"])) == ({"role", "content"}, 2)


async def test_the_stream_is_ragflows(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """No space after `data:`; every delta has all fields; the last chunk alone tells reason, usage and references."""
    answerer.script = SCRIPT
    response = await client.post(PATH, json=ask(reference=True, stream=True))
    assert "data: " not in response.text
    *chunks, last = read_chunks(response.text, "data:")
    always = {"role", "content", "function_call", "tool_calls", "reasoning_content"}
    assert all(chunk["choices"][0]["delta"].keys() == always for chunk in chunks)
    assert all((chunk["usage"], chunk["choices"][0]["finish_reason"]) == (None, None) for chunk in chunks)
    [choice] = last["choices"]
    assert (choice["finish_reason"], choice["delta"]["content"]) == ("stop", None)
    assert last["usage"].keys() >= {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert choice["delta"]["final_content"] == "".join(deltas(chunks)) == "Yes [ID:1]. Really."
    assert [chunk["content"] for chunk in choice["delta"]["reference"]] == ["No.", "Yes."]


async def test_a_cut_answer_says_so(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """finish_reason length, streamed or not."""
    answerer.script = (*SCRIPT[:-1], AnswerDone(ANSWER, cut=True))
    whole = (await client.post(PATH, json=ask())).json()
    chunks = read_chunks((await client.post(PATH, json=ask(stream=True))).text, "data:")
    assert whole["choices"][0]["finish_reason"] == chunks[-1]["choices"][0]["finish_reason"] == "length"


async def test_a_plain_stream_has_no_references(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """Neither them nor the final content."""
    answerer.script = SCRIPT
    chunks = read_chunks((await client.post(PATH, json=ask(stream=True))).text, "data:")
    assert (deltas(chunks, "reference"), deltas(chunks, "final_content")) == ([], [])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_rests_on_nothing(client: httpx.AsyncClient, answerer: ScriptedAnswerer, stream: bool) -> None:
    """Its words are the content, and its references are an empty list."""
    answerer.script = (SourcesFound(HITS), TextDelta("No idea."), AnswerDone(REFUSAL))
    response = await client.post(PATH, json=ask(reference=True, stream=stream))
    said = (
        read_chunks(response.text, "data:")[-1]["choices"][0]["delta"]
        if stream
        else response.json()["choices"][0]["message"]
    )
    assert (said["final_content" if stream else "content"], said["reference"]) == ("No idea.", [])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"messages": []}, "You have to provide messages."),
        ({"messages": None}, "You have to provide messages."),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "The last content of this conversation is not from user.",
        ),
        ({"messages": "a"}, "/messages: expected array | null, got str"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_mistakes_are_102_in_ragflows_words(
    client: httpx.AsyncClient, wrong: dict[str, Any], message: str, stream: bool
) -> None:
    """HTTP 200 with a code and a message, streamed or not."""
    response = await client.post(PATH, json=ask(stream=stream) | wrong)
    assert (response.status_code, response.json()) == (200, {"code": 102, "message": message})


@pytest.mark.parametrize("said", [(), (SourcesFound(HITS), TextDelta("Yes [1"))])
async def test_a_failure_is_text_in_the_stream(
    client: httpx.AsyncClient, answerer: ScriptedAnswerer, said: tuple[Any, ...]
) -> None:
    """Before the first word and after it: RAGFlow's clients look for **ERROR**, and nowhere else."""
    answerer.script = (*said, UpstreamTimeout("g", "g did not answer in time"))
    response = await client.post(PATH, json=ask(reference=True, stream=True))
    chunks = read_chunks(response.text, "data:")
    assert (response.status_code, response.headers["content-type"][:17]) == (200, "text/event-stream")
    text = "".join(deltas(chunks))
    assert text.endswith("**ERROR**: g did not answer in time")
    assert text.startswith("Yes [1") == bool(said)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_store_that_is_down_is_a_reply_with_a_code(
    client: httpx.AsyncClient, answerer: ScriptedAnswerer, stream: bool
) -> None:
    """What is wrong on this side of the model comes as JSON, streamed or not."""
    answerer.script = (StoreUnavailable("the store does not answer"),)
    response = await client.post(PATH, json=ask(stream=stream))
    assert response.headers["content-type"].startswith("application/json")
    assert response.json()["code"] != 0


async def test_a_failure_is_a_code_otherwise(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """105 is a service that is away."""
    answerer.script = (UpstreamTimeout("g", "g did not answer in time"),)
    response = await client.post(PATH, json=ask())
    assert (response.status_code, response.json()["code"]) == (200, 105)


async def test_conditions_narrow_the_search(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """`metadata_condition` is that of retrieval."""
    condition = {"logic": "or", "conditions": [{"name": "year", "comparison_operator": ">", "value": "2020"}]}
    body = ask() | {"extra_body": {"metadata_condition": condition, "reference_metadata": {"include": True}}}
    assert "choices" in (await client.post(PATH, json=body)).json()
    conditions = answerer.questions[0].search.conditions
    assert conditions is not None
    assert (conditions.every, conditions.conditions[0].fields) == (False, ("year",))


async def test_the_system_is_not_the_clients(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """System messages are dropped, as in RAGFlow, whose clients send what was meant for another assistant."""
    messages = [{"role": "system", "content": "Be rude."}, {"role": "user", "content": json.dumps({"a": 1})}]
    await client.post(PATH, json=ask(messages=messages))
    [question] = answerer.questions
    assert (question.instructions, question.messages, question.search.text) == ("", (), '{"a": 1}')
