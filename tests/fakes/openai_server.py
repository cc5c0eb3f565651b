"""A server that speaks OpenAI's protocol over a real socket, in the dialect of vLLM, of Ollama, or plainly."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from app.domain import TokenCount
from tests.fakes import openai_tools
from tests.fakes.decisions import Likely, decided, decided_as_openai
from tests.fakes.faults import Fault
from tests.fakes.openai_model import FakeModel, Turns, pictures_of, tokens_of
from tests.fakes.wire import Answering, Asked, HungUp, WireServer

Dialect = Literal["vllm", "ollama", "openai"]

SECRET = "EVIL raw text of the provider <b>sk-live-123</b>"
"""Stands in every error; it must never come out at our end."""

_PLAIN_FIELDS = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "stop"}
    | {"seed", "response_format", "logprobs", "top_logprobs", "reasoning_effort"}
    | {"tools", "tool_choice", "parallel_tool_calls"}
)

_STATUS: Mapping[Fault, tuple[int, dict[str, Any]]] = {
    Fault.BAD_REQUEST: (400, {"type": "BadRequestError", "code": 400}),
    Fault.UNAUTHORIZED: (401, {"type": "invalid_request_error", "code": "invalid_api_key"}),
    Fault.FORBIDDEN: (403, {"type": "permission_error", "code": "forbidden"}),
    Fault.UNKNOWN_MODEL: (404, {"type": "NotFoundError", "code": 404}),
    Fault.REQUEST_TIMEOUT: (408, {"type": "timeout", "code": None}),
    Fault.RATE_LIMITED_WITH_DELAY: (429, {"type": "requests", "code": "rate_limit_exceeded"}),
    Fault.RATE_LIMITED: (429, {"type": "requests", "code": "rate_limit_exceeded"}),
    Fault.QUOTA_OF_THE_DAY: (429, {"type": "insufficient_quota", "code": "insufficient_quota"}),
    Fault.SERVER_ERROR: (500, {"type": "InternalServerError", "code": 500}),
    Fault.UNAVAILABLE: (503, {"type": "ServiceUnavailableError", "code": 503}),
    Fault.BLOCKED_PROMPT: (400, {"type": "invalid_request_error", "code": "content_filter"}),
}


_DELAYS = {Fault.RATE_LIMITED_WITH_DELAY: 7.0, Fault.UNAVAILABLE: 2.0}
"""When to come back, in seconds."""

_CHUNKED = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
_SPOILT = {Fault.MALFORMED_JSON, Fault.TRUNCATED_STREAM, Fault.EMPTY_REPLY, Fault.DROPPED_MIDWAY}
"""A whole reply whose usage nobody can read."""


class Rejection(Exception):
    """The server's own answer to a request that it does not take."""

    def __init__(self, status: int, param: str | None = None, code: object = None, headers: Any = None) -> None:
        super().__init__(status)
        self.status = status
        self.error = {"message": SECRET, "type": "BadRequestError", "param": param, "code": code or status}
        self.headers = headers or {}


@dataclass(eq=False)
class OpenAIServer(WireServer):
    """`script` decides about the next model calls, `choose` about those after it.

    `decides` are its paths of decisions, which say what `decisions` has.

    `billed` is what the model calls used, cut ones too: they stop when the client leaves; `told`, what the clients were
    told of that. `lacks` names what an older
    server does not have: "batch", "tokenize", "logprob_token_ids" (refused), "ignored_token_ids" (without effect),
    "logprobs", "structured", "version", "models", "modern" (max_completion_tokens), "temperature" (other than 1),
    "quiet" (a way not to think), "tools".
    """

    dialect: Dialect = "vllm"
    model: FakeModel = field(default_factory=FakeModel)
    others: tuple[str, ...] = ()
    script: Iterable[Fault] = ()
    choose: Callable[[], Fault] = lambda: Fault.OK
    api_key: str | None = None
    lacks: frozenset[str] = frozenset()
    token_s: float = 0.0
    slow_s: float = 0.25
    delays: Mapping[Fault, float] = field(default_factory=lambda: _DELAYS)
    slots: int | None = None
    load_s: float = 0.0
    version: str = "0.32.0"
    decides: frozenset[str] = frozenset()
    decisions: Likely = field(default_factory=dict)
    requests: list[Asked] = field(default_factory=list)
    billed: TokenCount = field(default_factory=TokenCount)
    told: TokenCount = field(default_factory=TokenCount)
    busy: int = 0
    most_busy: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._script = deque(self.script)
        self._changed = asyncio.Event()

    @property
    def root(self) -> str:
        """Without /v1."""
        return super().url

    @property
    def url(self) -> str:
        """What the settings want."""
        return f"{self.root}/v1"

    def bodies(self, path: str = "/v1/chat/completions") -> list[Any]:
        """What was posted there."""
        return [json.loads(asked.body or b"null") for asked in self.requests if asked.path == path]

    def expect(self, *faults: Fault) -> None:
        """The faults of the coming calls."""
        self._script = deque(faults)

    async def until_busy(self, calls: int) -> None:
        """Returns when so many model calls are being worked at."""
        await self._until(lambda: self.busy == calls)

    async def until_asked(self, calls: int) -> None:
        """Returns when the last of so many requests is being worked at."""
        await self._until(lambda: len(self.requests) >= calls and self.busy > 0)

    async def _until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    async def answer(self, asked: Asked, answering: Answering) -> None:
        self.requests.append(asked)
        try:
            self._authorise(asked)
            await self._route(asked, answering)
        except Rejection as exc:
            await answering.whole(exc.status, json.dumps({"error": exc.error}).encode(), exc.headers)

    def _authorise(self, asked: Asked) -> None:
        guarded = asked.path.startswith("/v1")
        if guarded and self.api_key is not None and asked.headers.get("authorization") != f"Bearer {self.api_key}":
            raise Rejection(401, code="invalid_api_key")

    async def _route(self, asked: Asked, answering: Answering) -> None:
        known: dict[str, Any] = {"/v1/models": self._models}
        if self.dialect == "vllm":
            known |= {
                "/tokenize": self._tokenize,
                "/detokenize": lambda body: {"prompt": "".join(map(self.model.token, body["tokens"]))},
                "/version": lambda _: {"version": self.version},
                "/health": lambda _: "",
            }
        if self.dialect == "ollama":
            known |= {"/api/version": lambda _: {"version": self.version}, "/api/show": self._show}
            known |= {"/api/ps": self._loaded, "/api/tags": lambda _: {"models": [{"name": self.model.name}]}}
        if asked.path in known and asked.path.rpartition("/")[2] not in self.lacks:
            await answering.whole(200, json.dumps(known[asked.path](json.loads(asked.body or b"null"))).encode())
        elif asked.path == "/v1/chat/completions":
            await self._serve_call(json.loads(asked.body or b"null"), answering)
        elif asked.path == "/v1/completions":
            await self._serve_call(self._between(json.loads(asked.body or b"null")), answering)
        elif asked.path in ("/v1/decisions", "/v1/systemone") and asked.path in self.decides:
            await self._decide(asked, answering)
        elif asked.path == "/v1/chat/completions/batch" and self.dialect == "vllm" and "batch" not in self.lacks:
            await self._serve_call(json.loads(asked.body or b"null"), answering, batch=True)
        else:
            await answering.whole(404, b'{"detail":"Not Found"}')

    def _models(self, _: Any) -> Any:
        extra = {"max_model_len": self.model.context} if self.dialect == "vllm" else {}
        names = (self.model.name, *self.others)
        return {"object": "list", "data": [{"id": name, "object": "model", **extra} for name in names]}

    def _tokenize(self, body: Any) -> Any:
        thinking = all((body.get("chat_template_kwargs") or {}).values())
        text = body["prompt"] if "prompt" in body else self.model.render(body["messages"], thinking)
        ids = [self.model.token_id(token) for token in self.model.tokens(text)]
        start = [2] if body.get("add_special_tokens", "prompt" in body) else []
        return {"count": len(start + ids), "max_model_len": self.model.context, "tokens": start + ids}

    def _show(self, body: Any) -> Any:
        if "embed" in body["model"]:
            return {"capabilities": ["embedding"]}
        abilities = [
            "completion",
            *(["vision"] if self.model.sees else []),
            *(["thinking"] if self.model.thinks else []),
            *(["insert"] if self.model.fills else []),
        ]
        return {"capabilities": abilities, "model_info": {"tiny.context_length": 131072}}

    def _loaded(self, _: Any) -> Any:
        return {"models": [{"name": self.model.name, "model": self.model.name, "context_length": self.model.context}]}

    def tell(self, body: Any, tokens: TokenCount) -> None:
        """A call is over, and its client was told of so many tokens."""
        self.told += tokens

    async def _decide(self, asked: Asked, answering: Answering) -> None:
        body = json.loads(asked.body)
        if body["model"] != self.model.name:
            raise Rejection(404, code="model_not_found")
        usage = TokenCount(input=len(tokens_of(json.dumps(body))), output=len(body["questions"]))
        counts = {"input_tokens": usage.input, "output_tokens": usage.output}
        if asked.path == "/v1/decisions":
            reply: dict[str, Any] = {"answers": decided_as_openai(body, self.decisions), "usage": counts}
        else:
            diagnostics = {key: {"label_mass": 0.9, "argmax_is_label": True} for key in body["questions"]}
            reply = {"answers": decided(body, self.decisions), "usage": counts, "diagnostics": diagnostics}
        self.billed += usage
        self.told += usage
        await answering.whole(200, json.dumps(reply).encode())

    def _between(self, body: Any) -> Any:
        """The body of a completion as that of a chat, with what the model writes there as `fill`."""
        if self.model.fills is None or ("suffix" in body) != (self.dialect == "ollama"):
            raise Rejection(400, param="suffix")
        suffix = body.get("suffix", "")
        turns = [{"role": "user", "content": body["prompt"] + suffix}]
        return {**body, "messages": turns, "fill": self.model.fills(body["prompt"], suffix)}

    async def _serve_call(self, body: Any, answering: Answering, *, batch: bool = False) -> None:
        fault = self._script.popleft() if self._script else self.choose()
        if fault is Fault.DROPPED_BEFORE:
            raise HungUp
        if fault is Fault.HTML_PAGE:
            return await answering.whole(502, f"<html>{SECRET}</html>".encode(), {"content-type": "text/html"})
        if fault in _STATUS:
            status, error = _STATUS[fault]
            delay = {"Retry-After": f"{self.delays[fault]:g}"} if fault in self.delays else {}
            raised = Rejection(status, headers=delay)
            raised.error |= error
            raise raised
        if fault is Fault.ERROR_IN_STREAM and not body.get("stream"):
            raise Rejection(500)
        async with self._slot():
            await asyncio.sleep(self.load_s + (self.slow_s if fault is Fault.SLOW_FIRST_BYTE else 0))
            self._check_stops(body)
            self._check(body, body["messages"] if batch else [body["messages"]])
            if body.get("stream"):
                await self._stream(body, answering, fault)
            else:
                await self._whole(body, answering, fault, batch=batch)
        return None

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self.slots is not None and self.busy >= self.slots:
            raise Rejection(503, headers={"Retry-After": "1"})
        self._work(1)
        try:
            yield
        finally:
            self._work(-1)

    def _work(self, more: int) -> None:
        self.busy += more
        self.most_busy = max(self.most_busy, self.busy)
        self._changed.set()

    def _check(self, body: Any, conversations: Sequence[Turns]) -> None:
        if body.get("model") != self.model.name and body.get("model") not in self.others:
            raise Rejection(404, code="model_not_found")
        if self.dialect == "openai":
            self._check_plain(body)
        self._check_tools(body)
        schema = _schema(body)
        if schema is not None and ("structured" in self.lacks or '"uniqueItems": true' in json.dumps(schema)):
            raise Rejection(400, param="response_format")
        if body.get("logprobs") and ("logprobs" in self.lacks or body.get("top_logprobs", 0) > 20):
            raise Rejection(400, param="logprobs")
        if "logprob_token_ids" in body and "logprob_token_ids" in self.lacks:
            raise Rejection(400, param="logprob_token_ids")
        for turns in conversations:
            if not turns or not all(_is_turn(turn) for turn in turns):
                raise Rejection(400, param="messages")
            if not self.model.sees and any(pictures_of(turn) for turn in turns):
                raise Rejection(400)
            if self.model.prompt_tokens(turns, _thinking(body)) >= self.model.context:
                raise Rejection(400, param="input_tokens")

    def _check_stops(self, body: Any) -> None:
        if self.dialect != "ollama" and len(body.get("stop") or ()) > 4:
            raise Rejection(400, param="stop")

    def _check_tools(self, body: Any) -> None:
        if body.get("tools") and "tools" in self.lacks:
            refusal = Rejection(500 if self.dialect == "openai" else 400)
            refusal.error["message"] = f"{openai_tools.REFUSALS[self.dialect]} {SECRET}"
            raise refusal

    def _check_plain(self, body: Any) -> None:
        unknown = body.keys() - _PLAIN_FIELDS
        if unknown:
            raise Rejection(400, param=min(unknown), code="unknown_parameter")
        wrong = "max_completion_tokens" if "modern" in self.lacks else "max_tokens"
        if wrong in body:
            raise Rejection(400, param=wrong, code="unsupported_parameter")
        if "temperature" in self.lacks and body.get("temperature", 1) != 1:
            raise Rejection(400, param="temperature", code="unsupported_value")
        if "reasoning_effort" in body and ("quiet" in self.lacks or not self.model.thinks):
            raise Rejection(400, param="reasoning_effort", code="unsupported_parameter")

    def _produce(self, body: Any, turns: Turns, fault: Fault) -> tuple[list[str], list[str], str]:
        """Thoughts, words and why it ended."""
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or 16
        thoughts = tokens_of(self.model.thoughts) if self.model.thinks and _thinking(body) else []
        if fault is Fault.OUT_OF_TOKENS:
            return tokens_of(self.model.thoughts)[:limit], [], "length"
        words = tokens_of(body["fill"] if "fill" in body else self.model.text(_schema(body), turns))
        cut = len(thoughts) + len(words) > limit
        kept = words[: max(0, limit - len(thoughts))]
        for stop in body.get("stop") or ():
            if stop in "".join(kept):
                return thoughts, tokens_of("".join(kept).partition(stop)[0]), "stop"
        return (
            thoughts[:limit],
            kept,
            "content_filter" if fault is Fault.BLOCKED_ANSWER else "length" if cut else "stop",
        )

    async def _whole(self, body: Any, answering: Answering, fault: Fault, *, batch: bool) -> None:
        conversations = body["messages"] if batch else [body["messages"]]
        choices, usage = [], TokenCount()
        for index, turns in enumerate(conversations):
            thoughts, words, why = self._produce(body, turns, fault)
            await asyncio.sleep(self.token_s * len(thoughts + words))
            usage += self._count(body, turns, len(thoughts), len(words))
            message = self._message(thoughts, words)
            if called := openai_tools.made(body, turns, self.model.calls, self.dialect):
                message, why = openai_tools.message(called), "tool_calls"
            logprobs = self._logprobs(body, turns) if body.get("logprobs") else None
            said = {"text": "".join(words)} if "fill" in body else {"message": message}
            choices.append({"index": index, **said, "finish_reason": why, "logprobs": logprobs})
        if batch:
            usage = msgspec.structs.replace(usage, cached=0)  # which nobody is told
        self.billed += usage
        reply = json.dumps(
            {"model": body["model"], "choices": choices, "usage": self._usage(usage, batch=batch)}
        ).encode()
        if fault is Fault.SLOW_TRICKLE:
            await self._trickle(answering, reply)
        elif fault is Fault.EMPTY_REPLY:
            await answering.whole(200, b"")
        else:
            await self._give(answering, reply, fault)
        if fault not in _SPOILT:
            self.tell(body, self._tellable(usage))

    async def _give(self, answering: Answering, reply: bytes, fault: Fault) -> None:
        half = reply[: len(reply) // 2]
        if fault is Fault.DROPPED_MIDWAY:
            await answering.begin(200, {"content-type": "application/json", "content-length": str(len(reply))})
            await answering.send(half)
            raise HungUp
        await answering.whole(200, half if fault in (Fault.MALFORMED_JSON, Fault.TRUNCATED_STREAM) else reply)

    async def _trickle(self, answering: Answering, reply: bytes) -> None:
        await answering.begin(200, _CHUNKED | {"content-type": "application/json"})
        await answering.chunk(reply[:9])
        await asyncio.sleep(self.slow_s)
        await answering.chunk(reply[9:])
        await answering.chunk(b"")

    def _message(self, thoughts: list[str], words: list[str]) -> dict[str, Any]:
        if self.model.thinks == "inline" and thoughts:
            return {"role": "assistant", "content": f"<think>{''.join(thoughts)}</think>\n\n{''.join(words)}"}
        reasoning = {"reasoning": "".join(thoughts)} if thoughts else {}
        return {"role": "assistant", "content": "".join(words), **reasoning}

    def _count(self, body: Any, turns: Turns, thoughts: int, words: int) -> TokenCount:
        offered = tokens_of(json.dumps(body["tools"])) if "tools" in body else []
        prompt = self.model.prompt_tokens(turns, _thinking(body)) + len(offered)
        return TokenCount(input=prompt, cached=prompt // 2, output=words, thinking=thoughts)

    def _usage(self, count: TokenCount, *, batch: bool = False) -> dict[str, Any]:
        usage: dict[str, Any] = {"prompt_tokens": count.input, "completion_tokens": count.output + count.thinking}
        # As vLLM, which tells nothing of a batch's cache.
        usage["prompt_tokens_details"] = None if self.dialect == "ollama" or batch else {"cached_tokens": count.cached}
        if self.dialect != "ollama":
            usage["completion_tokens_details"] = {"reasoning_tokens": count.thinking}
        return usage

    def _tellable(self, count: TokenCount) -> TokenCount:
        """Ollama tells neither what came from its cache nor what was thought."""
        if self.dialect != "ollama":
            return count
        return TokenCount(input=count.input, output=count.output + count.thinking)

    def _logprobs(self, body: Any, turns: Turns) -> dict[str, Any]:
        likely = self.model.first_tokens(turns)
        ids = body.get("logprob_token_ids") if "ignored_token_ids" not in self.lacks else None
        if ids is not None and self.dialect == "vllm":
            named = {f"token_id:{number}": likely.get(self.model.token(number), self.model.unlikely) for number in ids}
        else:
            named = dict(list(likely.items())[: body.get("top_logprobs", 0)])
        top = [{"token": token, "logprob": value, "bytes": None} for token, value in named.items()]
        return {"content": [{"token": next(iter(likely)), "logprob": -0.5, "top_logprobs": top}]}

    async def _stream(self, body: Any, answering: Answering, fault: Fault) -> None:
        await answering.begin(200, _CHUNKED)
        if fault is not Fault.EMPTY_REPLY:
            used = [TokenCount(), TokenCount()]
            try:
                await self._say(body, answering, fault, used)
            finally:
                self.billed += used[0]
                self.tell(body, used[1])
        await answering.chunk(b"")

    async def _say(self, body: Any, answering: Answering, fault: Fault, used: list[TokenCount]) -> None:
        """`used` holds what is billed and what was told so far."""
        thoughts, words, why = self._produce(body, body["messages"], fault)
        deltas = self._deltas(thoughts, words)
        if called := openai_tools.made(body, body["messages"], self.model.calls, self.dialect):
            deltas, why = openai_tools.deltas(called, self.dialect), "tool_calls"
        for number, delta in enumerate(deltas):
            await asyncio.sleep(self.slow_s if fault is Fault.SLOW_TRICKLE and number == 1 else self.token_s)
            thought = min(number + 1, len(thoughts))
            used[0] = self._count(body, body["messages"], thought, min(number + 1 - thought, len(words)))
            await self._chunk(answering, body, [{"index": 0, "delta": delta, "finish_reason": None}], used)
            if number == 1:
                await self._spoil(answering, fault)
        used[0] = self._count(body, body["messages"], len(thoughts), len(words))
        if fault is Fault.TRUNCATED_STREAM:
            return
        await self._chunk(answering, body, [{"index": 0, "delta": {}, "finish_reason": why}], used)
        if (body.get("stream_options") or {}).get("include_usage"):
            await self._chunk(answering, body, [], used, last=True)
        await answering.chunk(b"data: [DONE]\n\n")

    def _deltas(self, thoughts: list[str], words: list[str]) -> list[dict[str, Any]]:
        if self.model.thinks == "inline" and thoughts:
            return [{"content": piece} for piece in ["<th", "ink>", *thoughts, "</thi", "nk>\n", "\n", *words]]
        return [*({"reasoning": piece} for piece in thoughts), *({"content": piece} for piece in words)]

    async def _spoil(self, answering: Answering, fault: Fault) -> None:
        if fault is Fault.MALFORMED_JSON:
            await answering.chunk(b'data: {"choices": [\n\n')
            raise HungUp  # what came later, nobody would read
        if fault is Fault.ERROR_IN_STREAM:
            error = {"message": SECRET, "type": "InternalServerError", "param": None, "code": 500}
            await answering.chunk(b"data: %s\n\n" % json.dumps({"error": error}).encode())
        if fault in (Fault.DROPPED_MIDWAY, Fault.MALFORMED_JSON, Fault.ERROR_IN_STREAM):
            raise HungUp

    async def _chunk(
        self, answering: Answering, body: Any, choices: Any, used: list[TokenCount], *, last: bool = False
    ) -> None:
        running = self.dialect == "vllm" and (body.get("stream_options") or {}).get("continuous_usage_stats")
        if "fill" in body:
            choices = [{**choice, "text": choice["delta"].get("content", "")} for choice in choices]
        chunk: dict[str, Any] = {"model": body["model"], "choices": choices}
        if last or running:
            chunk["usage"] = self._usage(used[0])
            used[1] = self._tellable(used[0])
        await answering.chunk(b"data: %s\n\n" % json.dumps(chunk).encode())


def _is_turn(turn: Any) -> bool:
    if turn["role"] == "tool" or "tool_calls" in turn:
        return openai_tools.is_about_tools(turn)
    said = turn["content"]
    good = isinstance(said, str) or (said and all(url.startswith("data:image/") for url in pictures_of(turn)))
    return bool(good) and turn["role"] in ("system", "user", "assistant")


def _schema(body: Any) -> Any:
    form = body.get("response_format") or {}
    return form["json_schema"]["schema"] if form.get("type") == "json_schema" else None


def _thinking(body: Any) -> bool:
    """Whether a model that can think is to do it."""
    kwargs = body.get("chat_template_kwargs") or {}
    return body.get("reasoning_effort") != "none" and all(kwargs.values())
