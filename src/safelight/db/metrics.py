"""The metrics of db."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from safelight.db.rows import EventRow
from safelight.errors import Error
from safelight.wire import Summary

log = logging.getLogger(__name__)

_MAX_RECIPES = 50
"""The most recipes with a series of their own; all others share the label `other`."""
_TIMEOUT = 5.0


class Metrics:
    """Counts commits and the changes in them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._changes = Counter("safelight_task_changes", "Changes of tasks, by kind", ["kind"], registry=registry)
        self._deaths = Counter("safelight_deaths", "Attempts that ended with a death", registry=registry)
        self._retries = Counter("safelight_retries", "Attempts that ended with a transient error", registry=registry)
        self._seconds = Histogram(
            "safelight_processing_seconds",
            "Time to process one photo",
            ["recipe"],
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
            registry=registry,
        )
        self._of_kind: dict[str, Callable[[float], None]] = {}
        self._of_recipe: dict[str, Callable[[float], None]] = {}
        """Cached counters and histograms, because finding a metric by its label costs more than counting."""
        self._commits = Counter("safelight_commits", "Commits to the database", registry=registry)
        self._calls = Histogram(
            "safelight_calls_per_commit",
            "Calls that shared a commit",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
            registry=registry,
        )

    def committed(self, calls: int, events: Sequence[EventRow]) -> None:
        """Count one commit."""
        self._commits.inc()
        self._calls.observe(calls)
        kinds = Tally(event.kind for event in events)
        for kind, count in kinds.items():
            counted = self._of_kind.get(kind)
            if counted is None:
                counted = self._of_kind[kind] = self._changes.labels(kind).inc
            counted(count)
        self._deaths.inc(kinds["expired"] + kinds["died"])
        self._retries.inc(kinds["delayed"])
        for event in events:
            if event.kind == "finished":
                noted = self._of_recipe.get(event.recipe) or self._note_recipe(event.recipe)
                noted(event.seconds)

    def _note_recipe(self, recipe: str) -> Callable[[float], None]:
        if len(self._of_recipe) >= _MAX_RECIPES:
            return self._seconds.labels("other").observe
        noted = self._of_recipe[recipe] = self._seconds.labels(recipe).observe
        return noted


class QueueCollector(Collector):
    """Collects the state of the queue from the store whenever metrics are read, which happens on a thread."""

    def __init__(self, summary: Callable[[], Awaitable[Summary]]) -> None:
        self._summary = summary
        self._loop = asyncio.get_running_loop()

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registration does not trigger a collection."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return the gauges of the queue; none if the database does not answer, so that the other metrics remain."""

        async def ask() -> Summary:
            async with asyncio.timeout(_TIMEOUT):
                return await self._summary()

        try:
            summary = asyncio.run_coroutine_threadsafe(ask(), self._loop).result()
        except (Error, TimeoutError) as error:
            log.debug("The queue cannot be counted: %s", error)
            return
        tasks = GaugeMetricFamily("safelight_tasks", "Tasks by state", labels=["state"])
        for state, count in summary.tasks.items():
            tasks.add_metric([state], count)
        yield tasks
        oldest = summary.oldest_waiting
        yield GaugeMetricFamily("safelight_delayed_tasks", "Waiting tasks that wait to be retried", summary.delayed)
        yield GaugeMetricFamily("safelight_available_tasks", "Waiting tasks that can begin now", summary.available)
        yield GaugeMetricFamily("safelight_oldest_waiting_seconds", "Age of the oldest task that can begin now", oldest)
        yield GaugeMetricFamily("safelight_workers", "Workers seen lately", len(summary.workers))
        yield GaugeMetricFamily("safelight_webhooks_due", "Webhook calls not yet settled", summary.webhooks_due)
