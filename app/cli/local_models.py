"""What commands ask of models in this process, where no service runs: chats, pictures, completions, batches, estimates.

Loads the API's routes, and the web framework with them, for the bodies that these take. `app.cli.session` imports it
only when it is needed.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from app.accounting.estimator.models import Workload
from app.api.bodies import decode
from app.api.json_lines import Rows, entries_of, row_of
from app.api.routes.chat import ChatBody
from app.api.routes.complete import CompleteBody
from app.api.routes.labelling import ClassifyOptionsBody, ModerateOptionsBody
from app.api.routes.translate import TranslateOptionsBody
from app.api.routes.usage import EstimateRequest
from app.api.routes.vision import VisionOptions, numbered
from app.api.schemas import payload
from app.backends.client import BackendClient
from app.backends.settings import model_or_auto
from app.cli.local import run, shown
from app.config.settings import Settings
from app.domain import ANONYMOUS, ChatResult
from app.services.batches import Batch, batch_of
from app.services.half_price import HalfPrice, PatientJudge, PlacedText
from app.wiring import Services, build_services


def ask_about_pictures(
    settings: Settings, options: dict[str, Any], pictures: Sequence[tuple[str, str | bytes]]
) -> dict[str, Any]:
    """What POST /vision answers to this."""
    task = decode(msgspec.json.encode(options), VisionOptions).to_task(numbered(pictures))

    async def work(services: Services) -> ChatResult:
        return (await services.vision_service.chat(task, ANONYMOUS)).result

    return shown(settings, work)


def complete_text(settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
    """What POST /complete answers to this body."""
    task = decode(msgspec.json.encode(body), CompleteBody).to_task()

    async def work(services: Services) -> ChatResult:
        return (await services.complete_service.complete(task, ANONYMOUS)).result

    return shown(settings, work)


def stream_chat(settings: Settings, body: dict[str, Any], show: Callable[[str, dict[str, Any]], None]) -> None:
    """The events that POST /chat streams, to `show`; the last one is "done"."""
    task = decode(msgspec.json.encode(body), ChatBody).to_task()

    async def work(services: Services) -> None:
        async with aclosing(services.chat_service.stream_chat(task, ANONYMOUS)) as events:
            async for event in events:
                name, data = payload(event)
                show(name, msgspec.to_builtins(data))

    run(settings, work)


async def judge_lines(
    settings: Settings, path: str, options: Mapping[str, Any], rows: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """The rows that POST `path` answers to these rows, the ending last. Closing it ends the calls."""
    services = build_services(settings, patient=True)
    try:
        batch = await _BATCHES[path](services, options)
        async with aclosing(Rows(batch, "", None).written(entries_of(rows))) as lines:
            async for line in lines:
                yield line
    finally:
        await rows.aclose()
        await services.close()


async def judge_later(
    settings: Settings, path: str, options: Mapping[str, Any], rows: AsyncGenerator[bytes, None], plan: Path, token: str
) -> AsyncGenerator[bytes, None]:
    """As `judge_lines`, in a backend's batches. Raises InvalidRequest, UpstreamError, BudgetExceeded."""
    kind, make = _LATER[path]
    body = decode(msgspec.json.encode(options), kind)
    services = build_services(settings)
    try:
        judge = await make(services, body)
        client = await _with_batches(services, body.backend)
        later = HalfPrice(client, services.accounts.meter, plan, token, path.removeprefix("/"), judge)
        async with aclosing(later.outcomes(_placed(rows))) as outcomes:
            async for outcome in outcomes:
                yield row_of(outcome, "", None)
    finally:
        await rows.aclose()
        await services.close()


_LATER: Mapping[str, tuple[type[Any], Callable[[Services, Any], Awaitable[PatientJudge[Any]]]]] = {
    "/chat": (ChatBody, lambda services, body: services.chat_service.judge(body.to_options())),
    "/classify": (ClassifyOptionsBody, lambda services, body: services.classify_service.judge(body.to_options())),
    "/moderate": (ModerateOptionsBody, lambda services, body: services.moderate_service.judge(body.to_options())),
    "/translate": (TranslateOptionsBody, lambda services, body: services.translate_service.judge(body.to_options())),
}


async def _with_batches(services: Services, requested: str | None) -> BackendClient:
    """The backend that is named, or the first one that has batches."""
    name = requested or services.backends.default
    clients = (await services.router.get()).route(model_or_auto(name), frozenset(("chat",))).clients
    return next((client for client in clients if client.adapter.batches is not None), clients[0])


async def _placed(rows: AsyncGenerator[bytes, None]) -> AsyncGenerator[PlacedText, None]:
    async for row in rows:
        yield _PLACED.decode(row)


_PLACED = msgspec.json.Decoder(PlacedText)


async def _judged(services: Services, options: Mapping[str, Any], kind: type[Any], service: Any) -> Batch[Any]:
    body = decode(msgspec.json.encode(options), kind)
    deadline_s = services.settings.routing.deadline_s
    return await batch_of(service, body.to_options(), ANONYMOUS, concurrency=body.concurrency, deadline_s=deadline_s)


_BATCHES: Mapping[str, Callable[[Services, Mapping[str, Any]], Awaitable[Batch[Any]]]] = {
    "/chat": lambda services, options: _judged(services, options, ChatBody, services.chat_service),
    "/classify": lambda services, options: _judged(services, options, ClassifyOptionsBody, services.classify_service),
    "/moderate": lambda services, options: _judged(services, options, ModerateOptionsBody, services.moderate_service),
    "/translate": lambda services, options: _judged(
        services, options, TranslateOptionsBody, services.translate_service
    ),
}


def workload(body: dict[str, Any]) -> Workload:
    """What POST /cost/estimate is asked for, checked as there."""
    return decode(msgspec.json.encode(body), EstimateRequest).to_workload()
