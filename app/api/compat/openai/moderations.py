"""POST /v1/moderations, as OpenAI offers it."""

import secrets
from typing import Any

import msgspec
from litestar import post
from litestar.params import JSONBody

from app.api.compat.errors import openai_error, retry_hints, shaped
from app.api.compat.inputs import LenientJSON
from app.api.request import BodyRequest, Injected, caller_of, while_connected
from app.backends.base import call_of
from app.backends.client import BackendClient
from app.config.settings import Settings
from app.domain import Moderated, ModerateOptions
from app.errors import InvalidRequest, pointing_at
from app.services.batches import DEFAULT_CONCURRENCY, Batch, judge_list
from app.services.labelling import DEFAULT_CATEGORIES, ModerateService
from app.services.model_ids import find_client

MAX_INPUTS = 1_000


class ModerationsBody(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of POST /v1/moderations. Any `model` that is not a backend, or the model of one, means the default."""

    input: Any
    model: str | None = None


@post(
    "/v1/moderations",
    dto=LenientJSON[ModerationsBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(openai_error, retry_hints),
    opt={"scope": "tasks"},
)
async def create_moderations(
    request: BodyRequest,
    data: JSONBody[ModerationsBody],
    moderate_service: Injected[ModerateService],
    clients: Injected[dict[str, BackendClient]],
    settings: Injected[Settings],
) -> dict[str, Any]:
    """A result for each input, in their order. One that fails fails all: the format has no other way to say so."""
    texts, caller = moderated_texts(data.input), caller_of(request)
    client = find_client(data.model or "", clients.values(), caller)
    options = ModerateOptions(categories=DEFAULT_CATEGORIES, backend=client.name if client else None)
    judge = await moderate_service.judge(options)
    batch = Batch(
        judge, lambda: call_of(moderate_service.stage, settings.routing.deadline_s, caller), DEFAULT_CONCURRENCY
    )
    outcomes = await while_connected(request, judge_list(batch, texts))
    results, used = [], ""
    for outcome in outcomes:
        if outcome.judged is None:
            raise outcome.error or InvalidRequest("the input was not judged")
        results.append(_result(outcome.judged.result))
        used = outcome.judged.backend.model or outcome.judged.backend.used
    return {"id": f"modr-{secrets.token_hex(12)}", "model": used, "results": results}


def moderated_texts(given: Any) -> list[str]:
    """A text, a list of them, or the text parts of one input as OpenAI's multi-modal models take it.

    Raises InvalidRequest, also for pictures.
    """
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not 0 < len(given) <= MAX_INPUTS:
        raise pointing_at("/input", f"a text or a list of 1 to {MAX_INPUTS} texts is needed")
    if all(isinstance(one, str) for one in given):
        return given
    return ["\n".join(_part(number, part) for number, part in enumerate(given))]


def _part(number: int, part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise pointing_at(f"/input/{number}", 'a part is {"type": "text", "text": ...}; pictures are not moderated')


def _result(moderated: Moderated) -> dict[str, Any]:
    return {
        "flagged": moderated.flagged,
        "categories": {name: name in moderated.categories for name in moderated.scores},
        "category_scores": moderated.scores,
        "category_applied_input_types": {name: ["text"] for name in moderated.scores},
    }
