"""Gemini's wire protocol on a real socket: it checks what it is asked, counts what it bills, and can have bad days.

Requests may spell keys in camelCase or snake_case, as Google's SDK mixes them. Replies are in camelCase; `casing`
"snake" spells what is within the envelope in snake_case (of the envelope itself the SDK reads camelCase only).
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from app.domain import TokenCount
from tests.fakes.decisions import Likely, decided
from tests.fakes.faults import Fault
from tests.fakes.gemini_refusals import Refusal, check_key, error_body, refuse
from tests.fakes.gemini_requests import camel, check_request, json_for, prompt_tokens, snake, text_of
from tests.fakes.mind import Mind, no_mind
from tests.fakes.wire import Answering, Asked, HungUp, WireServer

MODEL = "gemini-3.1-flash-lite"

_METHODS = ("get", "countTokens", "generateContent", "streamGenerateContent", "batchGenerateContent")

_SSE = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One good reply. `pieces` are the chunks of a stream, a token a word; "" has no text part."""

    pieces: tuple[str, ...]
    finish: str | None = "STOP"
    thoughts: int = 0
    cached: int = 0
    block: str | None = None


class Canned(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes for one call, whatever was asked."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = {}


class Call(msgspec.Struct, kw_only=True):
    """One call as the server saw it. `told` are the tokens that the client was told of; `body` is in camelCase."""

    asked: Asked
    method: str
    model: str
    body: dict[str, Any]
    fault: Fault = Fault.OK
    told: TokenCount = TokenCount()


class Batch(msgspec.Struct, kw_only=True):
    """A batch of requests, done after so many more `looks`, or `failed`."""

    name: str
    label: str
    replies: list[dict[str, Any]]
    looks: int
    failed: bool = False

    def described(self) -> dict[str, Any]:
        """As the server shows it."""
        state = "FAILED" if self.failed else "RUNNING" if self.looks > 0 else "SUCCEEDED"
        output = {"output": {"inlinedResponses": {"inlinedResponses": self.replies}}} if state == "SUCCEEDED" else {}
        return {
            "name": self.name,
            "metadata": {"displayName": self.label, "state": f"BATCH_STATE_{state}", "model": "models/m", **output},
            "done": state != "RUNNING",
        }


class GeminiServer(WireServer):
    """`script` decides about the next calls, `choose` about those after it; `model_faults` about GET models/{m}.

    `likely` is what decisions say, `methods` are what its models can do besides.

    `canned`, `answers` and `mind` go before what it would say itself. `slow_s` is the pause before a slow first byte,
    and between the bytes of a trickle; `retry_after_s` the delay that its 429 and 503 name.
    """

    def __init__(
        self,
        script: Iterable[Fault] = (),
        *,
        choose: Callable[[], Fault] = lambda: Fault.OK,
        casing: Literal["camel", "snake"] = "camel",
        models: tuple[str, ...] = (MODEL,),
        slow_s: float = 0.2,
        retry_after_s: float = 7,
    ) -> None:
        super().__init__()
        self.script = deque(script)
        self.model_faults: deque[Fault] = deque()
        self.canned: deque[Canned] = deque()
        self.answers: deque[Said] = deque()
        self.mind: Mind = no_mind
        self.likely: Likely = {}
        self.methods = ("generateContent", "countTokens", "batchGenerateContent")
        self.calls: list[Call] = []
        self.models = models
        self.batches: list[Batch] = []
        self.batched: list[Call] = []
        self.looks = 0
        self.slow_s = slow_s
        self.retry_after_s = retry_after_s
        self._choose = choose
        self._inner = camel if casing == "camel" else snake

    @property
    def told(self) -> TokenCount:
        """What the clients were told, all calls together."""
        return sum((call.told for call in self.calls), TokenCount())

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """What was asked of a model, in camelCase."""
        return [call.body for call in self.calls if call.body]

    async def asked(self, calls: int = 1) -> None:
        """Wait until so many calls have come."""
        while len(self.calls) < calls:  # noqa: ASYNC110 - it may run in another thread
            await asyncio.sleep(0.001)

    async def answer(self, asked: Asked, answering: Answering) -> None:
        path, _, query = asked.path.partition("?")
        if path == "/v1beta/decisions":
            await self._decide(asked, answering)
            return
        if re.search(r"/batches(/|$)", path):
            await self._answer_batch(asked, path.rpartition("/batches")[2].strip("/"), answering)
            return
        model, _, method = path.rpartition("/models/")[2].partition(":")
        call = Call(asked=asked, method=method or "get", model=model, body={})
        self.calls.append(call)
        call.fault = self._next_fault(call)
        try:
            check_key(asked)
            if model not in self.models:
                raise Refusal(404)
            call.body = camel(json.loads(asked.body)) if method else {}
            await self._answer(call, answering, streamed=query == "alt=sse")
        except Refusal as refusal:
            await answering.whole(refusal.status, refusal.body, refusal.headers)

    def _next_fault(self, call: Call) -> Fault:
        if call.method == "get":
            return self.model_faults.popleft() if self.model_faults else Fault.OK
        return self.script.popleft() if self.script else self._choose()

    async def _decide(self, asked: Asked, answering: Answering) -> None:
        body = json.loads(asked.body)
        call = Call(asked=asked, method="decide", model=body["model"], body=body)
        self.calls.append(call)
        call.fault = self._next_fault(call)
        try:
            check_key(asked)
            if call.model not in self.models:
                raise Refusal(404)
            refuse(call.fault, self.retry_after_s)
            await self._tell_decision(call, answering)
        except Refusal as refusal:
            await answering.whole(refusal.status, refusal.body, refusal.headers)

    async def _tell_decision(self, call: Call, answering: Answering) -> None:
        if call.fault is Fault.DROPPED_BEFORE:
            raise HungUp
        if call.fault is Fault.SLOW_FIRST_BYTE:
            await asyncio.sleep(self.slow_s)
        reply: dict[str, Any] = {"answers": decided(call.body, self.likely)}
        tokens = TokenCount(input=len(json.dumps(call.body).split()))
        if call.fault is Fault.BLOCKED_PROMPT:
            reply = {"prompt_feedback": {"block_reason": "prohibited_content"}}
        body = _dump({**reply, "usage": {"total_input_tokens": tokens.input}})
        if call.fault is Fault.MALFORMED_JSON:
            body = body[: len(body) // 2]
        elif call.fault is Fault.EMPTY_REPLY:
            body = b"{}"
        else:
            call.told = tokens
        await answering.whole(200, body)

    async def _answer(self, call: Call, answering: Answering, *, streamed: bool) -> None:
        if call.method not in (
            "get",
            "countTokens",
            "generateContent",
            "streamGenerateContent",
            "batchGenerateContent",
        ):
            raise Refusal(404)
        if self.canned:
            canned = self.canned.popleft()
            await answering.whole(canned.status, canned.body, canned.headers)
            return
        refuse(call.fault, self.retry_after_s)
        if call.fault is Fault.DROPPED_BEFORE:
            raise HungUp
        if call.fault is Fault.SLOW_FIRST_BYTE:
            await asyncio.sleep(self.slow_s)
        if call.method == "get":
            await answering.whole(200, _dump(self._describe(call.model)))
        elif call.method == "batchGenerateContent":
            await answering.whole(200, _dump(self._submit(call)))
        elif call.method == "countTokens":
            await answering.whole(200, _dump({"totalTokens": prompt_tokens(call.body)}))
        else:
            check_request(call.model, call.body)
            await self._generate(call, answering, streamed=streamed)

    def _submit(self, call: Call) -> dict[str, Any]:
        """A batch, whose replies are made at once and shown after `looks` looks at it."""
        given = call.body["batch"]
        replies = []
        for request in given["inputConfig"]["requests"]["requests"]:
            one = Call(asked=call.asked, method="batched", model=call.model, body=request["request"])
            check_request(call.model, one.body)
            self.batched.append(one)
            said = self._saying(one)
            one.told = self._count(one, said, len(said.pieces))
            replies.append({"response": self._chunk(one, said, "".join(said.pieces), said.finish, one.told)})
        batch = Batch(
            name=f"batches/b{len(self.batches)}", label=given["displayName"], replies=replies, looks=self.looks
        )
        self.batches.append(batch)
        return batch.described()

    async def _answer_batch(self, asked: Asked, name: str, answering: Answering) -> None:
        check_key(asked)
        if not name:
            shown: Any = {"operations": [batch.described() for batch in self.batches]}
        else:
            batch = next(batch for batch in self.batches if batch.name == f"batches/{name}")
            batch.looks -= 1
            shown = batch.described()
        await answering.whole(200, _dump(shown))

    async def _generate(self, call: Call, answering: Answering, *, streamed: bool) -> None:
        said = self._saying(call)
        if streamed:
            await self._stream(call, said, answering)
        elif call.fault is Fault.ERROR_IN_STREAM:
            raise Refusal(500)
        else:
            await self._tell(call, said, answering)

    async def _tell(self, call: Call, said: Said, answering: Answering) -> None:
        tokens = self._count(call, said, len(said.pieces))
        body = _dump(self._chunk(call, said, "".join(said.pieces), said.finish, tokens))
        match call.fault:
            case Fault.MALFORMED_JSON:
                body = body[: len(body) // 2]
            case Fault.EMPTY_REPLY:
                body = b""
            case Fault.DROPPED_MIDWAY:
                await answering.begin(200, {"content-type": "application/json", "content-length": str(len(body))})
                await answering.send(body[: len(body) // 2])
                raise HungUp
            case Fault.SLOW_TRICKLE:
                await answering.begin(200, {"content-type": "application/json", "content-length": str(len(body))})
                await self._trickle(body, answering)
                call.told = tokens
                return
            case _:
                call.told = tokens
        await answering.whole(200, body)

    async def _trickle(self, body: bytes, answering: Answering) -> None:
        for part in (body[:10], body[10:20]):
            await answering.send(part)
            await asyncio.sleep(self.slow_s)
        await answering.send(body[20:])

    async def _stream(self, call: Call, said: Said, answering: Answering) -> None:
        await answering.begin(200, _SSE)
        if call.fault is Fault.MALFORMED_JSON:
            await answering.chunk(b'data: {"candidates": [\r\n\r\n')
        elif call.fault is not Fault.EMPTY_REPLY:
            await self._stream_pieces(call, said, answering)
        await answering.chunk(b"")

    async def _stream_pieces(self, call: Call, said: Said, answering: Answering) -> None:
        for number, piece in enumerate(said.pieces, 1):
            finish = said.finish if number == len(said.pieces) else None
            tokens = self._count(call, said, number)
            await answering.chunk(_event(self._chunk(call, said, piece, finish, tokens)))
            call.told = tokens
            if call.fault is Fault.DROPPED_MIDWAY:
                raise HungUp
            if call.fault is Fault.ERROR_IN_STREAM:
                await answering.chunk(b"data: " + error_body(500) + b"\r\n\r\n")
                return
            if call.fault is Fault.SLOW_TRICKLE:
                await asyncio.sleep(self.slow_s)

    def _saying(self, call: Call) -> Said:
        match call.fault:
            case Fault.BLOCKED_PROMPT:
                return Said(pieces=("",), finish=None, block="PROHIBITED_CONTENT")
            case Fault.BLOCKED_ANSWER:
                return Said(pieces=("Half of ", ""), finish="SAFETY")
            case Fault.OUT_OF_TOKENS:
                return Said(
                    pieces=("",), finish="MAX_TOKENS", thoughts=call.body["generationConfig"]["maxOutputTokens"]
                )
        said = self.answers.popleft() if self.answers else self._said_to(call.body)
        return msgspec.structs.replace(said, finish=None) if call.fault is Fault.TRUNCATED_STREAM else said

    def _said_to(self, body: dict[str, Any]) -> Said:
        """Cut where it was asked to be."""
        config = body.get("generationConfig", {})
        text = self.mind(_turns(body), config.get("responseJsonSchema"))
        text = _reply_to(body) if text is None else text
        stops = [text.find(stop) for stop in config.get("stopSequences", []) if stop in text]
        pieces = _pieces(text[: min(stops, default=len(text))])
        limit = config.get("maxOutputTokens", len(pieces))
        return Said(pieces=pieces[:limit], finish="MAX_TOKENS" if len(pieces) > limit else "STOP")

    def _count(self, call: Call, said: Said, pieces: int) -> TokenCount:
        """The call's tokens when so many pieces are out."""
        return TokenCount(
            input=prompt_tokens(call.body) + said.cached,
            cached=said.cached,
            output=sum(len(piece.split()) for piece in said.pieces[:pieces]),
            thinking=said.thoughts,
        )

    def _chunk(self, call: Call, said: Said, text: str, finish: str | None, tokens: TokenCount) -> dict[str, Any]:
        inner = self._inner
        usage = {
            "promptTokenCount": tokens.input,
            "candidatesTokenCount": tokens.output or None,
            "thoughtsTokenCount": tokens.thinking or None,
            "cachedContentTokenCount": tokens.cached or None,
            "totalTokenCount": tokens.input + tokens.output + tokens.thinking,
        }
        chunk = {
            "usageMetadata": inner(_without_nulls(usage)),
            "modelVersion": f"{call.model}-001",
            "responseId": f"r{len(self.calls)}",
        }
        if said.block:
            return {"promptFeedback": inner({"blockReason": said.block, "safetyRatings": []}), **chunk}
        content = {"content": {"parts": [{"text": text}], "role": "model"}} if text else {}
        return {"candidates": [_without_nulls({**content, "finishReason": finish, "index": 0})], **chunk}

    def _describe(self, model: str) -> dict[str, Any]:
        return {
            "name": f"models/{model}",
            "version": "001",
            "displayName": "A fake",
            "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": list(self.methods),
            "thinking": True,
        }


def _turns(body: dict[str, Any]) -> list[tuple[str, str]]:
    system = [("system", text_of(body["systemInstruction"]))] if "systemInstruction" in body else []
    roles = {"model": "assistant"}
    return system + [(roles.get(turn["role"], turn["role"]), text_of(turn)) for turn in body["contents"]]


def _reply_to(body: dict[str, Any]) -> str:
    schema = body.get("generationConfig", {}).get("responseJsonSchema")
    return json.dumps(json_for(schema)) if schema else f"You said: {text_of(body['contents'][-1])}"


def _pieces(text: str) -> tuple[str, ...]:
    """Word by word, with the spaces."""
    words = text.split(" ")
    return (*(word + " " for word in words[:-1]), words[-1])


def _without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _event(value: Any) -> bytes:
    return b"data: " + _dump(value) + b"\r\n\r\n"
