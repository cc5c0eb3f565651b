"""A server of a reranker, as a backend: text-embeddings-inference, vLLM, Infinity, Cohere, Jina, Voyage and the like.

They differ in where they are asked and what they call the texts; what they reply is read alike. Which shape a server
speaks is tried at the first probe, unless `dialect` in its settings says so.

dialect     asked at      texts        replies
tei         /rerank       texts        a list of score
jina        v1/rerank     documents    results with relevance_score (vLLM and llama.cpp too)
voyage      v1/rerank     documents    data with relevance_score
infinity    /rerank       documents    as jina
cohere      /v2/rerank    documents    as jina; bills searches
score       v1/score      text_2       data with score (older vLLM)
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from app.backends.base import Probed, Relevance, RerankerOnly, tokens_of_pairs
from app.backends.openai_compatible.messages import count_in
from app.backends.openai_compatible.wire import Body, Wire
from app.backends.settings import BackendSettings, Dialect
from app.backends.status import NoSuchRoute, unreadable
from app.domain import TokenCount
from app.errors import ConfigError, UpstreamBadReply, UpstreamRejected, UpstreamUnavailable
from indexing.concurrency import together

PATHS: Mapping[Dialect, str] = {
    "jina": "rerank",
    "voyage": "rerank",
    "infinity": "/rerank",
    "cohere": "/v2/rerank",
    "tei": "/rerank",
    "score": "score",
}
_TRIED: Sequence[Dialect] = ("jina", "infinity", "cohere", "score")

MOST_TEXTS = 1_000
"""In one request: Cohere's and Voyage's limit."""

MOST_LOG_ODDS = 13.8
"""Of a probability of 1 - 1e-6: servers round."""

_PAIR = ("What is the capital of France?", ("Paris is the capital of France.", "Bread rises for an hour."))


class _Rank(msgspec.Struct, frozen=True):
    """Of the text with that place in the request."""

    index: int
    relevance_score: float | None = None
    score: float | None = None

    @property
    def value(self) -> float:
        value = self.score if self.relevance_score is None else self.relevance_score
        return math.nan if value is None else value


class _Ranks(msgspec.Struct, frozen=True):
    results: tuple[_Rank, ...] = ()
    data: tuple[_Rank, ...] = ()
    usage: Any = None
    meta: Any = None


_REPLY: Any = tuple[_Rank, ...] | _Ranks


class _Served(msgspec.Struct, frozen=True):
    id: str
    max_model_len: int | None = None
    owned_by: str = ""


class _Info(msgspec.Struct, frozen=True):
    """What text-embeddings-inference says of itself."""

    model_id: str
    max_client_batch_size: int = MOST_TEXTS
    max_input_length: int | None = None
    version: str = ""


class Reranker(RerankerOnly):
    """An `Adapter`. `log_odds`: the server was seen to send log-odds rather than probabilities."""

    def __init__(self, name: str, settings: BackendSettings) -> None:
        if settings.url is None:
            raise ConfigError(f"[backends.{name}] needs a url, as in http://127.0.0.1:8080")
        super().__init__(name)
        self._settings = settings
        self._wire = Wire(name, settings, settings.url)
        self._dialect: Dialect | None = settings.dialect
        self._model = settings.model or ""
        self._batch = MOST_TEXTS
        self._extra: Body = {}
        self.log_odds = False

    @property
    def reranker(self) -> "Reranker | None":
        """None until it is known which shape the server speaks."""
        return self if self._dialect else None

    async def relevance(self, query: str, texts: Sequence[str], timeout_s: float) -> Relevance:
        """In as many requests as the server's limit makes of it."""
        blocks = [texts[start : start + self._batch] for start in range(0, len(texts), self._batch)]
        parts = await together(self._relevance(query, block, timeout_s) for block in blocks)
        return Relevance(
            log_odds=tuple(value for part in parts for value in part.log_odds),
            tokens=sum((part.tokens for part in parts), TokenCount()),
            requests=sum(part.requests for part in parts),
        )

    async def probe(self, timeout_s: float) -> Probed:
        """Ask what it serves, and rank two texts in each shape until one is understood."""
        info = await self._info(timeout_s)
        served = () if info else await self._served(timeout_s)
        mine = next((one for one in served if self._settings.model in (None, one.id)), None)
        if info is not None:
            self._batch = max(1, info.max_client_batch_size)
        self._extra = {"truncate_prompt_tokens": -1} if mine and mine.owned_by == "vllm" else {}
        self._model = self._settings.model or (info.model_id if info else mine.id if mine else "")
        self._wire.peer = msgspec.structs.replace(
            self._wire.peer, model=self._model, models=tuple(one.id for one in served)
        )
        relevance = await self._speak(("tei",) if info else _TRIED, timeout_s)
        return Probed(
            model=self._model,
            capabilities=frozenset(("rerank",)),
            context_tokens=info.max_input_length if info else mine.max_model_len if mine else None,
            server=f"text-embeddings-inference {info.version}".strip() if info else "",
            requests=relevance.requests,
            tokens=relevance.tokens,
        )

    async def ping(self, timeout_s: float) -> None:
        """GET /v1/models. A server that has no such endpoint is there all the same."""
        with suppress(NoSuchRoute):
            await self._wire.get("models", "object", str, timeout_s, "list")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._wire.aclose()

    async def _info(self, timeout_s: float) -> _Info | None:
        """None of a server that is not text-embeddings-inference."""
        try:
            return await self._wire.read("/info", _Info, timeout_s)
        except (UpstreamRejected, UpstreamBadReply):
            return None

    async def _served(self, timeout_s: float) -> tuple[_Served, ...]:
        for path in ("models", "/models"):
            with suppress(UpstreamRejected, UpstreamBadReply):
                return await self._wire.get(path, "data", tuple[_Served, ...], timeout_s, ())
        return ()

    async def _speak(self, likely: Sequence[Dialect], timeout_s: float) -> Relevance:
        """The reply to a pair that is understood. Raises what the server said to the first shape."""
        dialects = [self._settings.dialect] if self._settings.dialect else likely
        failure: UpstreamRejected | UpstreamBadReply | None = None
        for dialect in dialects:
            self._dialect = dialect
            try:
                return await self._relevance(*_PAIR, timeout_s)
            except (UpstreamRejected, UpstreamBadReply) as exc:
                # What the server has, but does not like, says more than what it does not have.
                failure = exc if failure is None or isinstance(failure, NoSuchRoute) else failure
        self._dialect = self._settings.dialect
        raise failure or UpstreamUnavailable(self._name, f"{self._name} cannot be asked")

    async def _relevance(self, query: str, texts: Sequence[str], timeout_s: float) -> Relevance:
        dialect = self._dialect or _TRIED[0]
        body = _body(dialect, self._model, query, texts)
        reply = await self._wire.reply(PATHS[dialect], {**body, **self._extra}, _REPLY, timeout_s)
        ranks, tokens, searches = _read(reply)
        values = {rank.index: rank.value for rank in ranks}
        if len(ranks) != len(texts) or values.keys() != set(range(len(texts))):
            raise unreadable(self._wire.peer)
        scores = [values[index] for index in range(len(texts))]
        if not all(map(math.isfinite, scores)):
            raise unreadable(self._wire.peer)
        self.log_odds = self.log_odds or not all(0 <= score <= 1 for score in scores)
        return Relevance(
            log_odds=tuple(scores if self.log_odds else map(_log_odds, scores)),
            tokens=tokens or tokens_of_pairs(query, texts),
            requests=searches,
        )


def _body(dialect: Dialect, model: str, query: str, texts: Sequence[str]) -> dict[str, Any]:
    match dialect:
        case "tei":
            return {"query": query, "texts": texts, "truncate": True}
        case "score":
            return {"model": model, "text_1": query, "text_2": texts}
        case "cohere":
            return {"model": model, "query": query, "documents": texts}
        case _:
            return {"model": model, "query": query, "documents": texts, "return_documents": False}


def _read(reply: tuple[_Rank, ...] | _Ranks) -> tuple[Sequence[_Rank], TokenCount | None, int]:
    """The ranks, the tokens if the server counts them, and the searches that are billed."""
    if isinstance(reply, tuple):
        return reply, None, 1
    usage = reply.usage if isinstance(reply.usage, Mapping) else {}
    meta = reply.meta if isinstance(reply.meta, Mapping) else {}
    read = count_in(usage, "total_tokens") or count_in(meta.get("tokens"), "input_tokens")
    searches = count_in(meta.get("billed_units"), "search_units")
    return reply.results or reply.data, TokenCount(input=read) if read else None, max(1, searches)


def _log_odds(chance: float) -> float:
    if not 0 < chance < 1:
        return math.copysign(MOST_LOG_ODDS, chance - 0.5)
    return max(-MOST_LOG_ODDS, min(MOST_LOG_ODDS, math.log(chance / (1 - chance))))
