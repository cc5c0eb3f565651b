"""RAGFlow: its OpenAI-style chat, with its own citation markers."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from litestar import Response, post
from litestar.params import FromPath, JSONBody

from app.api import sse as events
from app.api.compat.errors import ragflow_error, shaped
from app.api.compat.inputs import LenientJSON
from app.api.compat.metadata_conditions import MetadataCondition, conditions_of
from app.api.compat.openai.requests import MessageBody, question_of
from app.api.compat.openai.responses import as_data, chunk, envelope_of, finish_of, openai_usage, whole_reply
from app.api.compat.ragflow.retrieval import chunk_of, terms_of
from app.api.problem_details import Problem
from app.api.request import BodyRequest, Injected, caller_of, while_connected
from app.api.schemas import Event
from app.backends.base import FinishReason
from app.config.settings import Settings
from app.domain import Answer, AnswerDone, Citation, CitationMade, Hit, Query, Question, SourcesFound, TextDelta, Usage
from app.errors import InvalidRequest, WinnowError
from app.services.model_ids import split_backend
from app.wiring import Answering
from indexing.errors import EmbedderUnavailable, IndexBusy, StoreUnavailable

_RUN = re.compile(r"(?:\[\d{1,4}\])+")
_NUMBER = re.compile(r"\d+")
_BEGUN = re.compile(r"\[\d{0,4}$")


class Renumbering:
    """Translates the markers of an answer as it arrives. A marker is held back until its citation follows."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._cited: dict[str, int] = {}
        self._held = ""

    def learn(self, hits: Iterable[Hit]) -> None:
        """Take the passages in the order in which the client gets them."""
        self._places = {hit.id: place for place, hit in enumerate(hits)}

    def cite(self, citation: Citation) -> str:
        """The text that can be sent now that a citation is resolved."""
        self._cited[str(citation.marker)] = self._places[citation.result_id]
        return self.feed("")

    def feed(self, text: str) -> str:
        """The text that can be sent after one more piece."""
        self._held += text
        ready = self._held[: self._unclear()]
        self._held = self._held[len(ready) :]
        return _RUN.sub(self._translated, ready)

    def finish(self) -> str:
        """The text that is still held back."""
        rest, self._held = self._held, ""
        return _RUN.sub(self._translated, rest)

    def _unclear(self) -> int:
        """Where the first marker begins whose citation is missing, or which may still go on."""
        for run in _RUN.finditer(self._held):
            resolved = all(number in self._cited for number in _NUMBER.findall(run[0]))
            if not resolved or run.end() == len(self._held) or _BEGUN.match(self._held, run.end()):
                return run.start()
        begun = _BEGUN.search(self._held)
        return begun.start() if begun else len(self._held)

    def _translated(self, run: re.Match[str]) -> str:
        """Quotes of one passage share a marker in RAGFlow. A number without a citation stays as it is."""
        numbers = _NUMBER.findall(run[0])
        markers = (f"[ID:{self._cited[number]}]" if number in self._cited else f"[{number}]" for number in numbers)
        return "".join(dict.fromkeys(markers))


def renumbered(text: str, hits: Iterable[Hit], citations: Iterable[Citation]) -> str:
    """Translate the markers of a whole answer."""
    renumbering = Renumbering()
    renumbering.learn(hits)
    for citation in citations:
        renumbering.cite(citation)
    return renumbering.feed(text) + renumbering.finish()


DONE = b"data:[DONE]\n\n"


class Extras(msgspec.Struct, frozen=True, kw_only=True):
    """The body's `extra_body`: a key of its own here, which OpenAI's SDK merges. `reference`: send the passages."""

    reference: bool | None = None
    metadata_condition: MetadataCondition | None = None


class RagflowChatBody(msgspec.Struct, frozen=True, kw_only=True):
    """`chat_id` is a collection's name, or `collection@backend`; `model` is ignored.

    System messages do not reach the model: in RAGFlow, the assistant's configuration has them.
    """

    messages: list[MessageBody] | None = None
    model: str = "model"
    stream: bool | None = None
    reference: bool | None = None
    extra_body: Extras | None = None

    @property
    def refers(self) -> bool:
        """Whether the reply lists the passages."""
        return bool(self.reference or (self.extra_body and self.extra_body.reference))

    def to_question(self, chat_id: str) -> Question:
        """Raises InvalidRequest, in RAGFlow's words where it has some."""
        if not self.messages:
            raise InvalidRequest("You have to provide messages.")
        if self.messages[-1].role != "user":
            raise InvalidRequest("The last content of this conversation is not from user.")
        collection, backend = split_backend(chat_id)
        text, earlier = question_of(self.messages)
        condition = self.extra_body.metadata_condition if self.extra_body else None
        search = Query(
            text=text,
            collection=collection,
            backend=backend,
            conditions=conditions_of(condition),
        )
        return Question(search=search, messages=earlier)


class RagflowChunks:
    """`app.api.sse.EventFormat`: RAGFlow's chunks, in which every delta has all of its fields."""

    def __init__(self, envelope: Mapping[str, Any], question: Question, *, refers: bool) -> None:
        self._envelope, self._question, self._refers = envelope, question, refers
        self._markers = Renumbering()
        self._sent = ""

    def write(self, event: Event) -> bytes:
        """A marker is sent when its passage is known."""
        match event:
            case SourcesFound(results=hits):
                self._markers.learn(hits)
                return b""
            case TextDelta(text=text):
                return self._text(self._markers.feed(text))
            case CitationMade(citation=citation):
                return self._text(self._markers.cite(citation))
            case AnswerDone(answer=answer):
                rest = self._text(self._markers.finish())
                references = _references(answer, self._question) if self._refers else None
                return rest + self._end(answer.usage, references, finish_of(event))
        raise AssertionError(f"no answer has a {type(event).__name__}")

    def fail(self, problem: Problem, exc: Exception) -> bytes:
        """The error as text: RAGFlow's clients look for this prefix."""
        rest = self._text(self._markers.finish())
        return rest + self._text(f"**ERROR**: {problem.detail}") + self._end(Usage(), [] if self._refers else None)

    def _text(self, text: str) -> bytes:
        self._sent += text
        return self._chunk({"content": text}) if text else b""

    def _end(
        self, usage: Usage, references: list[dict[str, Any]] | None, finish_reason: FinishReason = "stop"
    ) -> bytes:
        extras = {} if references is None else {"reference": references, "final_content": self._sent}
        return self._chunk({"content": None, **extras}, finish_reason, usage) + DONE

    def _chunk(
        self, delta: dict[str, Any], finish_reason: FinishReason | None = None, usage: Usage | None = None
    ) -> bytes:
        always = {"role": "assistant", "function_call": None, "tool_calls": None, "reasoning_content": None}
        whole_usage = None if usage is None else openai_usage(usage)
        content = chunk(self._envelope, always | delta, finish_reason, system_fingerprint="", usage=whole_usage)
        return as_data(content).replace(b"data: ", b"data:", 1)


@post(
    ["/api/v1/openai/{chat_id:str}/chat/completions", "/api/v1/chats_openai/{chat_id:str}/chat/completions"],
    dto=LenientJSON[RagflowChatBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(ragflow_error),
    opt={"scope": "answer"},
)
async def ragflow_chat(
    request: BodyRequest,
    chat_id: FromPath[str],
    data: JSONBody[RagflowChatBody],
    answerer: Injected[Answering],
    settings: Injected[Settings],
) -> Response[dict[str, Any]]:
    """Markers are RAGFlow's: [ID:0] is the first passage of `reference`."""
    question, caller = data.to_question(chat_id), caller_of(request)
    envelope = envelope_of(chat_id, data.model)
    if data.stream:
        layout = RagflowChunks(envelope, question, refers=data.refers)
        try:
            return await events.streamed_as(layout, request, answerer.stream(question, caller), settings.service.ping_s)
        except (InvalidRequest, StoreUnavailable, EmbedderUnavailable, IndexBusy):
            raise  # nothing to do with the model: RAGFlow's clients read these as a JSON reply with its code
        except WinnowError as exc:
            return events.failed_as(layout, request, exc)
    done = await while_connected(request, answerer.whole(question, caller))
    request.scope["state"]["timings"] = done.answer.timings_ms
    return Response(_completion(envelope, done, _references(done.answer, question) if data.refers else None))


def _completion(
    envelope: Mapping[str, Any], done: AnswerDone, references: list[dict[str, Any]] | None
) -> dict[str, Any]:
    """`reference` only where it was asked for. There are no reasoning and no predicted tokens."""
    answer = done.answer
    message = {
        "content": renumbered(answer.answer, answer.results, answer.citations),
        "role": "assistant",
        **({} if references is None else {"reference": references}),
    }
    usage = openai_usage(answer.usage)
    usage["completion_tokens_details"] = {
        "accepted_prediction_tokens": usage["completion_tokens"],
        "reasoning_tokens": 0,
        "rejected_prediction_tokens": 0,
    }
    return whole_reply(envelope, message, finish_of(done), usage)


def _references(answer: Answer, question: Question) -> list[dict[str, Any]]:
    """The passages that the markers number; none where nothing was answered from them."""
    if not answer.answerable:
        return []
    question_terms = terms_of(question.search.text)
    return [chunk_of(hit, question.search.collection, question_terms) for hit in answer.results]
