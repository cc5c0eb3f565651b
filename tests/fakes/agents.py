"""Messages of agents, as their bytes are."""

import json
from typing import Any

import httpx

HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def message(method: str, params: dict[str, Any] | None = None, number: int | str | None = 1) -> dict[str, Any]:
    """A request, or without a number a notification."""
    numbered = {} if number is None else {"id": number}
    return {"jsonrpc": "2.0", **numbered, "method": method, **({} if params is None else {"params": params})}


def call(name: str, number: int | str = 1, **arguments: Any) -> dict[str, Any]:
    """The request for a tool."""
    return message("tools/call", {"name": name, "arguments": arguments}, number)


async def send(client: httpx.AsyncClient, content: Any, path: str = "/mcp", **headers: str) -> httpx.Response:
    """POST the message."""
    return await client.post(path, json=content, headers={**HEADERS, **headers})


def messages(reply: httpx.Response) -> list[dict[str, Any]]:
    """All that an event stream says, or the one message of a JSON body."""
    if reply.headers["content-type"].startswith("application/json"):
        return [reply.json()]
    return [json.loads(line[5:]) for line in reply.text.splitlines() if line.startswith("data:")]


async def called(client: httpx.AsyncClient, name: str, **arguments: Any) -> dict[str, Any]:
    """The result of a tool."""
    result: dict[str, Any] = messages(await send(client, call(name, **arguments)))[-1]["result"]
    return result


def text_of(result: dict[str, Any]) -> str:
    """What a model reads."""
    [content] = result["content"]
    return str(content["text"])
