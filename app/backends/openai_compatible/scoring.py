"""First-token log-probabilities from an OpenAI-style server.

vLLM is asked for the tokens of the labels themselves (`logprob_token_ids`), and for many conversations in one request
(/v1/chat/completions/batch): its own chat template renders them, so there is no second start token and no copy of the
template on our side. Other servers tell the 20 likeliest tokens of one conversation at a time.

A label's log-probability is that of its token and of the same token after a space (" 1" beside "1"), summed as
probabilities: both begin the same answer, and which one a model prefers is an accident of its template.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from app.backends.base import Conversation, LabelScores, Scoring
from app.backends.openai_compatible.messages import (
    Body,
    Choice,
    Completion,
    TokenLogprob,
    Traits,
    base_body,
    messages,
)
from app.backends.openai_compatible.wire import Wire
from app.backends.status import NoSuchRoute
from app.domain import TokenCount
from app.errors import InvalidRequest, UpstreamBadReply, UpstreamError, UpstreamRejected

_MAX_TOP = 20
_MIN_LOGPROB = -9999.0
"""How vLLM writes minus infinity."""


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """How to get log-probabilities: by the labels' token ids, and for many conversations in a request."""

    by_id: bool
    batched: bool


METHODS = (Method(by_id=True, batched=True), Method(by_id=True, batched=False), Method(by_id=False, batched=False))
"""The best first."""


class LogprobScorer:
    """A `LabelScorer` by one method. At most `concurrency` requests run at once."""

    def __init__(self, wire: Wire, traits: Traits, method: Method, concurrency: int) -> None:
        self.method = method
        self._wire = wire
        self._traits = traits
        self._free = asyncio.Semaphore(concurrency)
        self._ids: dict[str, frozenset[str]] = {}

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], timeout_s: float) -> Scoring:
        """Raises InvalidRequest for labels that are no single tokens, or the same; UpstreamError when all failed."""
        labels = [label.strip() for label in labels]
        if len(set(labels)) < len(labels) or "" in labels:
            raise InvalidRequest("labels must differ in more than white space, and none may be empty")
        if not prompts:
            return Scoring(scores=(), tokens=TokenCount(), requests=0)
        until = _now() + timeout_s
        if self.method.by_id:
            await self._learn(labels, until)
        if self.method.batched:
            return await self._together(prompts, labels, until)
        return await self._one_by_one(prompts, labels, until)

    async def _together(self, prompts: Sequence[Conversation], labels: Sequence[str], until: float) -> Scoring:
        """One request. The server rejects it when one conversation is too long: then each is sent by itself."""
        body = self._body(labels) | {"messages": [messages(prompt) for prompt in prompts]}
        try:
            completion = await self._wire.complete("chat/completions/batch", body, until - _now())
        except NoSuchRoute:
            raise
        except UpstreamRejected:
            if len(prompts) == 1:
                raise
            return await self._one_by_one(prompts, labels, until, requests=1)
        by_index = {choice.index: choice for choice in completion.choices}
        scores = tuple(self._read(by_index.get(index), labels) for index in range(len(prompts)))
        return self._scoring(scores, [completion])

    async def _one_by_one(
        self, prompts: Sequence[Conversation], labels: Sequence[str], until: float, requests: int = 0
    ) -> Scoring:
        replies = await asyncio.gather(*(self._ask(prompt, labels, until) for prompt in prompts))
        completions = [reply for reply in replies if isinstance(reply, Completion)]
        if not completions:
            raise next(reply for reply in replies if isinstance(reply, UpstreamError))
        scores = (self._read(reply.choices[0], labels) if isinstance(reply, Completion) else None for reply in replies)
        return self._scoring(tuple(scores), completions, requests + len(prompts))

    async def _ask(self, prompt: Conversation, labels: Sequence[str], until: float) -> Completion | UpstreamError:
        body = self._body(labels) | {"messages": messages(prompt)}
        try:
            async with self._free:
                return await self._wire.complete("chat/completions", body, until - _now())
        except UpstreamError as exc:
            return exc

    def _body(self, labels: Sequence[str]) -> Body:
        body = base_body(self._traits, 1) | {"logprobs": True}
        if not self.method.by_id:
            return body | {"top_logprobs": _MAX_TOP}
        tokens = sorted(int(name.partition(":")[2]) for label in labels for name in self._ids[label])
        return body | {"logprob_token_ids": tokens, "return_tokens_as_token_ids": True}

    async def _learn(self, labels: Iterable[str], until: float) -> None:
        unknown = [label for label in labels if label not in self._ids]
        names = await asyncio.gather(*(self._names(label, until) for label in unknown))
        self._ids.update(zip(unknown, names, strict=True))

    async def _names(self, label: str, until: float) -> frozenset[str]:
        """What vLLM calls the label's tokens in its replies."""
        alone, spaced = await asyncio.gather(self._tokens(label, until), self._tokens(f" {label}", until))
        if len(alone) != 1:
            raise InvalidRequest(f"the label {label!r} is {len(alone)} tokens of {self._traits.model}; it must be one")
        return frozenset(f"token_id:{tokens[0]}" for tokens in (alone, spaced) if len(tokens) == 1)

    async def _tokens(self, text: str, until: float) -> tuple[int, ...]:
        body = {"model": self._traits.model, "prompt": text, "add_special_tokens": False}
        return await self._wire.post("/tokenize", body, "tokens", tuple[int, ...], until - _now())

    def _read(self, choice: Choice | None, labels: Sequence[str]) -> LabelScores | None:
        """None when the server reported no log-probability at all."""
        content = choice.logprobs.content if choice and choice.logprobs else None
        tokens = [token for token in content[0].top_logprobs if token.logprob > _MIN_LOGPROB] if content else []
        if not tokens:
            return None
        by_label = self._sums(tokens, labels)
        return LabelScores(
            logprobs=tuple(by_label.get(label) for label in labels), floor=min(token.logprob for token in tokens)
        )

    def _sums(self, tokens: Iterable[TokenLogprob], labels: Sequence[str]) -> Mapping[str, float]:
        by_label: dict[str, list[float]] = {}
        for token in tokens:
            for label in labels:
                names = self._ids[label] if self.method.by_id else {label, f" {label}"}
                if token.token in names:
                    by_label.setdefault(label, []).append(token.logprob)
        return {label: _log_sum(logprobs) for label, logprobs in by_label.items()}

    def _scoring(
        self, scores: tuple[LabelScores | None, ...], completions: Sequence[Completion], requests: int = 1
    ) -> Scoring:
        if not any(scores):
            raise UpstreamBadReply(self._wire.peer.name, f"{self._wire.peer.name} reported no log-probabilities")
        counts = (completion.tokens or TokenCount() for completion in completions)
        return Scoring(scores=scores, tokens=sum(counts, TokenCount()), requests=requests)


def _log_sum(logprobs: Sequence[float]) -> float:
    top = max(logprobs)
    return top + math.log(sum(math.exp(logprob - top) for logprob in logprobs))


def _now() -> float:
    return asyncio.get_running_loop().time()
