"""The command line's way to a running service."""

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec

from app.errors import WinnowError
from app.presence import TOKEN_HEADER, Presence
from indexing.pipeline import SyncRequest
from indexing.progress import Event, Summary

_TIMEOUT = httpx.Timeout(10.0, read=None)
"""A search on a busy machine, or a step of a long indexing run, may take its time; the user can interrupt it."""


class ServiceRefused(WinnowError):
    """The service answered with a problem; its text is the problem's."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Last event of a run that could not go on."""

    detail: str


class RemoteService:
    """Talks to the service that a `Presence` names."""

    def __init__(self, presence: Presence) -> None:
        headers = {TOKEN_HEADER: presence.token}
        self._client = httpx.Client(base_url=presence.url, headers=headers, timeout=_TIMEOUT, trust_env=False)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON body of the reply. Raises ServiceRefused."""
        try:
            reply = self._client.post(path, json=body)
        except httpx.HTTPError as exc:
            raise ServiceRefused(f"the service at {self._client.base_url} broke off: {type(exc).__name__}") from exc
        if reply.is_error:
            raise ServiceRefused(_problem(reply))
        decoded: dict[str, Any] = reply.json()
        return decoded

    def stream_answer(self, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The server-sent events of /answer as (name, data). Raises ServiceRefused."""
        with self._client.stream("POST", "/answer", json={**body, "stream": True}) as reply:
            self._check(reply)
            name = ""
            for line in reply.iter_lines():
                if line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:"):
                    yield name, msgspec.json.decode(line[5:])

    def sync(self, request: SyncRequest) -> Iterator[Event]:
        """The events of an indexing run inside the service; leaving early stops the run. Raises ServiceRefused."""
        with self._client.stream(
            "POST", "/internal/sync", content=msgspec.json.encode(request), headers=_JSON
        ) as reply:
            self._check(reply)
            for line in reply.iter_lines():
                event = _EVENTS.decode(line)
                if isinstance(event, Failed):
                    raise ServiceRefused(event.detail)
                yield event

    def put(self, data: bytes, name: str, collection: str) -> Summary:
        """Index a document in the service. Raises ServiceRefused."""
        reply = self._client.post("/internal/document", params={"name": name, "collection": collection}, content=data)
        self._check(reply)
        return msgspec.json.decode(reply.content, type=Summary)

    def _check(self, reply: httpx.Response) -> None:
        if reply.is_error:
            reply.read()
            raise ServiceRefused(_problem(reply))


_JSON = {"Content-Type": "application/json"}
_EVENTS: msgspec.json.Decoder[Event | Failed] = msgspec.json.Decoder(Event | Failed)


def _problem(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the service answered {reply.status_code}"
