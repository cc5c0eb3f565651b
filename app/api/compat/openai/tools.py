"""Tools in OpenAI's words: what clients offer a model, and what it calls."""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec

from app.api.json_body import field_problem
from app.domain import Function, ToolCall, Tools
from app.errors import pointing_at

T = TypeVar("T", bound=msgspec.Struct)


class ToolBody(msgspec.Struct, frozen=True, kw_only=True):
    """A function that a model may call."""

    function: Function
    type: Literal["function"] = "function"


class Called(msgspec.Struct, frozen=True, kw_only=True):
    """`arguments` is JSON in a string."""

    name: str
    arguments: str = ""


class CallBody(msgspec.Struct, frozen=True, kw_only=True):
    """A call, as replies tell it and clients repeat it."""

    id: str
    function: Called
    type: Literal["function"] = "function"


def tools_of(tools: Any, choice: Any, *, parallel: bool | None) -> Tools | None:
    """None where there are none. Raises InvalidRequest."""
    functions = tuple(tool.function for tool in _read(tools, ToolBody, "/tools"))
    match choice:
        case None | "auto" | "none":
            offered = Tools(functions=functions, choice=choice or "auto", parallel=parallel)
        case "required" if functions:
            offered = Tools(functions=functions, choice="required", parallel=parallel)
        case {"type": "function", "function": {"name": str(name)}} if name in {one.name for one in functions}:
            offered = Tools(functions=functions, choice="required", only=name, parallel=parallel)
        case _:
            raise pointing_at("/tool_choice", "give auto, none, required, or the name of one of the tools")
    return offered if functions else None


def calls_of(given: Any, pointer: str) -> tuple[ToolCall, ...]:
    """What an assistant has called, in the conversation so far. Raises InvalidRequest below `pointer`."""
    return tuple(
        ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
        for call in _read(given, CallBody, f"{pointer}/tool_calls")
    )


def whole_calls(calls: Sequence[ToolCall]) -> list[CallBody]:
    """Of a reply at once."""
    return [CallBody(id=call.id, function=Called(name=call.name, arguments=call.arguments)) for call in calls]


def call_pieces(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Of a stream: only the first piece of a call has its id and name."""
    return [_piece(call) for call in calls]


def _piece(call: ToolCall) -> dict[str, Any]:
    function = {"arguments": call.arguments}
    if not call.name:
        return {"index": call.index, "function": function}
    return {"index": call.index, "id": call.id, "type": "function", "function": {"name": call.name, **function}}


def _read(given: Any, kind: type[T], pointer: str) -> list[T]:
    try:
        return msgspec.convert(given or [], list[kind], strict=False)  # type: ignore[valid-type]
    except msgspec.ValidationError as exc:
        problem = field_problem(str(exc), kind)
        raise pointing_at(f"{pointer}{problem.pointer}", problem.detail) from exc
