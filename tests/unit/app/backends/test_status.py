"""What an HTTP status of a model server means."""

from email.utils import formatdate

import pytest

from app.backends.status import NoSuchModel, NoSuchRoute, Peer, Reason, error_of_status, retry_after_s
from app.backends.tools import ToolsRefused
from app.errors import (
    PromptTooLong,
    Refused,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)

PEER = Peer(name="gemma", model="m", models=tuple("abcdefghijkl"), context_tokens=512)


@pytest.mark.parametrize(
    ("status", "reasons", "error", "text"),
    [
        (302, (), UpstreamRejected, "gemma redirects elsewhere (HTTP 302); check `url` in [backends.gemma]"),
        (400, (), UpstreamRejected, "gemma rejects the request (HTTP 400)"),
        (400, ("bad key",), UpstreamRejected, "gemma rejects the API key (HTTP 400); set `api_key` in"),
        (400, ("too long",), PromptTooLong, "the prompt is too long for the context of 512 tokens of gemma"),
        (401, (), UpstreamRejected, "gemma rejects the API key (HTTP 401)"),
        (402, (), UpstreamRateLimited, "gemma: the daily quota is spent (HTTP 402)"),
        (403, (), UpstreamRejected, "gemma rejects the API key (HTTP 403)"),
        (404, (), NoSuchRoute, "gemma has no such endpoint (HTTP 404)"),
        (
            404,
            ("no model",),
            NoSuchModel,
            "gemma does not have the model 'm'; it has a, b, c, d, e",
        ),
        (405, (), NoSuchRoute, "gemma has no such endpoint (HTTP 405)"),
        (408, (), UpstreamTimeout, "gemma timed out (HTTP 408)"),
        (429, (), UpstreamRateLimited, "gemma: too many requests or tokens (HTTP 429)"),
        (429, ("minute", "day"), UpstreamRateLimited, "gemma: the daily quota is spent (HTTP 429)"),
        (451, ("policy",), Refused, "gemma declined for its content policy"),
        (500, ("no tools",), ToolsRefused, "gemma does not support tools (HTTP 500)"),
        (501, (), UpstreamRejected, "gemma rejects the request (HTTP 501)"),
        (503, (), UpstreamUnavailable, "gemma is unavailable (HTTP 503)"),
        (504, (), UpstreamTimeout, "gemma timed out (HTTP 504)"),
        (524, (), UpstreamTimeout, "gemma timed out (HTTP 524)"),
        (529, (), UpstreamUnavailable, "gemma is unavailable (HTTP 529)"),
    ],
)
def test_each_status_has_one_meaning(
    status: int, reasons: tuple[Reason, ...], error: type[UpstreamError], text: str
) -> None:
    """Whoever the server is: the error's class, and a text that says what to check."""
    made = error_of_status(status, PEER, reasons, 7.0)
    assert type(made) is error
    assert str(made).startswith(text)
    may_wait = isinstance(made, UpstreamRateLimited | UpstreamTimeout | UpstreamUnavailable)
    assert made.retry_after == (7.0 if may_wait else None)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-1", "retry-after": "9"}, 9.0),
        ({"retry-after": formatdate(1_000_030, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(999_000, usegmt=True)}, 0.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Mon, 99 Foo 2026 99:99:99 GMT"}, None),
    ],
)
def test_a_delay_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    """Milliseconds, seconds and dates are delays; nonsense, a negative number among it, is none."""
    assert retry_after_s(headers, now=1_000_000) == seconds
