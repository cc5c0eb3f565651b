"""The answer to many texts: a result or an error for each, in their order, and what all of them took."""

from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from litestar import Response

from app.api.json_lines import LinesResponse, is_json_lines
from app.api.problem_details import Problem, note_failure, problem_of
from app.api.request import BodyRequest, caller_of, request_id, while_connected
from app.backends.settings import AUTO
from app.domain import BackendUse, Caller, Usage
from app.errors import MissingCapability, WinnowError
from app.observability.timing import Stopwatch
from app.services.batches import Judging, Outcome, batch_of, judge_list

Options = TypeVar("Options")
Made = TypeVar("Made", bound="JudgedList")


class JudgedText(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a text: `error`, or else the fields of the result."""

    error: Problem | msgspec.UnsetType = msgspec.UNSET


class JudgedList(msgspec.Struct, frozen=True, kw_only=True):
    """`backend` is the one that served most of the texts. `failed` of the results are errors."""

    results: tuple[JudgedText, ...]
    failed: int
    texts_per_second: float
    backend: BackendUse
    usage: Usage
    timings_ms: Mapping[str, float]


async def answer_texts(
    request: BodyRequest,
    made: type[Made],
    item: type[JudgedText],
    service: Judging[Options, Any],
    options: Options,
    texts: Sequence[str],
    *,
    requested: str | None,
    concurrency: int,
    deadline_s: float,
) -> Response[Made]:
    """Judge the texts, or the rows of a body of JSON lines, which has no `texts`; each within `deadline_s`.

    Raises what making the judge raises, and ClientGone.
    """
    caller = caller_of(request)
    batch = batch_of(service, options, caller, concurrency=concurrency, deadline_s=deadline_s)
    if is_json_lines(request):
        return LinesResponse(request, await batch)
    watch = Stopwatch()
    with watch.stage(service.stage):
        outcomes = await while_connected(request, judge_list(await batch, texts))
    _refuse_the_unable(outcomes)
    timings = watch.timings_ms()
    request.scope["state"]["timings"] = timings
    instance = request_id(request.scope)
    results = made(
        results=tuple(_item(item, outcome, instance, caller) for outcome in outcomes),
        failed=sum(outcome.error is not None for outcome in outcomes),
        texts_per_second=round(1000 * len(texts) / max(timings["total"], 0.001), 1),
        backend=_backend(outcomes, requested or AUTO),
        usage=sum((outcome.usage for outcome in outcomes), Usage()),
        timings_ms=timings,
    )
    return Response(results)


def _refuse_the_unable(outcomes: Sequence[Outcome[Any]]) -> None:
    """What a backend can do may be known only once it is asked: that is the request's fault all the same."""
    errors = [outcome.error for outcome in outcomes]
    if all(isinstance(error, MissingCapability) for error in errors) and errors[0] is not None:
        raise errors[0]


def _item(kind: type[JudgedText], outcome: Outcome[Any], instance: str, caller: Caller) -> JudgedText:
    if outcome.judged is not None:
        return kind(**msgspec.structs.asdict(outcome.judged.result))
    assert outcome.error is not None  # noqa: S101 - an outcome has one of the two
    problem = problem_of(outcome.error, instance, caller)
    if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        note_failure(problem, outcome.error)
    return kind(error=problem)


def _backend(outcomes: Sequence[Outcome[Any]], requested: str) -> BackendUse:
    """That of most texts, with all that failed before it; "none" if no text has a result."""
    uses = [outcome.judged.backend for outcome in outcomes if outcome.judged]
    failures = [outcome.error.failures for outcome in outcomes if isinstance(outcome.error, WinnowError)]
    fallbacks = dict.fromkeys(one for tried in [*(use.fallbacks for use in uses), *failures] for one in tried)
    if not uses:
        return BackendUse(requested=requested, used="none", fallbacks=tuple(fallbacks))
    used = Counter(use.used for use in uses).most_common(1)[0][0]
    first = next(use for use in uses if use.used == used)
    return msgspec.structs.replace(first, fallbacks=tuple(one for one in fallbacks if one.backend != used))
