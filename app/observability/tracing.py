"""Traces of requests: what a span is here, and the one that this task works in.

Nothing of OpenTelemetry is imported: `app.observability.otlp` implements these protocols with it, if the settings name
a collector. Without one no request has a span, and all of this does nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol

Kind = Literal["internal", "client", "server"]
Value = str | int | float | bool | tuple[str, ...]
Attributes = Mapping[str, Value]
Texts = Callable[[], Mapping[str, str]]
"""Attributes that hold texts of users, documents or models: made only if the settings allow them in traces."""


class Span(Protocol):
    """A part of a request with a beginning and an end."""

    @property
    def trace_id(self) -> str:
        """32 hex digits."""

    def child(self, name: str, kind: Kind, attributes: Attributes) -> "Span":
        """A part of this part, which begins now."""

    def set(self, attributes: Attributes) -> None:
        """Say more about it."""

    def rename(self, name: str) -> None:
        """Give it another name than it began with."""

    def set_texts(self, texts: Texts) -> None:
        """Likewise, if texts may be in traces."""

    def headers(self) -> Mapping[str, str]:
        """W3C trace context for a request to another server."""

    def end(self, failure: str = "") -> None:
        """It is over. `failure` is the code of an error."""


class Tracer(Protocol):
    """Begins traces, and sends what has ended to a collector in the background."""

    def request(self, method: str, headers: Mapping[bytes, bytes]) -> Span:
        """The span of a request, under the caller's own if the headers say so."""

    async def aclose(self) -> None:
        """Send what is left, if that can be done at once."""


SPAN: ContextVar[Span | None] = ContextVar("span", default=None)
"""What this task works in; None: it is not traced."""


@contextmanager
def active(span: Span | None) -> Iterator[None]:
    """Spans that begin in the body are parts of this one."""
    if span is None:
        yield
        return
    token = SPAN.set(span)
    try:
        yield
    finally:
        # A generator may be closed by another task than the one that began it, whose context is not this one.
        if SPAN.get() is span:
            _reset(token)


@contextmanager
def part(name: str, attributes: Attributes = {}, texts: Texts | None = None) -> Iterator[None]:  # noqa: B006
    """A span for the body, if this task is traced."""
    parent = SPAN.get()
    if parent is None:
        yield
        return
    span = parent.child(name, "internal", attributes)
    if texts is not None:
        span.set_texts(texts)
    failure = ""
    try:
        with active(span):
            yield
    except BaseException as exc:
        failure = getattr(exc, "code", "") or type(exc).__name__
        raise
    finally:
        span.end(failure)


def trace_headers() -> Mapping[str, str]:
    """For a request to another server, on behalf of what this task works in."""
    span = SPAN.get()
    return {} if span is None else span.headers()


def _reset(token: object) -> None:
    try:
        SPAN.reset(token)  # type: ignore[arg-type]
    except ValueError:
        SPAN.set(None)
