"""A stream of JSON lines both ways, over one connection to the running service.

httpx sends all of a body before it reads the response. Here a text is sent when an earlier one has come back.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from http import HTTPStatus
from urllib.parse import urlencode, urlsplit

import msgspec

from app.cli.http_client import ServiceRefused
from app.errors import InvalidRequest
from app.instance import TOKEN_HEADER, Presence

MEDIA_TYPE = "application/x-ndjson"
_CALLER_ERRORS = (400, 413, 415, 422)
_LONGEST_LINE = 1 << 24
"""Of a response: a translation of a long text, with everything around it."""


async def exchanged(
    presence: Presence, path: str, options: Mapping[str, object], rows: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """The rows of the response to these rows, as they come. Raises ServiceRefused, InvalidRequest.

    Closing it hangs up, by which the service ends its calls.
    """
    address = urlsplit(presence.url)
    try:
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=_LONGEST_LINE)
    except OSError as exc:
        raise ServiceRefused(f"cannot connect to the service at {presence.url}") from exc
    sending: asyncio.Task[None] | None = None
    try:
        writer.write(_head(presence, f"{path}?{_query(options)}", address.netloc))
        await _check_begun(reader)
        sending = asyncio.create_task(_send(writer, rows))
        async with aclosing(_lines(reader)) as lines:
            async for line in lines:
                yield line
    except (OSError, EOFError, ValueError) as exc:  # also what asyncio raises
        cause = sending.exception() if sending and sending.done() and not sending.cancelled() else None
        if cause is not None and not isinstance(cause, OSError):
            raise cause from exc
        raise ServiceRefused(f"lost the connection to the service at {presence.url}") from exc
    finally:
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await rows.aclose()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _head(presence: Presence, target: str, host: str) -> bytes:
    lines = (
        f"POST {target} HTTP/1.1",
        f"Host: {host}",
        f"{TOKEN_HEADER}: {presence.token}",
        f"Content-Type: {MEDIA_TYPE}",
        "Transfer-Encoding: chunked",
    )
    return "\r\n".join((*lines, "", "")).encode()


def _query(options: Mapping[str, object]) -> str:
    """Texts as they are, everything else as JSON."""
    return urlencode(
        {
            name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
            for name, value in options.items()
        }
    )


async def _send(writer: asyncio.StreamWriter, rows: AsyncIterator[bytes]) -> None:
    async for row in rows:
        writer.write(b"%x\r\n%b\r\n" % (len(row), row))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def _check_begun(reader: asyncio.StreamReader) -> None:
    """The service answers before it reads a row. Raises ServiceRefused, InvalidRequest for a problem."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    if status == HTTPStatus.OK:
        return
    _, _, length = head.partition("content-length:")
    detail = _detail(await reader.readexactly(int(length.partition("\r")[0])), status)
    raise (InvalidRequest if status in _CALLER_ERRORS else ServiceRefused)(detail)


async def _lines(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    """Those of the response, which is chunked."""
    held = b""
    while size := int(await reader.readline(), 16):
        *lines, held = (held + await reader.readexactly(size)).split(b"\n")
        for line in lines:
            yield line
        await reader.readexactly(2)


def _detail(body: bytes, status: int) -> str:
    try:
        return str(msgspec.json.decode(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the service answered with HTTP status {status}"
