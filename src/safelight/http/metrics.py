"""Count requests and their times in plain numbers, because every request updates them.

The metrics of prometheus-client take a lock for each of the five numbers that a request changes. Here only the event
loop changes them, and they become metrics when they are read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

from aiohttp import hdrs
from prometheus_client import CollectorRegistry, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

_BOUNDS = tuple(bound for bound in Histogram.DEFAULT_BUCKETS if bound != float("inf"))
_NAMES = (*map(str, _BOUNDS), "+Inf")


class _Times:
    """The times of one method on one route."""

    def __init__(self) -> None:
        self.buckets = [0] * len(_NAMES)
        self.sum = 0.0


class RequestMetrics(Collector):
    """Counts requests by method, route and status."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counts: dict[tuple[str, str, int], int] = {}
        self._times: dict[tuple[str, str], _Times] = {}
        registry.register(self)

    def count(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request. `path` is the pattern of a route, so the number of series is bounded."""
        if method not in hdrs.METH_ALL:
            method = "other"
        key = method, path, status
        self._counts[key] = self._counts.get(key, 0) + 1
        times = self._times.get((method, path))
        if times is None:
            times = self._times[method, path] = _Times()
        times.buckets[bisect_left(_BOUNDS, seconds)] += 1
        times.sum += seconds

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; called by a thread, while requests are counted."""
        requests = CounterMetricFamily("safelight_requests", "Requests answered", labels=["method", "route", "status"])
        for (method, path, status), count in list(self._counts.items()):
            requests.add_metric([method, path, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily("safelight_request_seconds", "Time to answer", labels=["method", "route"])
        for key, times in list(self._times.items()):
            totals: list[tuple[str, float]] = list(zip(_NAMES, accumulate(list(times.buckets)), strict=True))
            seconds.add_metric(key, totals, times.sum)
        yield seconds
