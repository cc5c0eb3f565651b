"""The one seam between what OpenAI's SDK raises and our own errors. What the server wrote is never repeated.

what happened                                   becomes
400, 404, 409, 413, 422 and other 4xx, 3xx, 501 UpstreamRejected   (a content filter: Refused)
any that says that tools are not taken          ToolsRefused
401, 403                                        UpstreamRejected, naming the setting
408, 504, 524, no answer in time                UpstreamTimeout
402, 429                                        UpstreamRateLimited, with Retry-After and the quota
5xx, no connection, a dropped one               UpstreamUnavailable, with Retry-After
a reply that cannot be read                     UpstreamBadReply
an error inside a stream or a reply             by the status or the type that it names
"""

import time
from collections.abc import Mapping
from typing import Any

import httpx2
import msgspec
import openai

from app.backends.resilience.retry import told_pause_s
from app.backends.tools import ToolsRefused
from app.domain import TokenCount
from app.errors import (
    PromptTooLong,
    Quota,
    Refused,
    UpstreamBadReply,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)

_UNREADABLE = (openai.APIResponseValidationError, httpx2.DecodingError, httpx2.SSEError, ValueError, RecursionError)
"""Malformed JSON is a ValueError, of json as of msgspec; one that is nested without end, a RecursionError."""

FOREIGN = (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, TimeoutError, *_UNREADABLE)
"""What a call can raise."""

_TIMEOUTS = {408, 504, 524}
_OVER_QUOTA = {402, 429}
_REFUSALS = {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"}
_DAILY = {"insufficient_quota", "billing_hard_limit_reached"}
_TOO_LONG = {"context_length_exceeded", "exceed_context_size_error", "input_tokens", "input_text"}
_NO_TOOLS = (
    *("--enable-auto-tool-choice", "--tool-call-parser"),  # vLLM
    *("not support tools", "support tool use", "tools param requires"),  # Ollama, OpenRouter, llama.cpp
)
_TYPES = {
    "server_error": 500,
    "api_error": 500,
    "overloaded_error": 503,
    "invalid_request_error": 400,
    "BadRequestError": 400,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "authentication_error": 401,
    "not_found_error": 404,
    "NotFoundError": 404,
}


class NoSuchRoute(UpstreamRejected):
    """The server does not have that endpoint."""


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """Who is spoken to, for the texts. `models` are those that it is known to have."""

    name: str
    model: str | None = None
    models: tuple[str, ...] = ()
    context_tokens: int | None = None


def translated(exc: Exception, upstream: Upstream) -> UpstreamError:
    """Our error for one of FOREIGN."""
    name = upstream.name
    if isinstance(exc, openai.APIStatusError):
        return _refusal_of(exc.status_code, _facts(exc), upstream, exc.response.headers)
    if isinstance(exc, _UNREADABLE):
        return UpstreamBadReply(name, f"{name} sent a reply that cannot be read")
    if isinstance(exc, httpx2.InvalidURL):
        return UpstreamRejected(name, f"{name} cannot have that address; `url` should be like http://127.0.0.1:8000/v1")
    if isinstance(exc, openai.APIConnectionError | httpx2.HTTPError | httpx2.StreamError | TimeoutError):
        return _connection_error(exc, name)
    if isinstance(exc, openai.APIError):
        return named_error(exc.body, upstream)
    return UpstreamBadReply(name, f"{name} could not be used through OpenAI's SDK ({type(exc).__name__})")


def named_error(body: object, upstream: Upstream, tokens: TokenCount | None = None) -> UpstreamError:
    """Our error for an error object inside a stream, or in a reply that claims success."""
    facts = _words(body)
    status = next((int(word) for word in facts if word.isdigit() and 400 <= int(word) <= 599), None)
    known = next((_TYPES[word] for word in facts if word in _TYPES), 500)
    error = _refusal_of(status or known, facts, upstream, {})
    error.tokens = tokens
    return error


def _connection_error(exc: Exception, name: str) -> UpstreamError:
    cause = exc.__cause__ if isinstance(exc, openai.APIConnectionError) else exc
    if isinstance(cause, httpx2.ConnectTimeout | httpx2.ConnectError | httpx2.ProxyError | httpx2.UnsupportedProtocol):
        return UpstreamUnavailable(name, f"{name} cannot be reached; is it running, and is `url` right?")
    if isinstance(exc, openai.APITimeoutError | TimeoutError | httpx2.TimeoutException):
        return UpstreamTimeout(name, f"{name} did not answer in time", sent=True)
    return UpstreamUnavailable(name, f"{name} dropped the connection")


def _refusal_of(status: int, facts: frozenset[str], upstream: Upstream, headers: Mapping[str, str]) -> UpstreamError:
    name = upstream.name
    after = told_pause_s(headers, time.time())
    if facts & _REFUSALS:
        return Refused(name, f"{name} declined for its content policy")
    if "no tools" in facts:
        return ToolsRefused(name, f"{name} takes no tools ({status})")
    if status in _OVER_QUOTA:
        return UpstreamRateLimited(name, f"{name} wants fewer requests ({status})", after, quota=_quota(status, facts))
    if status in _TIMEOUTS:
        return UpstreamTimeout(name, f"{name} gave up waiting ({status})", after)
    if status >= 500 and status != 501:
        return UpstreamUnavailable(name, f"{name} cannot serve now ({status})", after)
    return _rejection(status, facts, upstream)


def _rejection(status: int, facts: frozenset[str], upstream: Upstream) -> UpstreamRejected:
    name = upstream.name
    if status in (401, 403):
        return UpstreamRejected(name, f"{name} refuses the key ({status}); set api_key in [backends.{name}]")
    if facts & _TOO_LONG:
        limit = f" of {upstream.context_tokens} tokens" if upstream.context_tokens else ""
        return PromptTooLong(name, f"the prompt is too long for the context{limit} of {name}")
    if status in (404, 405) and not facts & {"model_not_found", "NotFoundError", "not_found_error"}:
        return NoSuchRoute(name, f"{name} has no such endpoint ({status}); `url` should end in /v1")
    if status == 404:
        return UpstreamRejected(name, f"{name} does not have the model {upstream.model!r}{_listed(upstream.models)}")
    if status < 400:
        return UpstreamRejected(name, f"{name} redirects elsewhere ({status}); `url` should name the final address")
    return UpstreamRejected(name, f"{name} refuses the request ({status})")


def _listed(models: tuple[str, ...]) -> str:
    return f"; it has {listing(models)}" if models else ""


def listing(models: tuple[str, ...], most: int = 10) -> str:
    """The first few names."""
    more = f" and {len(models) - most} more" if len(models) > most else ""
    return ", ".join(models[:most]) + more


def _quota(status: int, facts: frozenset[str]) -> Quota:
    if status == 402 or facts & _DAILY or "per day" in facts:
        return "day"
    return "minute" if "rate_limit_exceeded" in facts else "unknown"


def _facts(exc: openai.APIStatusError) -> frozenset[str]:
    return _words(exc.body)


def _words(body: object) -> frozenset[str]:
    """The stable words of an error object: its type, code and param, and what only its message tells."""
    error = body.get("error", body) if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return frozenset()
    words = {str(error[key]) for key in ("type", "code", "param") if error.get(key) is not None}
    return frozenset(words | _spoken(error))


def _spoken(error: Mapping[Any, Any]) -> set[str]:
    message = str(error.get("message", "")).lower()
    long = "context length" in message or "context size" in message or "context window" in message
    told = {"input_tokens": long, "per day": "per day" in message}
    told["no tools"] = any(words in message for words in _NO_TOOLS)
    return {word for word, said in told.items() if said}
