"""Test that the metrics of a worker stay few, whatever recipes are called."""

from prometheus_client import CollectorRegistry

from safelight.worker.metrics import Metrics


def test_recipes_that_requests_name_as_they_like_do_not_each_become_series():
    registry = CollectorRegistry()
    metrics = Metrics(registry, slots=1)
    for number in range(1000):
        metrics.attempts.labels("finished", metrics.label(f"recipe-{number}")).inc()
        metrics.attempts.labels("finished", metrics.label("recipe-0")).inc()
    (family,) = [one for one in registry.collect() if one.name == "safelight_worker_attempts"]
    counts = {sample.labels["recipe"]: sample.value for sample in family.samples if sample.name.endswith("_total")}
    assert len(counts) == 51
    assert (counts["recipe-0"], counts["recipe-1"], counts["other"]) == (1001, 1, 950)
