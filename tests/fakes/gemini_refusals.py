"""The errors that Gemini answers with instead of a reply."""

import json
from typing import Any

from tests.fakes.faults import Fault
from tests.fakes.wire import Asked

KEY = "a-key-of-gemini"
SECRET = "provider-says-so"
"""Stands in every text that the server writes about an error: it must never come out of the service."""

_RPC = "type.googleapis.com/google.rpc."
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_STATUSES = {
    Fault.BAD_REQUEST: 400,
    Fault.UNAUTHORIZED: 401,
    Fault.FORBIDDEN: 403,
    Fault.UNKNOWN_MODEL: 404,
    Fault.REQUEST_TIMEOUT: 408,
    Fault.SERVER_ERROR: 500,
}


class Refusal(Exception):
    """An error reply. `details` are Google's `error.details`; `body` instead of all that, if given."""

    def __init__(
        self,
        status: int,
        details: list[Any] | None = None,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers or {}
        self.body = error_body(status, details) if body is None else body


def refuse(fault: Fault, retry_after_s: float) -> None:
    """Raises the Refusal that a fault stands for, if it does."""
    match fault:
        case Fault.HTML_PAGE:
            page = f"<html><title>{SECRET}</title></html>".encode()
            raise Refusal(502, headers={"content-type": "text/html"}, body=page)
        case Fault.UNAVAILABLE:
            raise Refusal(503, headers={"retry-after": str(retry_after_s)})
        case Fault.RATE_LIMITED_WITH_DELAY:
            raise Refusal(429, [_spent("Minute"), _retry_info(retry_after_s)])
        case Fault.RATE_LIMITED:
            raise Refusal(429, [_spent("Minute")])
        case Fault.QUOTA_OF_THE_DAY:
            raise Refusal(429, [_spent("Day"), _retry_info(retry_after_s)])
        case _ if fault in _STATUSES:
            raise Refusal(_STATUSES[fault])


def check_key(asked: Asked) -> None:
    """Google Cloud takes a bearer token, the Developer API a key. Raises Refusal."""
    if "authorization" in asked.headers:
        return
    key = asked.headers.get("x-goog-api-key")
    if key is None:
        raise Refusal(403)
    if key != KEY:
        raise Refusal(400, [{"@type": _RPC + "ErrorInfo", "reason": "API_KEY_INVALID"}])


def error_body(status: int, details: list[Any] | None = None) -> bytes:
    """Google's error document."""
    code = _CODES[status]
    error = {"code": status, "message": f"{SECRET}: {code}", "status": code}
    return json.dumps({"error": {**error, "details": details} if details else error}).encode()


def _spent(period: str) -> dict[str, Any]:
    quota_id = f"GenerateRequestsPer{period}PerProjectPerModel-FreeTier"
    return {"@type": _RPC + "QuotaFailure", "violations": [{"quotaId": quota_id, "quotaValue": "15"}]}


def _retry_info(retry_after_s: float) -> dict[str, Any]:
    return {"@type": _RPC + "RetryInfo", "retryDelay": f"{retry_after_s}s"}
