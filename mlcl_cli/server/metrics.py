"""What /metrics reports, for Prometheus."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # where several workers meet


class Metrics:
    """Counters of one worker; several workers report together."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mlcl_requests", "Requests answered", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "mlcl_request_seconds", "Time to answer", ["route"], buckets=SECONDS, registry=self._registry
        )
        self.batch_size = Histogram(
            "mlcl_batch_queries",
            "Queries encoded together",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self._registry,
        )
        self.waiting = Gauge(
            "mlcl_waiting_requests", "Searches in progress", registry=self._registry, multiprocess_mode="livesum"
        )
        self.rows = Gauge(
            "mlcl_catalog_rows", "Rows of the catalog", registry=self._registry, multiprocess_mode="mostrecent"
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All counters, of all workers, in Prometheus' format."""
        if DIRECTORY not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
