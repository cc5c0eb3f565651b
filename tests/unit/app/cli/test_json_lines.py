"""The command line's stream of JSON lines: what the service refuses, and connections that break."""

from collections.abc import AsyncGenerator

import pytest

from app.cli.http_client import ServiceRefused
from app.cli.json_lines import exchanged
from app.errors import InvalidRequest
from app.instance import Presence
from tests.fakes.http_server import answering

pytestmark = pytest.mark.anyio


async def rows() -> AsyncGenerator[bytes, None]:
    yield b'"one"\n'


def service(url: str) -> Presence:
    return Presence(url=url, token="token", pid=1)


@pytest.mark.parametrize(("status", "kind"), [(422, InvalidRequest), (503, ServiceRefused)])
async def test_a_refusal_is_told_in_the_services_words(status: int, kind: type[Exception]) -> None:
    """What the caller can change is a wrong usage, anything else a failure."""
    with answering(status, b'{"detail":"in its words"}') as url, pytest.raises(kind, match="in its words"):
        await anext(exchanged(service(url), "/chat", {}, rows()))


async def test_what_is_no_stream_is_a_lost_connection() -> None:
    """Whatever it is that answers."""
    with answering(200, b"hello") as url, pytest.raises(ServiceRefused, match="lost the connection"):
        await anext(exchanged(service(url), "/chat", {}, rows()))


async def test_a_service_that_is_gone_is_told() -> None:
    """With its address."""
    with answering(200) as url:
        pass
    with pytest.raises(ServiceRefused, match="cannot connect"):
        await anext(exchanged(service(url), "/chat", {}, rows()))
