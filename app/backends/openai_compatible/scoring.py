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
from typing import NamedTuple

import msgspec

from app.backends.base import Conversation, LabelScores, Scoring, worst_of_scoring
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
from app.backends.status import NoSuchRoute, late
from app.domain import TokenCount
from app.errors import InvalidRequest, UpstreamBadReply, UpstreamError, UpstreamRejected

_MAX_TOP = 20
_MIN_LOGPROB = -9999.0
"""How vLLM writes minus infinity."""


FIRST_BLOCK, MAX_BLOCK, BLOCK_TIME = 8, 25, 0.25
"""Prompts in a request for many: before the server's pace is known, at most, and as many as take that share of the
time. What is lost when time runs out is a request; a server that batches works on all of them at once, so that small
ones cost it little."""

MARGIN_S, MARGIN = 0.25, 0.05
"""So long before the time is over what has come is returned: seconds at most, and a share of the time."""


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
        self._pace_s: float | None = None  # seconds for a prompt, in a batch
        self._ids: dict[str, frozenset[str]] = {}

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], timeout_s: float) -> Scoring:
        """What has been scored shortly before the time is over counts; the rest is None, and given up.

        Raises InvalidRequest for labels that are no single tokens, or the same; UpstreamError when all failed.
        """
        labels = [label.strip() for label in labels]
        if len(set(labels)) < len(labels) or "" in labels:
            raise InvalidRequest("labels must differ in more than white space, and none may be empty")
        if not prompts:
            return Scoring(scores=(), tokens=TokenCount(), requests=0)
        until = _now() + timeout_s
        if self.method.by_id:
            await self._learn(labels, until)
        began = _now()
        size = self._block_size(timeout_s) if self.method.batched else 1
        blocks = [prompts[start : start + size] for start in range(0, len(prompts), size)]
        tasks = [asyncio.create_task(self._score(block, labels, until)) for block in blocks]
        try:
            await asyncio.wait(tasks, timeout=until - _now() - min(MARGIN_S, MARGIN * timeout_s))
        finally:
            await _give_up(tasks)
        return self._scoring(blocks, tasks, began)

    def _block_size(self, timeout_s: float) -> int:
        """Prompts in a request: as many as the server has scored in a part of the time, when it was last asked."""
        if self._pace_s is None:
            return FIRST_BLOCK
        return max(1, min(MAX_BLOCK, int(timeout_s * BLOCK_TIME / self._pace_s)))

    async def _score(self, prompts: Sequence[Conversation], labels: Sequence[str], until: float) -> "_Scored":
        """One request. The server rejects many when one of them is too long: then each is sent by itself."""
        body, requests = self._body(labels), 1
        if not self.method.batched:
            async with self._free:
                reply = await self._wire.complete(
                    "chat/completions", body | {"messages": messages(prompts[0])}, until - _now()
                )
            return _Scored([self._read(reply.choices[0], labels)], reply.tokens or TokenCount(), requests)
        try:
            many = body | {"messages": [messages(prompt) for prompt in prompts]}
            completion = await self._wire.complete("chat/completions/batch", many, until - _now())
        except NoSuchRoute:
            raise
        except UpstreamRejected:
            if len(prompts) == 1:
                raise
            return await self._one_by_one(prompts, labels, until)
        by_index = {choice.index: choice for choice in completion.choices}
        scores = [self._read(by_index.get(index), labels) for index in range(len(prompts))]
        tokens = completion.tokens or TokenCount()
        # Of a batch vLLM counts none as cached, whatever it found in its cache: only its /metrics know.
        return _Scored(scores, msgspec.structs.replace(tokens, cached=tokens.cached or None), requests)

    async def _one_by_one(self, prompts: Sequence[Conversation], labels: Sequence[str], until: float) -> "_Scored":
        async def ask(prompt: Conversation) -> Completion | UpstreamError:
            try:
                async with self._free:
                    body = self._body(labels) | {"messages": messages(prompt)}
                    return await self._wire.complete("chat/completions", body, until - _now())
            except UpstreamError as exc:
                return exc

        replies = await asyncio.gather(*map(ask, prompts))
        good = [reply for reply in replies if isinstance(reply, Completion)]
        if not good:
            raise next(reply for reply in replies if isinstance(reply, UpstreamError))
        scores = [self._read(reply.choices[0], labels) if isinstance(reply, Completion) else None for reply in replies]
        return _Scored(scores, sum((reply.tokens or TokenCount() for reply in good), TokenCount()), 1 + len(prompts))

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
        self, blocks: Sequence[Sequence[Conversation]], tasks: "Sequence[asyncio.Task[_Scored]]", began: float
    ) -> Scoring:
        """All blocks together. Raises what the first one raised if nothing was scored."""
        scores: list[LabelScores | None] = []
        tokens, requests, failures = TokenCount(), 0, list[BaseException]()
        for block, task in zip(blocks, tasks, strict=True):
            failure = late(self._wire.peer) if task.cancelled() else task.exception()
            if failure is None:
                scored = task.result()
                scores += scored.scores
                tokens, requests = tokens + scored.tokens, requests + scored.requests
            else:
                failures.append(failure)
                scores += [None] * len(block)
                requests += 1
                # What was given up has probably been read.
                tokens += TokenCount(input=worst_of_scoring(block).input) if task.cancelled() else TokenCount()
        if not any(scores):
            if failures:
                raise failures[0]
            raise UpstreamBadReply(self._wire.peer.name, f"{self._wire.peer.name} reported no log-probabilities")
        if self.method.batched:
            self._pace_s = (_now() - began) / sum(score is not None for score in scores)
        return Scoring(scores=tuple(scores), tokens=tokens, requests=requests)


class _Scored(NamedTuple):
    """What came of one block."""

    scores: list[LabelScores | None]
    tokens: TokenCount
    requests: int


async def _give_up(tasks: "Sequence[asyncio.Task[_Scored]]") -> None:
    """End those that still run, and wait until they have."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _log_sum(logprobs: Sequence[float]) -> float:
    top = max(logprobs)
    return top + math.log(sum(math.exp(logprob - top) for logprob in logprobs))


def _now() -> float:
    return asyncio.get_running_loop().time()
