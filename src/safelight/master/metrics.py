"""The metrics of the master."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from safelight.errors import Code
from safelight.wire import State, Summary

_REFUSALS = (
    Code.NOT_AN_IMAGE, Code.UNSUPPORTED_FORMAT, Code.TOO_LARGE, Code.TOO_MANY_REQUESTS, Code.STORAGE_FULL,
    Code.UNAVAILABLE,
)  # fmt: skip
"""Refusals that are reported before the first one, so that its rate is seen."""


class Metrics:
    """The metrics of the master, in addition to those that every service has."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.uploads = Counter("safelight_uploads", "Photos that became tasks", registry=registry)
        self.bytes = Counter("safelight_upload_bytes", "Bytes of photos passed to storage", registry=registry)
        self.upload_seconds = Histogram(
            "safelight_upload_seconds",
            "Time from the start of a request with photos to their tasks; of resumable uploads, of the last request",
            registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
        )
        self.refused = Counter(
            "safelight_uploads_refused",
            "Photos and requests with photos that were refused",
            ["code"],
            registry=registry,
        )
        self.uploading = Gauge("safelight_uploads_in_progress", "Uploads in progress", registry=registry)
        self.readers = Gauge("safelight_event_readers", "Open event streams", registry=registry)
        self.slow_readers = Counter(
            "safelight_event_readers_dropped", "Event streams closed because their readers were slow", registry=registry
        )
        self.webhooks = Counter("safelight_webhooks", "Webhook calls", ["outcome"], registry=registry)
        self.tasks = Gauge("safelight_tasks", "Tasks by state", ["state"], registry=registry)
        self.oldest = Gauge(
            "safelight_oldest_waiting_seconds", "Age of the oldest task that can begin now", registry=registry
        )
        self.workers = Gauge("safelight_workers", "Workers seen lately", registry=registry)
        for code in _REFUSALS:
            self.refused.labels(code.value)
        for outcome in ("delivered", "failed", "refused", "given_up"):
            self.webhooks.labels(outcome)

    def take(self, summary: Summary) -> None:
        """Set the gauges of the queue."""
        for state in State:
            name = state.name.lower()
            self.tasks.labels(name).set(summary.tasks.get(name, 0))
        self.oldest.set(summary.oldest_waiting)
        self.workers.set(len(summary.workers))
