"""Traces over OpenTelemetry's SDK, sent by OTLP over HTTP. Importing this needs the extra `otel`."""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace import Tracer as OtelTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.observability.tracing import Attributes, Kind, Texts

TRACES = "/v1/traces"

EXPORT_S = 5.0
"""How long the collector may take for a batch."""

DELAY_S = 1.0
"""After so long a span that has ended is sent."""

CLOSE_S = 0.4
"""How long the end of the service waits for what has not been sent."""

KINDS = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT, "server": SpanKind.SERVER}
CONTEXT_HEADERS = ("traceparent", "tracestate")

log = structlog.get_logger()

_PROPAGATOR = TraceContextTextMapPropagator()


class Traces:
    """An `app.observability.tracing.Tracer`. The SDK's own variables hold too, as OTEL_EXPORTER_OTLP_HEADERS.

    A collector that is away costs nothing: at most 2,048 spans wait, further ones are dropped, and the log says once
    that it is away. With `texts` spans hold what was asked and answered; of all traces a `share` is recorded.
    """

    def __init__(self, endpoint: str, version: str, *, texts: bool, share: float) -> None:
        # The SDK reports each failed batch, with a traceback; `_Reported` does it once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._exporter = _Reported(OTLPSpanExporter(endpoint.rstrip("/") + TRACES, timeout=EXPORT_S), endpoint)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)), resource=_resource(version), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter, schedule_delay_millis=1000 * DELAY_S))
        self._tracer = self._provider.get_tracer("winnow", version)
        self._texts = texts

    def request(self, method: str, headers: Mapping[bytes, bytes]) -> "TraceSpan":
        """See `Tracer`."""
        sent = {name: headers[name.encode()].decode("latin-1") for name in CONTEXT_HEADERS if name.encode() in headers}
        attributes = {"http.request.method": method}
        context = _PROPAGATOR.extract(sent)
        span = self._tracer.start_span(method, context=context, kind=SpanKind.SERVER, attributes=attributes)
        return TraceSpan(self._tracer, span, texts=self._texts)

    async def aclose(self) -> None:
        """See `Tracer`."""
        # The SDK would wait for half a minute, in a thread that nothing stops.
        ending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, CLOSE_S)
        if ending.is_alive():
            self._exporter.give_up()


class TraceSpan:
    """An `app.observability.tracing.Span`."""

    def __init__(self, tracer: OtelTracer, span: OtelSpan, *, texts: bool) -> None:
        self._tracer, self._span, self._texts = tracer, span, texts

    @property
    def trace_id(self) -> str:
        """See `Span`."""
        return format_trace_id(self._span.get_span_context().trace_id)

    def child(self, name: str, kind: Kind, attributes: Attributes) -> "TraceSpan":
        """See `Span`."""
        context = set_span_in_context(self._span)
        span = self._tracer.start_span(name, context=context, kind=KINDS[kind], attributes=attributes)
        return TraceSpan(self._tracer, span, texts=self._texts)

    def set(self, attributes: Attributes) -> None:
        """See `Span`."""
        self._span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        """See `Span`."""
        self._span.update_name(name)

    def set_texts(self, texts: Texts) -> None:
        """See `Span`."""
        if self._texts and self._span.is_recording():
            self._span.set_attributes(texts())

    def headers(self) -> Mapping[str, str]:
        """See `Span`."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, set_span_in_context(self._span))
        return carrier

    def end(self, failure: str = "") -> None:
        """See `Span`."""
        if failure:
            self._span.set_attribute("error.type", failure)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class _Reported(SpanExporter):
    """Says in the log when a collector goes away and when it is back, and not for each batch."""

    def __init__(self, exporter: OTLPSpanExporter, endpoint: str) -> None:
        self._exporter, self._endpoint = exporter, endpoint
        self._away = self._over = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._over:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away and not self._away:
            log.warning("traces cannot be sent; they are dropped until they can be", endpoint=self._endpoint)
        elif self._away and not away:
            log.info("traces are sent again", endpoint=self._endpoint)
        self._away = away
        return result

    def give_up(self) -> None:
        """Wait for no collector any longer."""
        self._over = True
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def shutdown(self) -> None:
        if not self._over:
            self.give_up()


def _resource(version: str) -> Resource:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES may name the service otherwise."""
    resource = Resource.create({SERVICE_VERSION: version})
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "winnow"}))
    return resource
