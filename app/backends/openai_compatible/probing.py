"""Finds out what an OpenAI-style server is and can do: from what it describes, else by trying.

                    vLLM                                  Ollama            others
model, context      /v1/models                            /api/show, ps     /v1/models
thinking            two renderings by /tokenize differ    /api/show         it thinks in a small reply
images              a small picture                       /api/show         a small picture
structured          a small reply                         always            a small reply
log-probabilities   one token, by each method in turn     by its version    one token
decisions           a small question                      by its version    a small question
infilling           its markers are tokens by /tokenize   /api/show         as vLLM
"""

import base64
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from app.backends.base import Capability, DecisionQuestion, Message, Probed
from app.backends.openai_compatible.decisions import OpenAIDecider, VllmDecider, WireDecider
from app.backends.openai_compatible.infilling import Infilling, likely_markers
from app.backends.openai_compatible.messages import (
    Body,
    Completion,
    Limit,
    LoadedModel,
    Model,
    Traits,
    base_body,
    messages,
    response_format,
    without_thoughts,
)
from app.backends.openai_compatible.scoring import METHODS, LogprobScorer, Method
from app.backends.openai_compatible.wire import Wire
from app.backends.settings import BackendSettings
from app.backends.status import NoSuchRoute, listed
from app.domain import Image, TokenCount
from app.errors import InvalidRequest, Refused, UpstreamBadReply, UpstreamRejected, UpstreamUnavailable

_GREETING = (Message(role="user", content="Answer with 1 or 0: 1"),)
_LABELS = ("0", "1")
_PICTURE = Image(  # 32 by 32 and white: some models refuse smaller ones
    data=base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAFklEQVR42mP4TwAwjCoYVTCqYKQqAAA/aPwuqUTQyAAAAABJRU5ErkJggg=="
    ),
    media_type="image/png",
)
_OBJECT: Mapping[str, Any] = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
_FEW_TOKENS = 16
_TAIL_TOKENS = 16
"""Of a prompt, to see how it ends."""
_SWITCHES = ("enable_thinking", "thinking")
"""Names of the switch in chat templates: of Qwen and most others; of DeepSeek and Granite."""
_OLLAMA_LOGPROBS = (0, 12, 11)
_OLLAMA_DECISIONS = (0, 35)
_QUESTION = DecisionQuestion(instructions="Whether the input is a digit.")
_CHAT = "chat/completions"
_WAYS: Sequence[tuple[bool, Limit]] = (
    (True, "max_tokens"),
    (True, "max_completion_tokens"),
    (False, "max_completion_tokens"),
    (False, "max_tokens"),
)

Findings = tuple[Probed, Traits, LogprobScorer | None, WireDecider | None]


async def probed(wire: Wire, settings: BackendSettings, timeout_s: float) -> Findings:
    """What was found, how to call the model, and its scorer. `timeout_s` is for each request. Raises UpstreamError."""
    return await _PROBES.get(settings.kind, _Probe)(wire, settings, timeout_s).findings()


class _Probe:
    """A server about which nothing is known beforehand."""

    def __init__(self, wire: Wire, settings: BackendSettings, timeout_s: float) -> None:
        self._wire = wire
        self._settings = settings
        self._timeout_s = timeout_s
        self._requests, self._tokens = 0, TokenCount()

    async def findings(self) -> Findings:
        models = await self._models()
        model = await self._choose(models)
        self._wire.peer = msgspec.structs.replace(self._wire.peer, model=model, models=tuple(models))
        context = await self._context(model, models)
        self._wire.peer = msgspec.structs.replace(self._wire.peer, context_tokens=context)
        server = await self._server()
        traits = await self._traits(model)
        scorer = await self._scorer(traits)
        decider = await self._decider(model)
        able = {"chat", *await self._abilities(traits)}
        able |= {"logprobs"} if scorer else set()
        able |= {"decide"} if decider else set()
        able |= {"thinking"} if traits.quiet else set()
        if infill := await self._infill(model, models):
            able.add("infill")
            traits = msgspec.structs.replace(traits, infill=infill)
        result = Probed(
            model=model,
            capabilities=msgspec.convert(able, frozenset[Capability]),
            context_tokens=context,
            server=server,
            requests=self._requests,
            tokens=self._tokens,
        )
        return result, traits, scorer, decider

    async def _models(self) -> dict[str, Model]:
        """The models served, by name; {} when the server does not list them and one is configured."""
        try:
            served = await self._wire.get("models", "data", tuple[Model, ...], self._timeout_s, ())
        except NoSuchRoute:
            if self._settings.model is None:
                raise
            served = ()
        return {model.id: model for model in served}

    async def _choose(self, models: Mapping[str, Model]) -> str:
        """The configured model, or the first."""
        name, configured = self._wire.peer.name, self._settings.model
        if configured is None:
            if not models:
                raise UpstreamRejected(name, f"{name} serves no model yet; {self._remedy('NAME')}")
            return next(iter(models))
        if models and configured not in models:
            has = listed(tuple(models))
            raise UpstreamRejected(
                name, f"{name} does not have the model {configured!r}; {self._remedy(configured)}. It has {has}"
            )
        return configured

    def _remedy(self, model: str) -> str:
        return f"set `model` in [backends.{self._wire.peer.name}] to one that it has"

    async def _context(self, model: str, models: Mapping[str, Model]) -> int | None:
        return models[model].context_tokens if model in models else None

    async def _server(self) -> str:
        return ""

    async def _traits(self, model: str) -> Traits:
        """Older servers ignore max_completion_tokens, so it comes second; OpenAI's newer models require it."""
        ways = [Traits(kind=self._settings.kind, model=model, limit=limit, exact=exact) for exact, limit in _WAYS]
        for traits in ways[:-1]:
            with suppress(UpstreamRejected):
                return await self._greeted(traits)
        return await self._greeted(ways[-1])

    async def _greeted(self, traits: Traits) -> Traits:
        body = base_body(traits, _FEW_TOKENS) | {"messages": messages(_GREETING)}
        reply = await self._asked(body)
        return await self._quietened(traits) if _thinks(reply) else traits

    async def _quietened(self, traits: Traits) -> Traits:
        """Traits with the first fields that stop the model from thinking; unchanged if none do."""
        for quiet in _QUIETS:
            quieter = msgspec.structs.replace(traits, quiet=quiet)
            reply = await self._tried(base_body(quieter, _FEW_TOKENS) | {"messages": messages(_GREETING)})
            if reply is not None and not _thinks(reply):
                return quieter
        return traits

    async def _scorer(self, traits: Traits) -> LogprobScorer | None:
        for method in self._methods():
            scorer = LogprobScorer(self._wire, traits, method, self._settings.concurrency)
            try:
                scoring = await scorer.score([_GREETING], _LABELS, self._timeout_s)
            except (UpstreamRejected, UpstreamBadReply, InvalidRequest):
                continue
            except UpstreamUnavailable:
                await self._models()
                continue
            self._count(scoring.tokens)
            scores = scoring.scores[0]
            if scores and (not method.by_id or None not in scores.logprobs):
                return scorer
        return None

    def _methods(self) -> Sequence[Method]:
        return METHODS[-1:]

    async def _decider(self, model: str) -> WireDecider | None:
        """The first kind that the server answers a small question by."""
        for kind in self._deciders():
            decider = kind(self._wire, model)
            try:
                decision = await decider.decide("1", (_QUESTION,), self._timeout_s)
            except (UpstreamRejected, UpstreamBadReply, Refused):
                continue
            except UpstreamUnavailable:
                await self._models()
                continue
            self._count(decision.tokens)
            return decider
        return None

    def _deciders(self) -> Sequence[type[WireDecider]]:
        return (OpenAIDecider,)

    async def _infill(self, model: str, models: Mapping[str, Model]) -> Infilling | None:
        """The markers that its name leads to expect, if they are tokens; without /tokenize nobody knows."""
        root = models[model].root if model in models else None
        for markers in likely_markers(model, root or ""):
            try:
                texts = (*markers.tokens(), *markers.ends)
                tokens = [await self._tokens_of(model, text) for text in texts]
            except (UpstreamRejected, UpstreamBadReply):
                return None
            except UpstreamUnavailable:
                await self._models()
                return None
            if all(len(ids) == 1 for ids in tokens[: len(markers.tokens())]):
                return msgspec.structs.replace(markers, end_ids=tuple(ids[0] for ids in tokens if len(ids) == 1))
        return None

    async def _tokens_of(self, model: str, text: str) -> tuple[int, ...]:
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        return await self._wire.post("/tokenize", body, "tokens", tuple[int, ...], self._timeout_s)

    async def _abilities(self, traits: Traits) -> set[str]:
        """Structured output, pictures."""
        body = base_body(traits, _FEW_TOKENS) | {"messages": messages(_GREETING)}
        formed = await self._tried(body | {"response_format": response_format(_OBJECT, traits.kind)})
        picture = (msgspec.structs.replace(_GREETING[0], images=(_PICTURE,)),)
        seen = await self._tried(body | {"messages": messages(picture)})
        able = {"structured"} if formed is not None and self._is_formed(formed) else set()
        return able | {"images"} if seen is not None else able

    def _is_formed(self, reply: Completion) -> bool:
        """Whether the server kept to the schema: some ignore fields that they do not know."""
        return without_thoughts(reply.choices[0].message.text).lstrip()[:1] in ("", "{")

    async def _tried(self, body: Body) -> Completion | None:
        """The reply; None when the server rejects the request. Some do so with 500, so check that it is still there."""
        try:
            return await self._asked(body)
        except (UpstreamRejected, UpstreamBadReply, Refused):
            return None
        except UpstreamUnavailable:
            await self._models()
            return None

    async def _asked(self, body: Body) -> Completion:
        reply = await self._wire.complete(_CHAT, body, self._timeout_s)
        self._count(reply.tokens or TokenCount())
        return reply

    def _count(self, tokens: TokenCount) -> None:
        self._requests += 1
        self._tokens += tokens


class _VllmProbe(_Probe):
    """vLLM, which reports a model's context, and how it would render a conversation."""

    async def _server(self) -> str:
        try:
            return f"vLLM {await self._wire.get('/version', 'version', str, self._timeout_s)}"
        except (UpstreamRejected, UpstreamBadReply):
            return "vLLM"

    async def _traits(self, model: str) -> Traits:
        traits = Traits(kind="vllm", model=model)
        try:
            loud, quiet = [await self._rendered(model, switched) for switched in (True, False)]
        except UpstreamRejected:  # a gateway lets only /v1 through, or the template takes no switches
            return await super()._traits(model)
        switches = {} if loud == quiet else _template_switches(on=False)
        opened = await self._opens_thought(model, quiet)
        return msgspec.structs.replace(traits, quiet=switches, opened=opened)

    async def _opens_thought(self, model: str, rendered: tuple[int, ...]) -> bool:
        """Whether the prompt ends with the beginning of a thought, so that a reply may hold its end alone."""
        body = {"model": model, "tokens": rendered[-_TAIL_TOKENS:]}
        try:
            tail = await self._wire.post("/detokenize", body, "prompt", str, self._timeout_s)
        except (UpstreamRejected, UpstreamBadReply):
            return False
        return tail.rstrip().endswith("<think>")

    async def _rendered(self, model: str, switched: bool) -> tuple[int, ...]:
        body = {"model": model, "messages": messages(_GREETING), **_template_switches(on=switched)}
        return await self._wire.post("/tokenize", body, "tokens", tuple[int, ...], self._timeout_s)

    def _methods(self) -> Sequence[Method]:
        return METHODS

    def _deciders(self) -> Sequence[type[WireDecider]]:
        return (VllmDecider, OpenAIDecider)

    def _is_formed(self, reply: Completion) -> bool:
        return True


class _OllamaProbe(_Probe):
    """Ollama, which reports everything without loading the model: that may take minutes and unload another one."""

    async def _choose(self, models: Mapping[str, Model]) -> str:
        configured = self._settings.model
        if configured is not None:
            tagged = f"{configured}:latest"
            return tagged if tagged in models else await super()._choose(models)
        for name in models:
            if "completion" in await self._shown(name):
                return name
        return await super()._choose({})

    def _remedy(self, model: str) -> str:
        return f"`ollama pull {model}` gets it"

    async def _context(self, model: str, models: Mapping[str, Model]) -> int | None:
        """The context that the model was loaded with; Ollama may give it less than it could take."""
        loaded = await self._wire.get("/api/ps", "models", tuple[LoadedModel, ...], self._timeout_s, ())
        return next((entry.context_length for entry in loaded if entry.name == model), None)

    async def _server(self) -> str:
        return f"Ollama {await self._wire.get('/api/version', 'version', str, self._timeout_s)}"

    async def _traits(self, model: str) -> Traits:
        thinks = "thinking" in await self._shown(model)
        return Traits(kind="ollama", model=model, quiet={"reasoning_effort": "none"} if thinks else {})

    async def _scorer(self, traits: Traits) -> LogprobScorer | None:
        if await self._version() < _OLLAMA_LOGPROBS:
            return None
        return LogprobScorer(self._wire, traits, METHODS[-1], self._settings.concurrency)

    async def _decider(self, model: str) -> WireDecider | None:
        return await super()._decider(model) if await self._version() >= _OLLAMA_DECISIONS else None

    async def _version(self) -> tuple[int, ...]:
        return tuple(int(number) for number in re.findall(r"\d+", await self._server())[:3])

    async def _abilities(self, traits: Traits) -> set[str]:
        sees = "vision" in await self._shown(traits.model)
        return {"structured", "images"} if sees else {"structured"}

    async def _infill(self, model: str, models: Mapping[str, Model]) -> Infilling | None:
        return "suffix" if "insert" in await self._shown(model) else None

    async def _shown(self, model: str) -> tuple[str, ...]:
        """The capabilities that Ollama says the model has."""
        return await self._wire.post(
            "/api/show", {"model": model}, "capabilities", tuple[str, ...], self._timeout_s, ()
        )


def _thinks(reply: Completion) -> bool:
    message = reply.choices[0].message
    counted = reply.tokens.thinking if reply.tokens else 0
    return message.thought or counted > 0 or message.text.lstrip().startswith("<think>")


def _template_switches(*, on: bool) -> Body:
    return {"chat_template_kwargs": dict.fromkeys(_SWITCHES, on)}


_QUIETS: Sequence[Body] = ({"reasoning_effort": "none"}, {"reasoning_effort": "minimal"}, _template_switches(on=False))
_PROBES: Mapping[str, type[_Probe]] = {"vllm": _VllmProbe, "ollama": _OllamaProbe}
