"""The seam between OpenAI's SDK and our errors."""

import inspect

import httpx2
import openai
import pytest

from app.backends.openai_compatible.errors import FOREIGN, translated
from app.backends.status import Peer
from app.backends.tools import ToolsRefused
from app.errors import UpstreamBadReply, UpstreamError, UpstreamRejected, UpstreamTimeout, UpstreamUnavailable

REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions")
US = Peer(name="gemma")

EXPECTED: dict[str, type[UpstreamError]] = {
    **dict.fromkeys(
        ["BadRequestError", "AuthenticationError", "OAuthError", "PermissionDeniedError", "NotFoundError"],
        UpstreamRejected,
    ),
    **dict.fromkeys(["ConflictError", "UnprocessableEntityError", "APIStatusError"], UpstreamRejected),
    "RateLimitError": UpstreamError,
    **dict.fromkeys(["InternalServerError", "APIConnectionError", "APIError"], UpstreamUnavailable),
    "APITimeoutError": UpstreamTimeout,
    "APIResponseValidationError": UpstreamBadReply,
    # never raised by the calls that we make; if one came, a retry would be right
    **dict.fromkeys(["OpenAIError", "LengthFinishReasonError", "ContentFilterFinishReasonError"], UpstreamBadReply),
    **dict.fromkeys(["SubjectTokenProviderError", "WebSocketConnectionClosedError"], UpstreamBadReply),
    **dict.fromkeys(["WebSocketQueueFullError", "InvalidWebhookSignatureError"], UpstreamBadReply),
    "_AmbiguousModuleClientUsageError": UpstreamBadReply,
    # of httpx2, mostly seen through the SDK's own
    **dict.fromkeys(["HTTPError", "RequestError", "TransportError", "HTTPStatusError"], UpstreamUnavailable),
    **dict.fromkeys(["NetworkError", "ReadError", "WriteError", "CloseError", "ConnectError"], UpstreamUnavailable),
    **dict.fromkeys(["ProtocolError", "LocalProtocolError", "RemoteProtocolError"], UpstreamUnavailable),
    **dict.fromkeys(["ProxyError", "UnsupportedProtocol", "ConnectTimeout", "TooManyRedirects"], UpstreamUnavailable),
    **dict.fromkeys(["StreamError", "StreamConsumed", "StreamClosed"], UpstreamUnavailable),
    **dict.fromkeys(["ResponseNotRead", "RequestNotRead"], UpstreamUnavailable),
    **dict.fromkeys(["TimeoutException", "ReadTimeout", "WriteTimeout", "PoolTimeout"], UpstreamTimeout),
    **dict.fromkeys(["DecodingError", "SSEError"], UpstreamBadReply),
    "InvalidURL": UpstreamRejected,
}
NOT_OURS = {"CookieConflict"}
"""We look at no cookies."""

STATUS = {"APIStatusError": 418, "InternalServerError": 500, "RateLimitError": 429}


def foreign() -> dict[str, type[Exception]]:
    """Every exception class that OpenAI's SDK and httpx2 define."""
    modules = (openai, openai._exceptions, httpx2, httpx2._exceptions)
    found = [cls for module in modules for _, cls in inspect.getmembers(module, inspect.isclass)]
    here = ("openai", "httpx2")
    return {
        cls.__name__: cls
        for cls in found
        if issubclass(cls, Exception) and not issubclass(cls, Warning) and cls.__module__.split(".")[0] in here
    }


def instance(cls: type[Exception]) -> Exception:
    """One with what the translation may look at, whatever its constructor wants."""
    exc = cls.__new__(cls, "EVIL")
    status = getattr(cls, "status_code", None) or STATUS.get(cls.__name__, 200)
    response = httpx2.Response(status, request=REQUEST)
    vars(exc).update(status_code=status, response=response, body={"error": {"message": "EVIL"}})
    return exc


@pytest.mark.slow
def test_every_foreign_exception_is_known() -> None:
    """The libraries define no exception that is not in the table, and the table none that is gone."""
    assert foreign().keys() == EXPECTED.keys() | NOT_OURS


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_foreign_exception_is_translated(name: str) -> None:
    """Each becomes the error of its kind, without its own words."""
    raised = instance(foreign()[name])
    ours = translated(raised, US)
    assert isinstance(raised, FOREIGN)
    assert isinstance(ours, EXPECTED[name])
    assert ours.service == "gemma"
    assert "EVIL" not in str(ours)


@pytest.mark.parametrize("cls", [TypeError, KeyError, AttributeError, AssertionError])
def test_programmers_errors_pass_through(cls: type[Exception]) -> None:
    """What only a mistake of ours can raise is not blamed on the server."""
    assert not isinstance(cls(), FOREIGN)


@pytest.mark.parametrize(
    ("error", "quota"),
    [
        ({"code": "insufficient_quota"}, "day"),
        ({"code": "rate_limit_exceeded", "message": "Limit 200 requests per day (RPD)"}, "day"),
        ({"code": "rate_limit_exceeded", "message": "Limit 3 requests per min (RPM)"}, "minute"),
        ({}, "unknown"),
    ],
)
def test_quotas_are_told_apart(error: dict[str, str], quota: str) -> None:
    """The day's quota is told from the minute's by its code, or by the words of its message."""
    response = httpx2.Response(429, request=REQUEST)
    ours = translated(openai.RateLimitError("", response=response, body={"error": error}), US)
    assert getattr(ours, "quota", None) == quota


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
        (400, "registry.ollama.ai/library/gemma3:4b does not support tools"),
        (404, "No endpoints found that support tool use."),
        (500, "tools param requires --jinja flag"),
    ],
)
def test_who_takes_no_tools_says_so_in_many_ways(status: int, words: str) -> None:
    """vLLM, Ollama, OpenRouter and llama.cpp, by their words whatever the status; they are not repeated."""
    response = httpx2.Response(status, request=REQUEST)
    ours = translated(openai.APIStatusError("", response=response, body={"error": {"message": words}}), US)
    assert isinstance(ours, ToolsRefused)
    assert str(ours) == f"gemma does not support tools (HTTP {status})"
