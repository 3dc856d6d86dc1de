"""The metrics of a worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_MAX_RECIPES = 50
"""The most recipes with series of their own; all others share the label `other`. Requests name theirs as they like."""


class Metrics:
    """Counts attempts, bytes and leases."""

    def __init__(self, registry: CollectorRegistry, slots: int) -> None:
        self.attempts = Counter(
            "safelight_worker_attempts",
            "Attempts, by outcome and recipe",
            ["outcome", "recipe"],
            registry=registry,
        )
        self.seconds = Histogram(
            "safelight_worker_processing_seconds",
            "Time to decode and make every output, by recipe",
            ["recipe"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._recipes: set[str] = set()
        self.bytes_in = Counter("safelight_worker_input_bytes", "Bytes fetched from storage", registry=registry)
        self.bytes_out = Counter("safelight_worker_output_bytes", "Bytes put into storage", registry=registry)
        self.lost = Counter("safelight_worker_leases_lost", "Leases that expired or were taken away", registry=registry)
        self.busy = Gauge("safelight_worker_slots_busy", "Slots that process a photo now", registry=registry)
        self.held = Gauge("safelight_worker_leases_held", "Leases held now", registry=registry)
        Gauge("safelight_worker_slots", "The most photos processed at the same time", registry=registry).set(slots)

    def label(self, recipe: str) -> str:
        """Return the label under which a recipe is counted."""
        if recipe in self._recipes:
            return recipe
        if len(self._recipes) >= _MAX_RECIPES:
            return "other"
        self._recipes.add(recipe)
        return recipe


class DecoderRestarts(Collector):
    """Collects the pool's counts of decoders that were replaced, by reason."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return the counts."""
        family = CounterMetricFamily(
            "safelight_worker_decoder_restarts", "Decoders replaced, by reason", labels=["reason"]
        )
        for reason, count in dict(self._counts).items():
            family.add_metric([reason], count)
        yield family
