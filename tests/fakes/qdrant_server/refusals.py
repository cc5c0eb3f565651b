"""What a server says when it does not do what it is asked, in both protocols.

The kinds and their texts are those of Qdrant's `StorageError`.
"""

from enum import Enum
from typing import Any

import grpc


class Kind(Enum):
    """A kind of refusal: its HTTP status, its gRPC code, and how its text begins."""

    BAD_INPUT = (400, grpc.StatusCode.INVALID_ARGUMENT, "Wrong input: ")
    BAD_REQUEST = (400, grpc.StatusCode.INVALID_ARGUMENT, "Bad request: ")
    UNAUTHORIZED = (401, grpc.StatusCode.UNAUTHENTICATED, "")
    FORBIDDEN = (403, grpc.StatusCode.PERMISSION_DENIED, "Forbidden: ")
    NOT_FOUND = (404, grpc.StatusCode.NOT_FOUND, "Not found: ")
    TIMEOUT = (408, grpc.StatusCode.DEADLINE_EXCEEDED, "Timeout: ")
    ALREADY_EXISTS = (409, grpc.StatusCode.ALREADY_EXISTS, "Wrong input: ")
    RATE_LIMIT = (429, grpc.StatusCode.RESOURCE_EXHAUSTED, "Rate limiting exceeded: ")
    INTERNAL = (500, grpc.StatusCode.INTERNAL, "Service internal error: ")
    UNAVAILABLE = (503, grpc.StatusCode.UNAVAILABLE, "Shard temporarily unavailable: ")
    INSUFFICIENT_STORAGE = (507, grpc.StatusCode.RESOURCE_EXHAUSTED, "Insufficient storage: ")


class Refusal(Exception):
    """Raised by whatever cannot serve a request."""

    def __init__(self, kind: Kind, text: str, retry_after: int | None = None) -> None:
        super().__init__(f"{kind.value[2]}{text}")
        self.kind = kind
        self.status, self.code, _ = kind.value
        self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        """Of a response over REST."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def body(self) -> dict[str, Any]:
        """Of a response over REST."""
        return {"time": 0.0, "status": {"error": str(self)}}

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with the status over gRPC."""
        if self.kind is Kind.INSUFFICIENT_STORAGE:
            return (("qdrant-insufficient-storage", "1"),)
        return () if self.retry_after is None else (("retry-after", str(self.retry_after)),)


def strict_mode(error: str, help_text: str) -> Refusal:
    """What an operator's limits forbid."""
    return Refusal(Kind.BAD_REQUEST, f"{error}. Help: {help_text}")
