"""Gemini on good days: what is asked, and what is made of the replies."""

import json
import logging
from typing import Any, Literal

import pytest

from app.backends.base import ChatRequest, Message, Reply
from app.domain import Image, TokenCount
from app.errors import InvalidRequest, Refused, UpstreamBadReply, UpstreamError
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import MODEL, Canned, GeminiServer, Said
from tests.unit.app.backends.gemini.bench import PLENTY_S, asking, bench, failure, streamed

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {"passage_grade": {"type": "integer", "minimum": 1}, "kind": {"enum": ["a", "b"]}},
    "required": ["passage_grade"],
}


async def test_a_reply_has_text_ending_tokens_and_the_servers_model() -> None:
    """A completion tells what was said, why it ended, what it cost, and which version of the model said it."""
    async with bench() as b:
        reply = await b.gemini.complete(asking("Good morning all"), PLENTY_S)
        assert reply == Reply(
            text="You said: Good morning all",
            finish_reason="stop",
            tokens=TokenCount(input=3, output=5),
            model=f"{MODEL}-001",
        )


async def test_a_conversation_arrives_as_gemini_wants_it() -> None:
    """The system's turn stands apart, the assistant is "model", pictures come before the text."""
    picture = Image(data=b"\x89PNG\xff\xfe", media_type="image/png")
    turns = (
        Message(role="system", content="Be short."),
        Message(role="user", content="Hi"),
        Message(role="assistant", content="Hello"),
        Message(role="user", content="What is this?", images=(picture,)),
    )
    async with bench() as b:
        reply = await b.gemini.complete(ChatRequest(messages=turns), PLENTY_S)
        (body,) = b.server.bodies
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    assert body["systemInstruction"]["parts"] == [{"text": "Be short."}]
    first, second = body["contents"][-1]["parts"]
    assert first["inlineData"]["mimeType"] == "image/png"
    assert second == {"text": "What is this?"}
    assert reply.tokens.input == 258 + 7


async def test_a_picture_needs_no_text() -> None:
    """A turn of only a picture is sent without an empty part, which Gemini refuses."""
    turn = Message(role="user", content="", images=(Image(data=b"x", media_type="image/webp"),))
    async with bench() as b:
        await b.gemini.complete(ChatRequest(messages=(turn,)), PLENTY_S)
        assert len(b.server.bodies[0]["contents"][0]["parts"]) == 1


@pytest.mark.parametrize(("data", "media_type"), [(b"GIF89a", "image/gif"), (b"", "image/png")])
async def test_a_picture_that_gemini_cannot_read_is_the_callers_mistake(data: bytes, media_type: str) -> None:
    """It is refused before anything is sent."""
    turn = Message(role="user", content="?", images=(Image(data=data, media_type=media_type),))
    async with bench() as b:
        with pytest.raises(InvalidRequest, match="picture"):
            await b.gemini.complete(ChatRequest(messages=(turn,)), PLENTY_S)
        assert b.server.calls == []


async def test_the_options_of_a_request_are_sent() -> None:
    """Length, temperature, stop sequences, seed and the service tier all arrive."""
    request = asking(max_output_tokens=77, temperature=0.25, stop=("END",), seed=5)
    async with bench(service_tier="flex") as b:
        await b.gemini.complete(request, PLENTY_S)
        (body,) = b.server.bodies
    assert body["serviceTier"] == "flex"
    assert body["generationConfig"] == {
        "maxOutputTokens": 77,
        "temperature": 0.25,
        "stopSequences": ["END"],
        "seed": 5,
        "thinkingConfig": {"thinkingLevel": "MINIMAL"},
    }


async def test_a_schema_is_sent_as_it_is_and_the_text_fits_it() -> None:
    """Structured output goes by JSON Schema, with the keys spelled as the caller spelled them."""
    async with bench() as b:
        reply = await b.gemini.complete(asking(schema=SCHEMA), PLENTY_S)
        config = b.server.bodies[0]["generationConfig"]
    assert config["responseJsonSchema"] == SCHEMA
    assert config["responseMimeType"] == "application/json"
    assert json.loads(reply.text) == {"passage_grade": 1, "kind": "a"}


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("gemini-3.1-flash-lite", {"thinkingLevel": "MINIMAL"}),
        ("models/gemini-3.1-flash-lite", {"thinkingLevel": "MINIMAL"}),
        ("gemini-4-flash-lite", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.1-pro-preview", {"thinkingLevel": "LOW"}),
        ("gemini-2.5-flash-lite", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", {"thinkingBudget": 128}),
        ("gemini-2.0-flash-lite", None),
    ],
)
async def test_a_model_is_kept_from_thinking_in_the_way_that_it_takes(model: str, thinking: Any) -> None:
    """The third generation takes levels, the second budgets, and older ones refuse to hear of it."""
    async with bench(GeminiServer(models=(model.rpartition("/")[2],)), model=model) as b:
        await b.gemini.complete(asking(), PLENTY_S)
        assert b.server.bodies[0]["generationConfig"].get("thinkingConfig") == thinking


async def test_a_model_that_ignores_the_temperature_is_told_none() -> None:
    """Gemini 3.5 Flash-Lite samples as it likes."""
    async with bench(GeminiServer(models=("gemini-3.5-flash-lite",)), model="gemini-3.5-flash-lite") as b:
        await b.gemini.complete(asking(temperature=0.5), PLENTY_S)
        assert "temperature" not in b.server.bodies[0]["generationConfig"]


@pytest.mark.parametrize("casing", ["camel", "snake"])
async def test_cached_tokens_are_part_of_the_input_and_thoughts_stand_apart(casing: Literal["camel", "snake"]) -> None:
    """Both spellings of the usage are understood."""
    async with bench(GeminiServer(casing=casing)) as b:
        b.server.answers.append(Said(pieces=("one ", "two"), thoughts=9, cached=100))
        reply = await b.gemini.complete(asking("a b"), PLENTY_S)
        assert reply.tokens == TokenCount(input=102, cached=100, output=2, thinking=9) == b.server.told


async def test_a_stream_tells_text_and_tokens_as_they_come() -> None:
    """Every piece carries the tokens of the call so far, and the last one why it ended."""
    async with bench() as b:
        b.server.answers.append(Said(pieces=("Due ", "on Friday."), thoughts=2))
        *pieces, last = await streamed(b.gemini, asking("a b"))
    assert [piece.text for piece in pieces] == ["Due ", "on Friday."]
    assert [piece.tokens for piece in pieces] == [
        TokenCount(input=2, output=1, thinking=2),
        TokenCount(input=2, output=3, thinking=2),
    ]
    assert (last.text, last.finish_reason, last.tokens) == ("", "stop", pieces[-1].tokens)


async def test_tokens_told_after_the_ending_are_counted() -> None:
    """A last chunk with nothing but the usage still counts."""
    chunks = [
        {"candidates": [{"content": {"parts": [{"text": "Yes"}]}, "finishReason": "STOP"}]},
        {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 1}},
    ]
    async with bench() as b:
        b.server.canned.append(events(*chunks))
        assert (await streamed(b.gemini, asking()))[-1].tokens == TokenCount(input=5, output=1)


async def test_counts_below_zero_are_none() -> None:
    """They would lower what was spent."""
    usage = {"promptTokenCount": 5, "candidatesTokenCount": -1}
    candidate = {"content": {"parts": [{"text": "Yes"}]}, "finishReason": "STOP"}
    async with bench() as b:
        b.server.canned.append(document({"candidates": [candidate], "usageMetadata": usage}))
        assert (await b.gemini.complete(asking(), PLENTY_S)).tokens == TokenCount()


async def test_thoughts_are_not_part_of_the_answer() -> None:
    """Parts that are marked as thoughts are left out of the text."""
    parts = [
        {"text": "Hm.", "thought": True},
        {"text": "Yes."},
        {"executableCode": {"code": "1", "language": "PYTHON"}},
    ]
    async with bench() as b:
        b.server.canned.append(document({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}))
        assert (await b.gemini.complete(asking(), PLENTY_S)).text == "Yes."


async def test_text_that_breaks_clients_oddly_survives_the_stream() -> None:
    """U+2028, U+0085, quotes and braces inside a chunk do not cut it."""
    text = 'a\u2028b\u0085c "}{" \r\n d'
    async with bench() as b:
        b.server.answers.append(Said(pieces=(text,)))
        assert (await streamed(b.gemini, asking()))[0].text == text


async def test_thinking_can_use_up_all_tokens() -> None:
    """A reply that was cut before its first word is a reply without text, whole or streamed, and costs its thoughts."""
    async with bench() as b:
        b.server.script.extend([Fault.OUT_OF_TOKENS] * 2)
        reply = await b.gemini.complete(asking("a b", max_output_tokens=8), PLENTY_S)
        deltas = await streamed(b.gemini, asking("a b", max_output_tokens=8))
    assert (reply.text, reply.finish_reason) == ("", "length")
    assert reply.tokens == TokenCount(input=2, thinking=8) == deltas[-1].tokens
    assert ("".join(delta.text for delta in deltas), deltas[-1].finish_reason) == ("", "length")


async def test_an_answer_without_words_is_a_bad_reply_unless_a_stop_sequence_can_have_cut_it() -> None:
    """Gemini sometimes stops in good order having said nothing."""
    async with bench() as b:
        b.server.answers.extend([Said(pieces=("",))] * 3)
        assert isinstance(await failure(b.gemini, "complete"), UpstreamBadReply)
        assert isinstance(await failure(b.gemini, "stream"), UpstreamBadReply)
        assert (await b.gemini.complete(asking(stop=("\n",)), PLENTY_S)).text == ""


@pytest.mark.parametrize("how", ["complete", "stream"])
@pytest.mark.parametrize(
    "reason",
    ["SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "ESCALATION"],
)
async def test_a_blocked_answer_is_refused_and_still_costs(how: str, reason: str) -> None:
    """With or without words before the block; no word of it comes out with the chunk that blocks."""
    async with bench() as b:
        b.server.answers.extend([Said(pieces=("Half ", "of it"), finish=reason), Said(pieces=("",), finish=reason)])
        for words in (3, 0):
            error = await failure(b.gemini, how)
            assert isinstance(error, Refused)
            assert reason in str(error)
            assert error.tokens == TokenCount(input=5, output=words)


@pytest.mark.parametrize("how", ["complete", "stream"])
@pytest.mark.parametrize("reason", ["SAFETY", "PROHIBITED_CONTENT", "JAILBREAK", "A_WORD_OF_NEXT_YEAR"])
async def test_a_blocked_prompt_is_refused_and_still_costs(how: str, reason: str) -> None:
    """There is no candidate then, only the feedback, whose words may be newer than the SDK."""
    async with bench() as b:
        b.server.answers.append(Said(pieces=("",), finish=None, block=reason))
        error = await failure(b.gemini, how)
    assert isinstance(error, Refused)
    assert error.tokens == TokenCount(input=5)
    assert "A_WORD" not in str(error)


@pytest.mark.parametrize("how", ["complete", "stream"])
@pytest.mark.parametrize("reason", ["OTHER", "MALFORMED_RESPONSE", "FINISH_REASON_UNSPECIFIED", "A_WORD_OF_NEXT_YEAR"])
async def test_any_other_ending_is_a_bad_reply(how: str, reason: str) -> None:
    """Also one that the SDK does not know: no warning escapes, and the server's word is not repeated."""
    async with bench() as b:
        b.server.answers.append(Said(pieces=("text",), finish=reason))
        error = await failure(b.gemini, how)
    assert isinstance(error, UpstreamBadReply)
    assert error.tokens == TokenCount(input=5, output=1)
    assert "A_WORD" not in str(error)


@pytest.mark.parametrize("how", ["complete", "stream"])
async def test_one_call_is_one_request(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """The SDK does not go on by itself when Google offers a continuation, and logs nothing about functions."""
    token = {"finishReason": "CONTINUATION", "continuationToken": "AAAA", "content": {"parts": [{"text": "Half"}]}}
    body = {"candidates": [token]}
    async with bench() as b:
        b.server.canned.append(document(body) if how == "complete" else events(body))
        with caplog.at_level(logging.INFO):
            assert await failure(b.gemini, how) is None
        assert len(b.server.calls) == 1
    assert not [record for record in caplog.records if record.name.startswith("google")]


async def test_the_probe_reads_what_the_model_says_of_itself() -> None:
    """Context and capabilities come from the description of the model, without a token spent."""
    async with bench() as b:
        probed = await b.gemini.probe(PLENTY_S)
        await b.gemini.ping(PLENTY_S)
        assert [call.method for call in b.server.calls] == ["get", "get"]
    assert probed.model == MODEL
    assert probed.context_tokens == 1_048_576
    assert probed.capabilities == {"chat", "structured", "images", "thinking"}
    assert b.gemini.scorer is None


@pytest.mark.parametrize(
    ("described", "capabilities"),
    [
        ({"supportedGenerationMethods": ["embedContent"]}, {"thinking"}),
        ({"thinking": False}, {"chat", "structured", "images"}),
    ],
)
async def test_the_probe_promises_no_more_than_the_model_does(
    described: dict[str, Any], capabilities: set[str]
) -> None:
    """A model that only embeds cannot chat, and one that cannot think need not be told not to."""
    async with bench() as b:
        b.server.canned.append(document({"name": f"models/{MODEL}", **described}))
        assert (await b.gemini.probe(PLENTY_S)).capabilities == capabilities


@pytest.mark.parametrize("fault", [Fault.FORBIDDEN, Fault.UNAVAILABLE, Fault.DROPPED_BEFORE, Fault.HTML_PAGE])
async def test_ping_and_probe_say_what_is_wrong(fault: Fault) -> None:
    """They raise as the calls do."""
    async with bench() as b:
        b.server.model_faults.extend([fault, fault])
        with pytest.raises(UpstreamError):
            await b.gemini.ping(PLENTY_S)
        with pytest.raises(UpstreamError):
            await b.gemini.probe(PLENTY_S)


@pytest.mark.parametrize("body", [b"{}", b"", b"<html>", b"[]"])
async def test_a_description_that_says_nothing_is_a_bad_reply(body: bytes) -> None:
    """Something else than Gemini may answer with 200."""
    async with bench() as b:
        b.server.canned.append(Canned(body=body))
        with pytest.raises(UpstreamBadReply):
            await b.gemini.ping(PLENTY_S)


def document(body: Any) -> Canned:
    """A whole reply."""
    return Canned(body=json.dumps(body).encode())


def events(*chunks: Any) -> Canned:
    """A stream's."""
    body = "".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks)
    return Canned(body=body.encode(), headers={"content-type": "text/event-stream"})
