"""Trace the processing of a photo from upload to result, as OpenTelemetry spans.

Spans are sent to a collector by OTLP over HTTP; the standard `OTEL_…` variables say where and how. Other services and
the task itself get the span as a W3C `traceparent`, so the work of a worker later belongs to the upload's trace.

A program traces once it has called `start`. Until then OpenTelemetry is not imported, and a span costs one comparison.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar

HEADER = "traceparent"
"""The request header of W3C Trace Context."""
_FLUSH = 3.0
"""Seconds for which a stopping program waits to send its last spans."""
_NOTHING: AbstractContextManager[Any] = nullcontext()

Attributes = dict[str, str | int] | None

F = TypeVar("F", bound=Callable[..., Any])


class Open:
    """A span that the caller ends; empty if nothing is traced."""

    def __init__(self, span: Any = None, traceparent: str | None = None) -> None:
        self._span = span
        self.traceparent = traceparent

    def end(self) -> None:
        """End the span. Calling it again changes nothing."""
        span, self._span = self._span, None
        if span is not None:
            span.end()


class _Tracing:
    """The part that needs OpenTelemetry."""

    def __init__(self, service: str, version: str) -> None:
        """Raise ImportError where the extra is not installed."""
        from opentelemetry import context, trace  # noqa: PLC0415 - only who traces loads it
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        attributes = {"service.namespace": "safelight", "service.version": version}
        named = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        if "OTEL_SERVICE_NAME" not in os.environ and "service.name=" not in named:
            attributes["service.name"] = f"safelight-{service}"
        self.provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer("safelight", version)
        self._context, self._trace = context, trace
        self._propagator = TraceContextTextMapPropagator()

    def _above(self, parent: str | None) -> Any:
        """Return the context below which to make a span, or None if its parent is not traced."""
        above = self._context.get_current()
        if parent is not None:
            above = self._propagator.extract({HEADER: parent}, context=self._context.Context())
        return above if self._trace.get_current_span(above).get_span_context().is_valid else None

    @contextmanager
    def span(self, name: str, parent: str | None, attributes: Attributes, *, root: bool, kind: str) -> Iterator[Any]:
        above = self._above(parent)
        if above is None and not root:
            yield None
            return
        with self._tracer.start_as_current_span(
            name,
            context=self._context.Context() if above is None else above,
            kind=self._trace.SpanKind[kind.upper()],
            attributes=attributes,
            record_exception=False,
        ) as span:
            yield span

    def begin(self, name: str, parent: str, attributes: Attributes) -> Open:
        above = self._above(parent)
        if above is None:
            return Open()
        span = self._tracer.start_span(name, context=above, attributes=attributes)
        return Open(span, self.traceparent(self._trace.set_span_in_context(span)))

    def traceparent(self, context: Any = None) -> str | None:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context)
        return carrier.get(HEADER)

    @contextmanager
    def apart(self) -> Iterator[None]:
        token = self._context.attach(self._context.Context())
        try:
            yield
        finally:
            self._context.detach(token)


_tracing: _Tracing | None = None


def start(service: str, version: str) -> None:
    """Trace from now on, as this service. Raises ImportError where the extra `tracing` is not installed."""
    global _tracing  # noqa: PLW0603 - the traces of a process are configured once
    _tracing = _Tracing(service, version)


def flush() -> None:
    """Send the last spans before the program ends, within a few seconds."""
    if _tracing is not None:
        # A collector that does not answer must not delay the end; the thread ends with the program.
        sending = threading.Thread(target=_tracing.provider.force_flush, daemon=True, name="last spans")
        sending.start()
        sending.join(_FLUSH)


def is_on() -> bool:
    """Return whether this program traces."""
    return _tracing is not None


def span(
    name: str,
    *,
    parent: str | None = None,
    root: bool = False,
    kind: str = "internal",
    attributes: Attributes = None,
) -> AbstractContextManager[Any]:
    """Make a span that lasts for a context: below `parent`, a traceparent, or below the current span.

    If there is neither, nothing is traced unless this is a `root`. `kind` is internal, server or client.
    """
    if _tracing is None:
        return _NOTHING
    return _tracing.span(name, parent, attributes, root=root, kind=kind)


def each(name: str, parents: Iterable[str | None]) -> AbstractContextManager[Any]:
    """Make a span that lasts for a context in each of several traces."""
    return _NOTHING if _tracing is None else _each(name, parents)


@contextmanager
def _each(name: str, parents: Iterable[str | None]) -> Iterator[None]:
    with ExitStack() as stack:
        for parent in parents:
            stack.callback(begin(name, parent).end)
        yield


def begin(name: str, parent: str | None, attributes: Attributes = None) -> Open:
    """Begin a span below a traceparent, if there is one. The caller ends it."""
    return Open() if _tracing is None or parent is None else _tracing.begin(name, parent, attributes)


def current() -> str | None:
    """Return the traceparent of the current span, or None if nothing is traced."""
    return None if _tracing is None else _tracing.traceparent()


def headers() -> dict[str, str]:
    """Return the header with which another service continues the trace."""
    found = current()
    return {} if found is None else {HEADER: found}


def apart() -> AbstractContextManager[Any]:
    """Leave the current span, for work that belongs to several requests."""
    return _NOTHING if _tracing is None else _tracing.apart()


def traced(name: str) -> Callable[[F], F]:
    """Mark a handler whose requests begin a trace if they do not belong to one; `name` is the name of the span."""

    def mark(handler: F) -> F:
        handler.__dict__["traced"] = name
        return handler

    return mark
