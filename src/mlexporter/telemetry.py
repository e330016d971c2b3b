"""The exporter's own metrics: requests, refusals, scrapes, the process."""

import platform
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import Metric as PrometheusFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from mlexporter import __version__, metrics
from mlexporter.metrics import Metric
from mlexporter.pending.work import Health
from mlexporter.samples import Reason, Rejection

_HTTP_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))
_END = b"# EOF\n"


class _WithoutCreated(Collector):
    """A registry without the `_created` series, which double the counters and say nothing here.

    prometheus_client can switch them off as well, but for the whole process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[PrometheusFamily]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class Families:
    """Metrics from the table of metrics, and those of the process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._page = _WithoutCreated(self.registry)
        ProcessCollector(registry=self.registry)

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name.removesuffix("_total"), metric.help, metric.labels, registry=self.registry)

    def _gauge(self, metric: Metric) -> Gauge:
        return Gauge(metric.name, metric.help, metric.labels, registry=self.registry)

    def _histogram(self, metric: Metric, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(metric.name, metric.help, metric.labels, buckets=buckets, registry=self.registry)

    def page(self, *, openmetrics: bool) -> bytes:
        """The families as text, without an end-of-file mark."""
        if openmetrics:
            text: bytes = generate_openmetrics(self._page)  # type: ignore[no-untyped-call]
            return text.removesuffix(_END)
        return generate_latest(self._page)


class Telemetry(Families):
    """Counters of the exporter itself.

    Args:
        clock: Unix time in seconds.

    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._rejected = self._counter(metrics.SAMPLES_REJECTED)
        # every reason is there from the start: an increase from a counter that is born at 1 is 0
        self._rejected_by = {reason: self._rejected.labels(reason.value) for reason in Reason}
        self._requests = self._counter(metrics.HTTP_REQUESTS)
        self._requests_by: dict[tuple[str, str, int], Counter] = {}
        self._duration = self._histogram(metrics.HTTP_DURATION, _HTTP_BUCKETS)
        self._duration_by: dict[str, Histogram] = {}
        self._gauge(metrics.BUILD_INFO).labels(__version__, platform.python_version()).set(1)
        self._reload_successful = self._gauge(metrics.RELOAD_SUCCESSFUL)
        self._reload_timestamp = self._gauge(metrics.RELOAD_TIMESTAMP)
        self._web_config_successful = self._gauge(metrics.WEB_CONFIG_SUCCESSFUL)
        self._web_config_successful.set(1)
        self._web_config_failures = self._counter(metrics.WEB_CONFIG_FAILURES)
        self.series = self._gauge(metrics.SERIES)
        self.series_limit = self._gauge(metrics.SERIES_LIMIT)
        self.scrape_duration = self._histogram(metrics.SCRAPE_DURATION, _HTTP_BUCKETS)

        self._pending_up = self._gauge(metrics.PENDING_STORE_UP)
        self._pending_queue = self._gauge(metrics.PENDING_QUEUE)
        self._pending_counters = {
            "errors": self._counter(metrics.PENDING_STORE_ERRORS),
            "dropped": self._counter(metrics.PENDING_DROPPED),
            "writes": self._counter(metrics.PENDING_STORE_WRITES),
            "write_seconds": self._counter(metrics.PENDING_STORE_WRITE_SECONDS),
        }
        self._health = Health()
        self._state: dict[str, Gauge] = {}
        self._state_errors: Counter | None = None

    def keeping_state(self, *, restored: bool, damaged: bool) -> None:
        """Note that state is kept on disk, and what was found there. Without it these metrics are absent."""
        self._state_errors = self._counter(metrics.STATE_WRITE_ERRORS)
        self._gauge(metrics.STATE_RESTORED).set(restored)
        self._gauge(metrics.STATE_DAMAGED).set(damaged)

    def written(self, time: float, seconds: float, size: int) -> None:
        """Note that the state was written, at a Unix time, in so many seconds and bytes; from one thread at a time."""
        values = {metrics.STATE_LAST_WRITE: time, metrics.STATE_WRITE_DURATION: seconds, metrics.STATE_SIZE: size}
        for metric, value in values.items():
            if metric.name not in self._state:
                self._state[metric.name] = self._gauge(metric)
            self._state[metric.name].set(value)

    def failed(self) -> None:
        """Count a write of the state that failed."""
        assert self._state_errors is not None
        self._state_errors.inc()

    def joined(self, health: Health) -> None:
        """Note how the join of predictions and labels fares; from one thread at a time."""
        self._pending_up.set(health.up)
        self._pending_queue.set(health.queued_rows)
        for name, counter in self._pending_counters.items():
            counter.inc(getattr(health, name) - getattr(self._health, name))
        self._health = health

    def rejected(self, rejection: Rejection) -> None:
        """Count refused samples."""
        self._rejected_by[rejection.reason].inc(rejection.count)

    def refused(self, reason: Reason) -> None:
        """Count a request that was refused as a whole."""
        self._rejected_by[reason].inc()

    def request(self, handler: str, method: str, code: int, seconds: float) -> None:
        """Count an answered request; `handler` is one of ours, `method` whatever the client sent."""
        if method not in _METHODS:
            method = "other"
        key = (handler, method, code)
        requests = self._requests_by.get(key)
        if requests is None:
            requests = self._requests_by[key] = self._requests.labels(handler, method, str(code))
        requests.inc()
        duration = self._duration_by.get(handler)
        if duration is None:
            duration = self._duration_by[handler] = self._duration.labels(handler)
        duration.observe(seconds)

    def loaded(self, *, successful: bool = True) -> None:
        """Note that the configuration was read, and whether it could be used."""
        self._reload_successful.set(successful)
        if successful:
            self._reload_timestamp.set(self._clock())

    def web_config_loaded(self, *, successful: bool) -> None:
        """Note that the web configuration was read, and whether it could be used."""
        self._web_config_successful.set(successful)
        self._web_config_failures.inc(not successful)
