"""What a client's `model` means in a chat: one of our collections, or a backend's own model."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from app.backends.client import Line
from app.config.backends import AUTO
from app.domain import Query
from app.errors import NotFound, WinnowError
from app.services.model_ids import ANSWER, at_backend, line_called
from app.wiring import PROBE_S

DEFAULT_COLLECTION = Query(text="").collection

CHAT_TOKENS = 4096
"""What a reply may have where nobody says, if the model's context has twice the room."""


class Target(NamedTuple):
    """A collection, and who ranks and writes; None: the settings' default."""

    collection: str
    backend: str | None


class Straight(NamedTuple):
    """A model, without any documents; `tokens` are what its replies may have where nobody says."""

    backend: str
    tokens: int = CHAT_TOKENS


async def meant_by(model: str, lines: Mapping[str, Line]) -> Target | Straight:
    """`winnow`, `winnow:handbook`, `winnow@gemma`, `winnow:handbook@gemma`; `gemma`, its model's id, `auto`.

    Raises NotFound, listing what there is.
    """
    name = model.strip()
    if name == ANSWER or name.startswith((f"{ANSWER}:", f"{ANSWER}@")):
        collection, backend = at_backend(name.removeprefix(ANSWER).removeprefix(":"))
        return Target(collection or DEFAULT_COLLECTION, backend)
    if name == AUTO:
        return Straight(AUTO)
    line = line_called(name, lines.values()) or await _line_found_out(name, lines)
    if line is None:
        raise NotFound(f"there is no model {name[:100]!r} to chat with; {_known(lines)}; GET /v1/models lists them")
    return Straight(line.name, _tokens(line))


async def _line_found_out(name: str, lines: Mapping[str, Line]) -> Line | None:
    """Just after the start some may not have said yet which model they have."""
    await asyncio.gather(*(_ask(line) for line in lines.values() if line.probed is None))
    return line_called(name, lines.values())


async def _ask(line: Line) -> None:
    with suppress(WinnowError):
        await line.known(PROBE_S)


def _tokens(line: Line) -> int:
    context = line.probed.context_tokens if line.probed else None
    return CHAT_TOKENS if context is None else max(1, min(CHAT_TOKENS, context // 2))


def _known(lines: Mapping[str, Line]) -> str:
    models = [line.model for line in lines.values() if line.model]
    return f"there are {', '.join((ANSWER, f'{ANSWER}:COLLECTION', f'{ANSWER}:COLLECTION@BACKEND', *models))}"
