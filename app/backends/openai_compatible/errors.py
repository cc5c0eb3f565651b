"""The one seam between what OpenAI's SDK raises and our own errors. What the server wrote goes along for the log alone.

what happened                            becomes
a reply with an error status             see `app.backends.status`
no answer in time                        UpstreamTimeout
no connection, a dropped one             UpstreamUnavailable
a reply that cannot be read              UpstreamBadReply
an error inside a stream or a reply      by the status or the type that it names
"""

import time
from collections.abc import Mapping, Sequence

import httpx2
import openai

from app.backends.status import Peer, Reason, error_of_status, late, logged_reason, retry_after_s, unreadable
from app.domain import TokenCount
from app.errors import UpstreamBadReply, UpstreamError, UpstreamRejected, UpstreamUnavailable

_UNREADABLE = (openai.APIResponseValidationError, httpx2.DecodingError, httpx2.SSEError, ValueError, RecursionError)
"""Malformed JSON is a ValueError, of json as of msgspec; one that is nested without end, a RecursionError."""

FOREIGN = (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, TimeoutError, *_UNREADABLE)
"""What a call can raise."""

_REASONS: Mapping[str, Reason] = {
    "content_filter": "policy",
    "content_policy_violation": "policy",
    "ResponsibleAIPolicyViolation": "policy",
    "insufficient_quota": "day",
    "billing_hard_limit_reached": "day",
    "rate_limit_exceeded": "minute",
    "context_length_exceeded": "too long",
    "exceed_context_size_error": "too long",
    "input_tokens": "too long",
    "input_text": "too long",
    "model_not_found": "no model",
    "NotFoundError": "no model",
    "not_found_error": "no model",
    "NOT_FOUND": "no model",
    "RESOURCE_EXHAUSTED": "minute",
    "API_KEY_INVALID": "bad key",
}
"""By the type, code, param or status of an error object."""

_PHRASES: Mapping[str, Reason] = {
    "per day": "day",
    "try pulling it": "no model",  # Ollama
    "no endpoints found": "no model",  # OpenRouter
    "is not a valid model": "no model",
    "model not found": "no model",
    "no models loaded": "no model",  # LM Studio
    "context length": "too long",
    "context size": "too long",
    "context window": "too long",
    "--enable-auto-tool-choice": "no tools",  # vLLM
    "--tool-call-parser": "no tools",
    "not support tools": "no tools",  # Ollama
    "support tool use": "no tools",  # OpenRouter
    "tools param requires": "no tools",  # llama.cpp
}
"""By its message, for what no code tells."""

_STATUS_OF_TYPE = {
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
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
}


def translated(exc: Exception, peer: Peer) -> UpstreamError:
    """Our error for one of FOREIGN."""
    name = peer.name
    if isinstance(exc, openai.APIStatusError):
        wait = retry_after_s(exc.response.headers, time.time())
        error = error_of_status(exc.status_code, peer, _reasons(exc.body), wait)
        error.reason = logged_reason(_message(exc.body))
        return error
    if isinstance(exc, _UNREADABLE) or isinstance(exc.__cause__, httpx2.DecodingError):  # the SDK may wrap it
        return unreadable(peer)
    if isinstance(exc, httpx2.InvalidURL):
        return UpstreamRejected(name, f"{name}: the URL is invalid; `url` should be like http://127.0.0.1:8000/v1")
    if isinstance(exc, openai.APIConnectionError | httpx2.HTTPError | httpx2.StreamError | TimeoutError):
        return _connection_error(exc, peer)
    if isinstance(exc, openai.APIError):
        return named_error(exc.body, peer)
    return UpstreamBadReply(name, f"{name} could not be used through OpenAI's SDK ({type(exc).__name__})")


def named_error(body: object, peer: Peer, tokens: TokenCount | None = None) -> UpstreamError:
    """Our error for an error object inside a stream, or in a reply that claims success."""
    codes = _codes(body)
    status = next((int(code) for code in codes if code.isdigit() and 400 <= int(code) <= 599), None)
    status = status or next((_STATUS_OF_TYPE[code] for code in codes if code in _STATUS_OF_TYPE), 500)
    error = error_of_status(status, peer, _reasons(body))
    error.tokens, error.reason = tokens, logged_reason(_message(body))
    return error


def _connection_error(exc: Exception, peer: Peer) -> UpstreamError:
    name = peer.name
    cause = exc.__cause__ if isinstance(exc, openai.APIConnectionError) else exc
    if isinstance(cause, httpx2.ConnectTimeout | httpx2.ConnectError | httpx2.ProxyError | httpx2.UnsupportedProtocol):
        return UpstreamUnavailable(name, f"{name} cannot be reached; is it running, and is `url` right?")
    if isinstance(exc, openai.APITimeoutError | TimeoutError | httpx2.TimeoutException):
        return late(peer)
    return UpstreamUnavailable(name, f"{name} dropped the connection")


def _reasons(body: object) -> set[Reason]:
    message = _message(body).lower()
    by_code = {_REASONS[code] for code in _codes(body) if code in _REASONS}
    return by_code | {reason for phrase, reason in _PHRASES.items() if phrase in message}


def _message(body: object) -> str:
    """What an error says in words: in one of the fields that servers use, or as the whole body."""
    error = _error(body)
    if isinstance(error, Mapping):
        error = next((error[key] for key in ("message", "detail", "error") if error.get(key)), "")
    if isinstance(error, Sequence) and not isinstance(error, str):  # FastAPI lists what is wrong with the fields
        return "; ".join(_problem(one) for one in error)
    return error if isinstance(error, str) else _problem(error)


def _problem(problem: object) -> str:
    """One of FastAPI's, without the input that it repeats."""
    if not isinstance(problem, Mapping):
        return str(problem)
    place = problem.get("loc")
    places = ".".join(map(str, place)) if isinstance(place, Sequence) and not isinstance(place, str) else ""
    return f"{places}: {problem.get('msg', '')}".removeprefix(": ")


def _codes(body: object) -> list[str]:
    """The stable words of an error object: its type, code, param and status."""
    error = _error(body)
    if not isinstance(error, Mapping):
        return []
    return [str(error[key]) for key in ("type", "code", "param", "status") if error.get(key) is not None]


def _error(body: object) -> object:
    """The error of a body, which may be the first of a list, as Google has it, or a bare text, as Ollama has it."""
    if isinstance(body, Sequence) and not isinstance(body, str) and len(body) == 1:
        body = body[0]
    return body.get("error", body) if isinstance(body, Mapping) else body
