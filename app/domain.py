"""What the use cases take and give: plain structs, no I/O, no HTTP.

Times are milliseconds, money is US dollars, offsets are code points, scores are finite.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args

import msgspec

from indexing.documents import EVERYTHING, Audience, PageStart
from indexing.documents import Image as Image
from indexing.errors import Fallback as Fallback
from indexing.filters import Filter, Scalar

Mode = Literal["hybrid", "dense", "sparse"]
ExpandQuery = Literal["none", "multi", "hyde"]
Strategy = Literal["auto", "graded", "duel", "listwise", "pointwise", "decide"]
Substitute = Literal["none", "extractive"]
"""What answers where nothing of a model's reply is supported."""

AbstainReason = Literal["no_results", "below_min_relevance", "model_declined", "unsupported"]


Operator = Literal[
    "=", "≠", ">", "<", "≥", "≤", "in", "not in",
    "contains", "not contains", "start with", "end with", "empty", "not empty",
]  # fmt: skip


Values = tuple[Scalar, ...]


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """True if `operator` holds between one of `fields` and one of `values`; "empty" and "not empty" take no value.

    Of a list, each item counts. An absent field meets no operator but "empty", not even "≠".
    """

    fields: tuple[str, ...]
    operator: Operator
    values: Values = ()


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """All of `conditions` (`every`), or at least one of them. Never empty."""

    conditions: tuple[Condition, ...]
    every: bool = True


class RankingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is to rank. None means the settings' default. `cascade`: the reranker that reads first, or "none"."""

    strategy: Strategy | None = None
    depth: int | None = None
    deadline_ms: int | None = None
    cascade: str | None = None
    on_failure: Literal["degrade", "fail"] = "degrade"


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One search. Ranges are those of docs/api.md, checked by `app.api.schemas`. `backend` None: the settings' default.

    `phrasings` say the same as `text` in other words: they are searched with it, and `text` is what a model ranks by.
    `expand_query`: what a model is to write of `text` to be searched with it.
    Of `conditions`, what the store cannot check is checked on the best `app.services.search.MAX_LOOKED_THROUGH` of each
    side.
    """

    text: str
    phrasings: tuple[str, ...] = ()
    collection: str = "default"
    limit: int = 10
    candidates: int = 50
    mode: Mode = "hybrid"
    expand_query: ExpandQuery = "none"
    filter: Filter | None = None
    conditions: Conditions | None = None
    backend: str | None = None
    ranking: RankingOptions = RankingOptions()
    min_score: float = 0.0
    group_by_document: bool = False
    include_text: bool = True

    @property
    def expands(self) -> bool:
        """Whether a model is to write something. A passage is searched by its vector alone."""
        return self.expand_query != "none" and not (self.expand_query == "hyde" and self.mode == "sparse")


class Scores(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A hit's evidence; a side that did not find the passage is None. `grade` is a model's, in [0,1]."""

    dense: float | None = None
    sparse: float | None = None
    fused: float | None = None
    grade: float | None = None


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A passage as a search returns it. `score` in [0,1]. `ranked_by` is a backend's name, or "none". `tenant`: whose
    document it is, where it belongs to one. It begins on `page` and ends on `page_end`, where there are pages.
    """

    id: str
    document_id: str
    score: float
    text: str | None
    title: str
    source: str
    page: int | None
    page_end: int | None = None
    heading: tuple[str, ...]
    start: int
    end: int
    metadata: Mapping[str, Any]
    scores: Scores
    ranked_by: str = "none"
    flags: tuple[str, ...] = ()
    tenant: str | msgspec.UnsetType = msgspec.UNSET


class BackendUse(msgspec.Struct, frozen=True, kw_only=True):
    """The backend requested and the one that served. `model` is None where no model is behind it."""

    requested: str
    used: str
    model: str | None = None
    fallbacks: tuple[Fallback, ...] = ()


def known_sum(one: int | None, other: int | None) -> int | None:
    """None where either is unknown."""
    return None if one is None or other is None else one + other


class TokenCount(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of model calls. `cached` is a part of `input`, None where the server does not tell; `thinking` is beside
    `output`, and billed like it.
    """

    input: int = 0
    cached: int | None = 0
    output: int = 0
    thinking: int = 0

    def __add__(self, other: "TokenCount") -> "TokenCount":
        return TokenCount(
            input=self.input + other.input,
            cached=known_sum(self.cached, other.cached),
            output=self.output + other.output,
            thinking=self.thinking + other.thinking,
        )


class StageUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Model calls of one stage. `output_tokens` are all that is billed as such: the thinking ones too.

    `cached_tokens` is None where the server of any of them does not tell. `replicas` are the numbers of the servers
    that were called, in order, where a backend has several; else it is left out.
    """

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int | None = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    replicas: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET

    def __add__(self, other: "StageUsage") -> "StageUsage":
        replicas = {*(self.replicas or ()), *(other.replicas or ())}
        return StageUsage(
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=known_sum(self.cached_tokens, other.cached_tokens),
            output_tokens=self.output_tokens + other.output_tokens,
            cost_usd=self.cost_usd + other.cost_usd,
            replicas=tuple(sorted(replicas)) or msgspec.UNSET,
        )


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The sum over the stages, and each stage with its calls."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int | None = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    by_stage: Mapping[str, StageUsage] = {}

    def __add__(self, other: "Usage") -> "Usage":
        stages = dict(self.by_stage)
        for name, stage in other.by_stage.items():
            stages[name] = stages.get(name, StageUsage()) + stage
        return total_usage(stages)


def total_usage(stages: Mapping[str, StageUsage]) -> Usage:
    """Their sum, and each of them."""
    total = sum(stages.values(), StageUsage())
    return Usage(
        requests=total.requests,
        input_tokens=total.input_tokens,
        cached_tokens=total.cached_tokens,
        output_tokens=total.output_tokens,
        cost_usd=total.cost_usd,
        by_stage=stages,
    )


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a search. `timings_ms` holds expand, embed, retrieve, rank (those that ran) and total.

    `queries`: all that was searched for, `query` first and a model's texts last; left out where it was `query` alone.
    """

    query: str
    collection: str
    results: tuple[Hit, ...]
    backend: BackendUse
    degraded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    usage: Usage = Usage()
    timings_ms: Mapping[str, float] = {}
    queries: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


LaterPages = Mapping[str, tuple[PageStart, ...]]
"""The pages that begin inside a hit, by its id, where there are any."""


class Function(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function that the client runs for a model. `parameters` is a JSON Schema; `strict`: arguments must fit it."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What a model may call, or must if `choice` is "required": any of them, or the one named by `only`.

    `parallel`: whether it may call several at once; None: as it likes.
    """

    functions: tuple[Function, ...]
    choice: Literal["auto", "none", "required"] = "auto"
    only: str | None = None
    parallel: bool | None = None


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A function that a model wants to be called. `arguments` is JSON as the model wrote it, which may be faulty.

    In a stream, a piece of call number `index`: the first one has its id and name, and the arguments are to be joined.
    """

    id: str = ""
    name: str = ""
    arguments: str = ""
    index: int = 0


class PictureSource(msgspec.Struct, frozen=True):
    """Where a picture or a PDF is: an http(s) URL, base64, a `data:` URL, or its bytes. Of a PDF `pages` are shown,
    counted from 1; None: all. `pointer` is the request's field, for errors.
    """

    pointer: str
    content: str | bytes
    pages: tuple[int, ...] | None = None


class Turn(msgspec.Struct, frozen=True):
    """A turn of the conversation. Pictures stand before the text, and only in a user's turn.

    `calls` are an assistant's. A "tool" tells what came of the call `call_id`.
    """

    role: Literal["user", "assistant", "tool"]
    content: str
    images: tuple[PictureSource, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One /answer. `search` is the retrieval part; None means: the settings' default."""

    search: Query
    messages: tuple[Turn, ...] = ()
    answer_backend: str | None = None
    max_output_tokens: int = 1024
    temperature: float = 0.0
    context_tokens: int = 6000
    min_relevance: float | None = None
    check_citations: Literal["structural", "model"] = "structural"
    instructions: str = ""
    language: str | None = None
    fallback: Substitute | None = None


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """A marker in the answer and what it stands for.

    `quote` is the stored text at [start, end) of the document, from `page` to `page_end`; [answer_start, answer_end) is
    the sentence of the answer that carries the marker, without the marker.
    """

    marker: int
    result_id: str
    document_id: str
    source: str
    page: int | None
    page_end: int | None = None
    start: int
    end: int
    quote: str
    answer_start: int
    answer_end: int
    support: Literal["structural", "model"] = "structural"
    verified: bool = True


class UnsupportedSpan(msgspec.Struct, frozen=True):
    """A part of the answer, [start, end), that no citation supports."""

    start: int
    end: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of /answer. When `answerable` is false, `answer` says so in the question's language."""

    answer: str
    answerable: bool
    abstain_reason: AbstainReason | None
    citations: tuple[Citation, ...]
    unsupported: tuple[UnsupportedSpan, ...]
    results: tuple[Hit, ...]
    backend: BackendUse
    answer_backend: BackendUse
    degraded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    usage: Usage = Usage()
    timings_ms: Mapping[str, float] = {}


class SourcesFound(msgspec.Struct, frozen=True):
    """First event of a streamed answer: the passages given to the answerer."""

    results: tuple[Hit, ...]


class TextDelta(msgspec.Struct, frozen=True):
    """The next piece of the answer's text."""

    text: str


class CitationMade(msgspec.Struct, frozen=True):
    """A marker in the text so far has been resolved."""

    citation: Citation


class AnswerDone(msgspec.Struct, frozen=True):
    """Last event: the whole answer; `answer.answer` equals the concatenated deltas.

    `cut`: the model that wrote it reached `max_output_tokens`; /answer says so in a warning.
    """

    answer: Answer
    cut: bool = False


AnswerEvent = SourcesFound | TextDelta | CitationMade | AnswerDone


T = TypeVar("T")

Scope = Literal["search", "answer", "tasks", "write", "metrics", "admin"]
"""What an API key may be allowed to do. "metrics" is for a monitoring host, whose key should open nothing else."""

SCOPES: frozenset[str] = frozenset(get_args(Scope))


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """On whose behalf something is done: the name of an API key, the request's id, and what of the index it may see.

    `backends` are those it may use, None: all. Nothing that a caller may do is a default.
    """

    key: str
    request_id: str = ""
    audience: Audience
    scopes: frozenset[str]
    backends: tuple[str, ...] | None

    def may_use(self, backend: str) -> bool:
        """Whether its key is for this backend."""
        return self.backends is None or backend in self.backends

    def shown(self, chosen: T) -> T:
        """What it may know of the use of a backend: nothing of those that its key is not for. All else stays."""
        if self.backends is None or not isinstance(chosen, BackendUse):
            return chosen
        mine = tuple(one for one in chosen.fallbacks if self.may_use(one.backend))
        return msgspec.structs.replace(chosen, fallbacks=mine)


ANONYMOUS = Caller(key="anonymous", audience=EVERYTHING, scopes=SCOPES, backends=None)
"""Whoever calls where no keys are asked for, or from this machine: an operator."""


class ChatTask(msgspec.Struct, frozen=True, kw_only=True):
    """One /chat. The last turn is the user's, or a tool's. `backend` None: the settings' default.

    `schema` is a JSON Schema that the reply should fit; it ends before any of `stop`.
    """

    messages: tuple[Turn, ...]
    system: str = ""
    backend: str | None = None
    max_output_tokens: int = 1024
    temperature: float = 0.0
    schema: Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: Tools | None = None


class ChatResult(msgspec.Struct, frozen=True, kw_only=True):
    """The reply of /chat. `timings_ms` holds images (fetching and decoding), chat, first_token (of a stream), total."""

    text: str
    finish_reason: Literal["stop", "length"]
    backend: BackendUse
    usage: Usage = Usage()
    timings_ms: Mapping[str, float] = {}


class ReplyToText(msgspec.Struct, frozen=True, kw_only=True):
    """What a model replied to one text of many."""

    text: str
    finish_reason: Literal["stop", "length"]


class CallsDelta(msgspec.Struct, frozen=True):
    """The next pieces of the model's function calls."""

    calls: tuple[ToolCall, ...]


class ChatDone(msgspec.Struct, frozen=True):
    """Last event: the whole reply; `result.text` equals the concatenated deltas. `calls` of a stream are in pieces."""

    result: ChatResult
    calls: tuple[ToolCall, ...] = ()


ChatEvent = TextDelta | CallsDelta | ChatDone


Evidence = Literal["calibrated", "logprobs", "stated"]
"""What a label's score rests on: a decision model's calibrated probability, the log-probabilities of the label's token,
or what a model said of itself.
"""


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a text may be labelled with. The description says when it fits."""

    name: str
    description: str = ""


class ClassifyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How texts are classified. `multi_label`: any number of labels fit a text, not exactly one.

    `backend` None: the settings' default. A text is unsure when its confidence is below `unsure_below`.
    """

    labels: tuple[Label, ...]
    instructions: str = ""
    multi_label: bool = False
    unsure_below: float = 0.0
    backend: str | None = None


class Classified(msgspec.Struct, frozen=True, kw_only=True):
    """A text's labels. `label` is the likeliest one; null if none of several applies.

    `labels` are all that apply: of several those that are at least as likely as not. `scores` has the probability of
    each label. `confidence` is the probability that `label` is right; of several labels, that the least certain
    decision about one is.
    """

    label: str | None
    labels: tuple[str, ...]
    confidence: float
    scores: Mapping[str, float]
    unsure: bool
    evidence: Evidence


class Category(Label, frozen=True, kw_only=True):
    """What a text is flagged for, if its score is at least `threshold`."""

    threshold: float = 0.5


class ModerateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How texts are moderated. `backend` None: the settings' default."""

    categories: tuple[Category, ...]
    instructions: str = ""
    backend: str | None = None


class Moderated(msgspec.Struct, frozen=True, kw_only=True):
    """What a text is flagged for, likeliest first. `scores` has the probability of each category."""

    flagged: bool
    categories: tuple[str, ...]
    scores: Mapping[str, float]
    evidence: Evidence
