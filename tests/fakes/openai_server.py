"""A server that speaks OpenAI's protocol over a real socket, in the dialect of vLLM, of Ollama, or plainly."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from app.domain import TokenCount
from tests.fakes.faults import Fault
from tests.fakes.loopback import Dropped, Exchange, LoopbackServer, Request
from tests.fakes.openai_model import FakeModel, Turns, pictures_of, tokens_of

Dialect = Literal["vllm", "ollama", "openai"]

SECRET = "EVIL raw text of the provider <b>sk-live-123</b>"
"""Stands in every error; it must never come out at our end."""

_PLAIN_FIELDS = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "stop"}
    | {"seed", "response_format", "logprobs", "top_logprobs", "reasoning_effort"}
)

_STATUS: Mapping[Fault, tuple[int, dict[str, Any], dict[str, str]]] = {
    Fault.BAD_REQUEST: (400, {"type": "BadRequestError", "code": 400}, {}),
    Fault.UNAUTHORIZED: (401, {"type": "invalid_request_error", "code": "invalid_api_key"}, {}),
    Fault.FORBIDDEN: (403, {"type": "permission_error", "code": "forbidden"}, {}),
    Fault.UNKNOWN_MODEL: (404, {"type": "NotFoundError", "code": 404}, {}),
    Fault.REQUEST_TIMEOUT: (408, {"type": "timeout", "code": None}, {}),
    Fault.RATE_LIMITED_WITH_DELAY: (429, {"type": "requests", "code": "rate_limit_exceeded"}, {"Retry-After": "7"}),
    Fault.RATE_LIMITED: (429, {"type": "requests", "code": "rate_limit_exceeded"}, {}),
    Fault.QUOTA_OF_THE_DAY: (429, {"type": "insufficient_quota", "code": "insufficient_quota"}, {}),
    Fault.SERVER_ERROR: (500, {"type": "InternalServerError", "code": 500}, {}),
    Fault.UNAVAILABLE: (503, {"type": "ServiceUnavailableError", "code": 503}, {"Retry-After": "2"}),
    Fault.BLOCKED_PROMPT: (400, {"type": "invalid_request_error", "code": "content_filter"}, {}),
}


class Rejection(Exception):
    """The server's own answer to a request that it does not take."""

    def __init__(self, status: int, param: str | None = None, code: object = None, headers: Any = None) -> None:
        super().__init__(status)
        self.status = status
        self.error = {"message": SECRET, "type": "BadRequestError", "param": param, "code": code or status}
        self.headers = headers or {}


@dataclass
class OpenAIServer:
    """`faults` are those of the coming model calls, one each; afterwards all is well.

    `billed` is what the model calls used, cut ones too: they stop when the client leaves. `lacks` names what an older
    server does not have: "batch", "tokenize", "logprob_token_ids" (refused), "ignored_token_ids" (without effect),
    "logprobs", "structured", "version", "models", "modern" (max_completion_tokens), "temperature" (other than 1),
    "quiet" (a way not to think).
    """

    dialect: Dialect = "vllm"
    model: FakeModel = field(default_factory=FakeModel)
    others: tuple[str, ...] = ()
    faults: Iterable[Fault] = ()
    api_key: str | None = None
    lacks: frozenset[str] = frozenset()
    token_s: float = 0.0
    slow_s: float = 0.25
    slots: int | None = None
    load_s: float = 0.0
    version: str = "0.32.0"
    requests: list[Request] = field(default_factory=list)
    billed: TokenCount = field(default_factory=TokenCount)
    busy: int = 0
    most_busy: int = 0

    def __post_init__(self) -> None:
        self.http = LoopbackServer(self._handle)
        self._faults: Iterator[Fault] = iter(self.faults)
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"{self.http.root}/v1"

    def bodies(self, path: str = "/v1/chat/completions") -> list[Any]:
        """What was posted there."""
        return [request.json() for request in self.requests if request.path == path]

    def expect(self, *faults: Fault) -> None:
        """The faults of the coming calls."""
        self._faults = iter(faults)

    async def until_busy(self, calls: int) -> None:
        """Returns when so many model calls are being worked at."""
        async with asyncio.timeout(5):
            while self.busy != calls:
                self._changed.clear()
                await self._changed.wait()

    async def _handle(self, request: Request, exchange: Exchange) -> None:
        self.requests.append(request)
        try:
            self._authorise(request)
            await self._route(request, exchange)
        except Rejection as exc:
            await exchange.reply(exc.status, json.dumps({"error": exc.error}).encode(), headers=exc.headers)

    def _authorise(self, request: Request) -> None:
        guarded = request.path.startswith("/v1")
        if guarded and self.api_key is not None and request.headers.get("authorization") != f"Bearer {self.api_key}":
            raise Rejection(401, code="invalid_api_key")

    async def _route(self, request: Request, exchange: Exchange) -> None:
        known: dict[str, Any] = {"/v1/models": self._models}
        if self.dialect == "vllm":
            known |= {
                "/tokenize": self._tokenize,
                "/version": lambda _: {"version": self.version},
                "/health": lambda _: "",
            }
        if self.dialect == "ollama":
            known |= {"/api/version": lambda _: {"version": self.version}, "/api/show": self._show}
            known |= {"/api/ps": self._loaded, "/api/tags": lambda _: {"models": [{"name": self.model.name}]}}
        if request.path in known and request.path.rpartition("/")[2] not in self.lacks:
            await exchange.reply(200, json.dumps(known[request.path](request.json())).encode())
        elif request.path == "/v1/chat/completions":
            await self._serve_call(request.json(), exchange)
        elif request.path == "/v1/chat/completions/batch" and self.dialect == "vllm" and "batch" not in self.lacks:
            await self._serve_call(request.json(), exchange, batch=True)
        else:
            await exchange.reply(404, b'{"detail":"Not Found"}')

    def _models(self, _: Any) -> Any:
        extra = {"max_model_len": self.model.context} if self.dialect == "vllm" else {}
        names = (self.model.name, *self.others)
        return {"object": "list", "data": [{"id": name, "object": "model", **extra} for name in names]}

    def _tokenize(self, body: Any) -> Any:
        thinking = all((body.get("chat_template_kwargs") or {}).values())
        text = body["prompt"] if "prompt" in body else self.model.render(body["messages"], thinking)
        ids = [self.model.token_id(token) for token in tokens_of(text)]
        start = [2] if body.get("add_special_tokens", "prompt" in body) else []
        return {"count": len(start + ids), "max_model_len": self.model.context, "tokens": start + ids}

    def _show(self, body: Any) -> Any:
        if "embed" in body["model"]:
            return {"capabilities": ["embedding"]}
        abilities = [
            "completion",
            *(["vision"] if self.model.sees else []),
            *(["thinking"] if self.model.thinks else []),
        ]
        return {"capabilities": abilities, "model_info": {"tiny.context_length": 131072}}

    def _loaded(self, _: Any) -> Any:
        return {"models": [{"name": self.model.name, "model": self.model.name, "context_length": self.model.context}]}

    async def _serve_call(self, body: Any, exchange: Exchange, *, batch: bool = False) -> None:
        fault = next(self._faults, Fault.OK)
        if fault is Fault.DROPPED_BEFORE:
            raise Dropped
        if fault is Fault.HTML_PAGE:
            return await exchange.reply(502, f"<html>{SECRET}</html>".encode(), media_type="text/html")
        if fault in _STATUS:
            status, error, headers = _STATUS[fault]
            raised = Rejection(status, headers=headers)
            raised.error |= error
            raise raised
        if fault is Fault.ERROR_IN_STREAM and not body.get("stream"):
            raise Rejection(500)
        async with self._slot():
            await asyncio.sleep(self.load_s + (self.slow_s if fault is Fault.SLOW_FIRST_BYTE else 0))
            self._check(body, body["messages"] if batch else [body["messages"]])
            await (self._stream if body.get("stream") else self._whole)(body, exchange, fault, batch=batch)
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
        schema = _schema(body)
        if schema is not None and ("structured" in self.lacks or '"uniqueItems": true' in json.dumps(schema)):
            raise Rejection(400, param="response_format")
        if body.get("logprobs") and ("logprobs" in self.lacks or body.get("top_logprobs", 0) > 20):
            raise Rejection(400, param="logprobs")
        if "logprob_token_ids" in body and "logprob_token_ids" in self.lacks:
            raise Rejection(400, param="logprob_token_ids")
        for turns in conversations:
            if not self.model.sees and any(pictures_of(turn) for turn in turns):
                raise Rejection(400)
            if self.model.prompt_tokens(turns, _thinking(body)) >= self.model.context:
                raise Rejection(400, param="input_tokens")

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

    def _produce(self, body: Any, fault: Fault) -> tuple[list[str], list[str], str]:
        """Thoughts, words and why it ended."""
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or 16
        thoughts = tokens_of(self.model.thoughts) if self.model.thinks and _thinking(body) else []
        if fault is Fault.OUT_OF_TOKENS:
            return tokens_of(self.model.thoughts)[:limit], [], "length"
        words = tokens_of(self.model.text(_schema(body)))
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

    async def _whole(self, body: Any, exchange: Exchange, fault: Fault, *, batch: bool) -> None:
        conversations = body["messages"] if batch else [body["messages"]]
        choices, usage = [], TokenCount()
        for index, turns in enumerate(conversations):
            thoughts, words, why = self._produce(body, fault)
            await asyncio.sleep(self.token_s * len(thoughts + words))
            usage += self._count(body, turns, len(thoughts), len(words))
            message = self._message(thoughts, words)
            finish = None if fault is Fault.TRUNCATED_STREAM else why
            logprobs = self._logprobs(body, turns) if body.get("logprobs") else None
            choices.append({"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs})
        self.billed += usage
        reply = json.dumps({"model": body["model"], "choices": choices, "usage": self._usage(usage)}).encode()
        if fault is Fault.SLOW_TRICKLE:
            await self._trickle(exchange, reply)
        elif fault is Fault.EMPTY_REPLY:
            await exchange.reply(200, b"")
        else:
            half = len(reply) // 2
            whole = fault is not Fault.MALFORMED_JSON
            await exchange.reply(
                200, reply if whole else reply[:half], cut=half if fault is Fault.DROPPED_MIDWAY else None
            )

    async def _trickle(self, exchange: Exchange, reply: bytes) -> None:
        await exchange.begin_stream("application/json")
        await exchange.send(reply[:9])
        await asyncio.sleep(self.slow_s)
        await exchange.send(reply[9:])
        await exchange.end_stream()

    def _message(self, thoughts: list[str], words: list[str]) -> dict[str, Any]:
        if self.model.thinks == "inline" and thoughts:
            return {"role": "assistant", "content": f"<think>{''.join(thoughts)}</think>\n\n{''.join(words)}"}
        reasoning = {"reasoning": "".join(thoughts)} if thoughts else {}
        return {"role": "assistant", "content": "".join(words), **reasoning}

    def _count(self, body: Any, turns: Turns, thoughts: int, words: int) -> TokenCount:
        prompt = self.model.prompt_tokens(turns, _thinking(body))
        return TokenCount(input=prompt, cached=prompt // 2, output=words, thinking=thoughts)

    def _usage(self, count: TokenCount) -> dict[str, Any]:
        usage: dict[str, Any] = {"prompt_tokens": count.input, "completion_tokens": count.output + count.thinking}
        usage["prompt_tokens_details"] = None if self.dialect == "ollama" else {"cached_tokens": count.cached}
        if self.dialect != "ollama":
            usage["completion_tokens_details"] = {"reasoning_tokens": count.thinking}
        return usage

    def _logprobs(self, body: Any, turns: Turns) -> dict[str, Any]:
        likely = self.model.first_tokens(turns)
        ids = body.get("logprob_token_ids") if "ignored_token_ids" not in self.lacks else None
        if ids is not None and self.dialect == "vllm":
            named = {f"token_id:{number}": likely.get(self.model.token(number), -9999.0) for number in ids}
        else:
            named = dict(list(likely.items())[: body.get("top_logprobs", 0)])
        top = [{"token": token, "logprob": value, "bytes": None} for token, value in named.items()]
        return {"content": [{"token": next(iter(likely)), "logprob": -0.5, "top_logprobs": top}]}

    async def _stream(self, body: Any, exchange: Exchange, fault: Fault, *, batch: bool) -> None:
        thoughts, words, why = self._produce(body, fault)
        await exchange.begin_stream()
        if fault is Fault.EMPTY_REPLY:
            return await exchange.end_stream()
        sent = TokenCount()
        try:
            for number, delta in enumerate(self._deltas(thoughts, words)):
                await asyncio.sleep(self.slow_s if fault is Fault.SLOW_TRICKLE and number == 1 else self.token_s)
                sent = self._count(
                    body, body["messages"], min(number + 1, len(thoughts)), max(0, number + 1 - len(thoughts))
                )
                await self._chunk(exchange, body, [{"index": 0, "delta": delta, "finish_reason": None}], sent)
                if number == 1:
                    await self._spoil(exchange, fault)
            sent = self._count(body, body["messages"], len(thoughts), len(words))
            if fault is not Fault.TRUNCATED_STREAM:
                await self._chunk(exchange, body, [{"index": 0, "delta": {}, "finish_reason": why}], sent)
                if (body.get("stream_options") or {}).get("include_usage"):
                    await self._chunk(exchange, body, [], sent, usage=True)
                await exchange.send(b"data: [DONE]\n\n")
        finally:
            self.billed += sent
        return await exchange.end_stream()

    def _deltas(self, thoughts: list[str], words: list[str]) -> list[dict[str, str]]:
        if self.model.thinks == "inline" and thoughts:
            return [{"content": piece} for piece in ["<th", "ink>", *thoughts, "</thi", "nk>\n", "\n", *words]]
        return [*({"reasoning": piece} for piece in thoughts), *({"content": piece} for piece in words)]

    async def _spoil(self, exchange: Exchange, fault: Fault) -> None:
        if fault is Fault.DROPPED_MIDWAY:
            raise Dropped
        if fault is Fault.MALFORMED_JSON:
            await exchange.send(b'data: {"choices": [\n\n')
        if fault is Fault.ERROR_IN_STREAM:
            error = {"message": SECRET, "type": "InternalServerError", "param": None, "code": 500}
            await exchange.send(b"data: %s\n\ndata: [DONE]\n\n" % json.dumps({"error": error}).encode())
            raise Dropped

    async def _chunk(self, exchange: Exchange, body: Any, choices: Any, sent: TokenCount, usage: bool = False) -> None:
        running = self.dialect == "vllm" and (body.get("stream_options") or {}).get("continuous_usage_stats")
        chunk: dict[str, Any] = {"model": body["model"], "choices": choices}
        if usage or running:
            chunk["usage"] = self._usage(sent)
        await exchange.send(b"data: %s\n\n" % json.dumps(chunk).encode())


def _schema(body: Any) -> Any:
    form = body.get("response_format") or {}
    return form["json_schema"]["schema"] if form.get("type") == "json_schema" else None


def _thinking(body: Any) -> bool:
    """Whether a model that can think is to do it."""
    kwargs = body.get("chat_template_kwargs") or {}
    return body.get("reasoning_effort") != "none" and all(kwargs.values())
