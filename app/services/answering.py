"""Who answers, and who checks."""

from collections.abc import Awaitable, Callable

import msgspec

from app.answering.extractive.answerer import Embed, Extractive, Quoting
from app.answering.models import Writer
from app.backends.base import Capability
from app.backends.call_context import Call
from app.backends.registry import EXTRACTIVE, Backends
from app.backends.router import Route, Router
from app.config.backends import AUTO
from app.domain import BackendUse, Question
from app.errors import FieldProblem, InvalidRequest, MissingCapability, UnknownBackend
from app.services.generation import Checking, Generated

CHAT: frozenset[Capability] = frozenset(("chat",))

CHECKS: tuple[frozenset[Capability], ...] = (frozenset(("chat", "logprobs")), frozenset(("chat", "structured")))
"""What a backend must offer to check citations, beside answering."""


class Staff(msgspec.Struct, frozen=True, kw_only=True):
    """Who serves one question. `answers` is a way to a model, or who answers without one."""

    answers: Route | BackendUse
    checks: Route | None = None


class Answerers:
    """Those who answer. The router is asked for when a model is needed, so that it can be opened late.

    `least` in [0,1] replaces the default thresholds of relevance.
    """

    def __init__(
        self,
        backends: Backends,
        router: Callable[[], Awaitable[Router]],
        embed: Embed,
        least: float | None = None,
    ) -> None:
        self._backends, self._router = backends, router
        self._embed, self._least = embed, least
        self._quoting = Quoting() if least is None else Quoting(min_relevance=least)

    async def who(self, question: Question) -> Staff:
        """Before any work. Raises UnknownBackend, MissingCapability, pointing at the field."""
        checked = question.check_citations == "model"
        try:
            answers = await self._who_answers(question, CHECKS if checked else (CHAT,))
        except (UnknownBackend, MissingCapability) as exc:
            raise _at("/backend" if question.answer_backend is None else "/answer_backend", exc) from exc
        if not checked:
            return Staff(answers=answers)
        try:
            return Staff(answers=answers, checks=await self._who_checks(answers))
        except MissingCapability as exc:
            raise _at("/check_citations", exc) from exc

    def writer(self, staff: Staff, question: Question, call: Call, *, streamed: bool) -> Writer:
        """Who writes the answer, with the calls of models made as `call`."""
        writer: Writer
        if isinstance(staff.answers, BackendUse):
            writer = Extractive(self._embed, self._quoting, staff.answers)
        else:
            writer = Generated(staff.answers, call, self._embed, self._least, streamed=streamed)
        if staff.checks is None:
            return writer
        return Checking(writer, staff.checks, call, strict=question.search.ranking.on_failure == "fail")

    async def _who_answers(self, question: Question, needs: tuple[frozenset[Capability], ...]) -> Route | BackendUse:
        use = self._backends.for_answering(question.answer_backend, question.search.backend)
        if use.used == EXTRACTIVE.name:
            return use
        return (await self._router()).route_or(EXTRACTIVE.name, use.requested, *needs)

    async def _who_checks(self, answers: Route | BackendUse) -> Route:
        return answers if isinstance(answers, Route) else (await self._router()).route(AUTO, *CHECKS)


def _at(pointer: str, exc: InvalidRequest) -> InvalidRequest:
    return type(exc)(str(exc), (FieldProblem(pointer, str(exc)),))
