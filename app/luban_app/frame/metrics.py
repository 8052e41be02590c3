"""The service's Prometheus metrics. One registry per application, so that tests never share counters."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector

from luban_app.frame.sessions import SessionWindow

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds; the last is the longest that /work may take."""

OTHER = "other"
# Series of creation times would double what is scraped, and nobody reads them.
disable_created_metrics()  # type: ignore[no-untyped-call]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """What the service counts. Labels come from closed sets: a client cannot invent time series."""

    def __init__(self, sessions: SessionWindow) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "luban_app_requests",
            "Requests answered, by method, route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "luban_app_request_seconds",
            "Time from a request's head to the end of its response.",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge("luban_app_requests_in_flight", "Requests being answered now.", registry=self.registry)
        active = Gauge(
            "luban_app_active_sessions",
            "Distinct session cookies seen in the last 60 s.",
            registry=self.registry,
        )
        active.set_function(sessions.active)
        ProcessCollector(registry=self.registry)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is a route's path pattern or `OTHER`."""
        self._requests.labels(method if method in _METHODS else OTHER, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
