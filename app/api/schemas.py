"""The bodies of /search and /answer, with their ranges, and what they become; and what a streamed event holds."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from app.domain import (
    AnswerDone,
    AnswerEvent,
    CallsDelta,
    ChatDone,
    ChatEvent,
    CitationMade,
    ExpandQuery,
    Mode,
    Query,
    Question,
    RankingOptions,
    SourcesFound,
    Strategy,
    Substitute,
    TextDelta,
    Turn,
)
from app.errors import pointing_at
from indexing.errors import InvalidFilter
from indexing.filters import Filter, parse_filter

MAX_CANDIDATES = 1000

Event = AnswerEvent | ChatEvent

Name = Annotated[str, Meta(min_length=1, max_length=255)]
QueryText = Annotated[
    str, Meta(min_length=1, max_length=8192, pattern=r"\S", description="The search query; not only white space.")
]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class RankingBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model ranks the candidates."""

    strategy: Annotated[Strategy, Meta(description="Default: as configured.")] | None = None
    depth: Annotated[int, Meta(ge=1, le=MAX_CANDIDATES, description="How many candidates the model reads.")] | None = (
        None
    )
    deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] | None = None
    cascade: (
        Annotated[Name, Meta(description='A reranker that reads before a language model does; "none": nothing does.')]
        | None
    ) = None
    on_failure: Literal["degrade", "fail"] = "degrade"

    def options(self) -> RankingOptions:
        """As the use case takes them."""
        return RankingOptions(
            strategy=self.strategy,
            depth=self.depth,
            deadline_ms=self.deadline_ms,
            cascade=self.cascade,
            on_failure=self.on_failure,
        )


class SearchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /search. Only `query` is required, or `queries` in its place."""

    query: QueryText | None = None
    queries: (
        Annotated[
            list[QueryText],
            Meta(
                min_length=1,
                max_length=5,
                description="The same need in other words, searched together with `query`. Without it, the first one "
                "is what a model ranks by.",
            ),
        ]
        | None
    ) = None
    collection: Name = "default"
    limit: Annotated[int, Meta(ge=1, le=100, description="Results returned.")] = 10
    candidates: Annotated[int, Meta(ge=1, le=MAX_CANDIDATES, description="Retrieved before ranking.")] = 50
    mode: Mode = "hybrid"
    expand_query: Annotated[
        ExpandQuery,
        Meta(
            description='A model writes other phrasings ("multi"), or a passage that could answer the query ("hyde").'
        ),
    ] = "none"
    filter: Annotated[dict[str, Any], Meta(description='As in {"lang": "en", "year": {"gte": 2020}}.')] | None = None
    backend: (
        Annotated[Name, Meta(description='The backend that ranks: a configured name, "auto", or "none".')] | None
    ) = None
    ranking: RankingBody = RankingBody()
    min_score: Fraction = 0.0
    group_by_document: Annotated[bool, Meta(description="Return only the best passage of each document.")] = False
    include_text: bool = True

    def to_query(self) -> Query:
        """Raises InvalidRequest pointing into the filter, or at the missing query."""
        texts = (*([] if self.query is None else [self.query]), *(self.queries or ()))
        if not texts:
            raise pointing_at("/query", "this field is required, unless there are queries")
        return Query(
            text=texts[0],
            phrasings=texts[1:],
            collection=self.collection,
            limit=self.limit,
            candidates=max(self.candidates, self.limit),
            mode=self.mode,
            expand_query=self.expand_query,
            filter=read_filter(self.filter),
            backend=self.backend,
            ranking=self.ranking.options(),
            min_score=self.min_score,
            group_by_document=self.group_by_document,
            include_text=self.include_text,
        )


class TurnBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An earlier turn of the conversation."""

    role: Literal["user", "assistant"]
    content: Annotated[str, Meta(min_length=1, max_length=100_000)]


class AnswerRequest(SearchRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /answer: a search, and how to answer from it."""

    messages: Annotated[list[TurnBody], Meta(max_length=50)] = []
    stream: bool = False
    answer_backend: (
        Annotated[
            Name,
            Meta(
                description='The backend that answers: a configured name, "auto", or "extractive". Default: `backend`.'
            ),
        ]
        | None
    ) = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=8192)] = 1024
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    context_tokens: Annotated[
        int, Meta(ge=256, le=1_000_000, description="Budget for the passages that the answering backend reads.")
    ] = 6000
    min_relevance: Annotated[Fraction, Meta(description="Below it, the service abstains.")] | None = None
    check_citations: Annotated[
        Literal["structural", "model"],
        Meta(description='"model": no text of the answer is sent before a model has confirmed a citation.'),
    ] = "structural"
    instructions: Annotated[
        str, Meta(max_length=4000, description="From the operator, not from end users: tone, format, scope.")
    ] = ""
    language: (
        Annotated[str, Meta(min_length=2, max_length=35, description="Default: the language of the question.")] | None
    ) = None
    fallback: (
        Annotated[
            Substitute,
            Meta(
                description="Quotes the passages where nothing of a model's reply is supported. Default: the settings'."
            ),
        ]
        | None
    ) = None

    def to_question(self) -> Question:
        """Raises what `to_query` raises."""
        return Question(
            search=self.to_query(),
            messages=tuple(Turn(turn.role, turn.content) for turn in self.messages),
            answer_backend=self.answer_backend,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            context_tokens=self.context_tokens,
            min_relevance=self.min_relevance,
            check_citations=self.check_citations,
            instructions=self.instructions,
            language=self.language,
            fallback=self.fallback,
        )


def read_filter(raw: dict[str, Any] | None) -> Filter | None:
    """Raises InvalidRequest whose pointer counts from the body."""
    try:
        return None if raw is None else parse_filter(raw)
    except InvalidFilter as exc:
        raise pointing_at(f"/filter{exc.pointer}", exc.detail) from exc


def payload(event: Event) -> tuple[str, Any]:
    """An event's name and data."""
    match event:
        case SourcesFound():
            return "sources", event
        case TextDelta():
            return "delta", event
        case CallsDelta():
            return "calls", event
        case CitationMade(citation=citation):
            return "citation", citation
        case AnswerDone(answer=answer):
            return "done", _without(answer, "answer")
        case ChatDone(result=result):
            return "done", _without(result, "text")


def _without(whole: msgspec.Struct, text: str) -> dict[str, Any]:
    return {name: getattr(whole, name) for name in whole.__struct_fields__ if name != text}
