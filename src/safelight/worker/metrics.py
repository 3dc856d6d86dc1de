"""The numbers that an operator of workers looks at."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one worker."""

    def __init__(self, registry: CollectorRegistry, slots: int) -> None:
        self.attempts = Counter(
            "safelight_worker_attempts",
            "Attempts ended, by outcome and recipe",
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
        self.bytes_in = Counter("safelight_worker_input_bytes", "Bytes fetched from storage", registry=registry)
        self.bytes_out = Counter("safelight_worker_output_bytes", "Bytes put into storage", registry=registry)
        self.lost = Counter("safelight_worker_leases_lost", "Leases that ran out or were taken away", registry=registry)
        self.decoders_ended = Counter(
            "safelight_worker_decoder_deaths", "Decoders ended by an image, by reason", ["code"], registry=registry
        )
        self.busy = Gauge("safelight_worker_slots_busy", "Slots that process an image now", registry=registry)
        self.held = Gauge("safelight_worker_leases_held", "Leases held now", registry=registry)
        Gauge("safelight_worker_slots", "Images processed at once at most", registry=registry).set(slots)
