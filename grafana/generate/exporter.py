"""The exporters themselves: do they take samples in, and is their page read."""

from typing import Final

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana.generate import alerts, layout, links, panels, style, variables
from grafana.generate.panels import About, Query
from grafana.generate.queries import JOBS, REPLICAS, or_zero

BUILD: Final = f"mlexporter_build_info{{{REPLICAS}}}"
# Processes tell of themselves under names that all have: those of exporters are meant.
OF_EXPORTERS: Final = f"and on (job, namespace, instance) {BUILD}"
LEGEND: Final = "{{instance}}"
SAMPLES_REQUESTS: Final = f'handler="/v1/samples", {REPLICAS}'


def dashboard() -> Dashboard:
    """The dashboard Exporter."""
    return layout.dashboard(
        "exporter",
        "mlexporter / Exporter",
        "The health of the exporters themselves: what comes in, what is refused, scrapes, series, memory, labels that "
        "wait, state on disk.",
        variables=[variables.datasource(), variables.job(), variables.namespace(), variables.instance()],
        links=[links.to(*links.FLEET)],
        annotations=[links.firing(f'model="", {JOBS}')],
        items=[
            _numbers(),
            *layout.section("Ingest", [_samples(), _rejected()], [_requests(), _request_time()]),
            *layout.section("Scrapes and series", [_scrape_time(), _prometheus_time(), _series()]),
            *layout.section("Process", [_memory(), _cpu(), _files()]),
            *layout.section("Labels that are to come", [_pending(), _queue()], [_writes(), _dropped()]),
            *layout.section("State on disk", [_state_age(), _state_time(), _state_size()]),
        ],
    )


def _rate(metric: str, selector: str = REPLICAS, by: str = "instance") -> str:
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def _each(
    id_: int,
    size: tuple[int, int],
    about: About,
    expr: str,
    *,
    unit: str,
    thresholds: ThresholdsConfig | None = None,
    maximum: float | None = None,
) -> Panel:
    """A line for each exporter."""
    query = Query(expr, LEGEND)
    return panels.lines(id_, size, about, [query], unit=unit, thresholds=thresholds, maximum=maximum)


def _numbers() -> list[Panel]:
    return [
        _exporters(),
        _down(),
        _configuration(),
        _store(),
        _series_taken(),
        _releases(),
    ]


def _exporters() -> Panel:
    return panels.number(
        1,
        About(
            "Exporters",
            "Exporters that Prometheus reads.",
            "as many as there are replicas.",
            "fewer than replicas: see the targets of Prometheus for those that it does not find.",
        ),
        Query(f"count({BUILD})"),
        unit="none",
        decimals=0,
    )


def _down() -> Panel:
    return panels.number(
        2,
        About(
            "Exporters down",
            "Targets that were an mlexporter within the hour and cannot be scraped.",
            "0.",
            "MLExporterDown pages after 5 minutes: does the process run, what does its log say last?",
        ),
        Query(
            or_zero(
                f"count(up{{{REPLICAS}}} == 0 and on (job, namespace, instance) count_over_time({BUILD}[1h]))",
                f"up{{{REPLICAS}}}",
            )
        ),
        unit="none",
        thresholds=style.bad_from(1.0),
        decimals=0,
    )


def _configuration() -> Panel:
    return panels.number(
        3,
        About(
            "Configuration",
            "Whether the last load of the configuration succeeded, on every exporter.",
            "in order.",
            "an exporter goes on with the configuration before: see its log (MLExporterConfigReloadFailed, "
            "MLExporterWebConfigReloadFailed).",
        ),
        Query(
            f"min(mlexporter_config_last_reload_successful{{{REPLICAS}}})\n"
            f"* min(mlexporter_web_config_last_reload_successful{{{REPLICAS}}})"
        ),
        unit="none",
        states=style.SUCCESS,
    )


def _store() -> Panel:
    return panels.number(
        4,
        About(
            "Store of labels",
            "Whether the stores answer in which predictions wait for their labels.",
            "in order.",
            "samples are taken as before, labels queue: see the log, the disk, or Redis (MLExporterPendingStoreDown).",
        ),
        Query(f"min(mlexporter_pending_store_up{{{REPLICAS}}})"),
        unit="none",
        states=style.SUCCESS,
    )


def _series_taken() -> Panel:
    return panels.number(
        5,
        About(
            "Series taken",
            "Share of `limits.max_series` that is taken, on the fullest exporter.",
            f"under {alerts.SERIES:.0%}.",
            "at the limit new models and versions are refused: take out versions that are gone, or raise it.",
        ),
        Query(f"max(mlexporter_series{{{REPLICAS}}} / mlexporter_series_limit{{{REPLICAS}}})"),
        unit="percentunit",
        thresholds=style.warn_from(alerts.SERIES),
        decimals=0,
    )


def _releases() -> Panel:
    return panels.number(
        6,
        About(
            "Releases",
            "How many releases of the exporter run side by side.",
            "1.",
            "more than 1 outside of a rollout: one of them is stuck.",
        ),
        Query(f"count(count by (version) ({BUILD}))"),
        unit="none",
        thresholds=style.warn_from(2.0),
        decimals=0,
    )


def _samples() -> Panel:
    about = About(
        "Samples accepted",
        "Samples per second that each exporter takes in.",
        "all replicas alike, in the rhythm of the traffic.",
        "one replica at 0: is it behind the load balancer?",
    )
    return _each(10, (12, 8), about, _rate("mlexporter_samples_total"), unit="cps")


def _rejected() -> Panel:
    about = About(
        "Samples refused, by reason",
        "Samples per second that were refused. A request that is refused as a whole counts as one.",
        "0.",
        f"over {alerts.SAMPLES_REJECTED:.0%} of what is sent, MLExporterSamplesRejected fires. The answer to the "
        "client names sample and field; docs/http-api.md explains the reasons.",
    )
    query = Query(_rate("mlexporter_samples_rejected_total", by="reason"), "{{reason}}", style.VERMILION)
    return panels.lines(11, (12, 8), about, [query], unit="cps", maximum=0.1)


def _requests() -> Panel:
    about = About(
        "Requests to /v1/samples and /v1/labels",
        "Requests per second by their answer.",
        "200 only.",
        "4xx is the client's to mend; 503 says that the exporter is overloaded, and 500 is a fault: see its log.",
    )
    selector = f'handler=~"/v1/(samples|labels)", {REPLICAS}'
    query = Query(_rate("mlexporter_http_requests_total", selector, "handler, code"), "{{handler}} {{code}}")
    return panels.lines(12, (12, 8), about, [query], unit="reqps")


def _request_time() -> Panel:
    about = About(
        "Time to take samples in",
        "Median and 99th percentile of the time to answer `POST /v1/samples`, all exporters together.",
        "some milliseconds, as ever.",
        "rising: see CPU below, and how large the requests are.",
    )
    buckets = _rate("mlexporter_http_request_duration_seconds_bucket", SAMPLES_REQUESTS, "le")
    queries = [
        Query(f"histogram_quantile({quantile}, {buckets}) >= 0", f"p{quantile * 100:g}", color)
        for quantile, color in ((0.5, style.SKY), (0.99, style.BLUE))
    ]
    return panels.lines(13, (12, 8), about, queries, unit="s")


def _scrape_time() -> Panel:
    about = About(
        "Time to write the page",
        "95th percentile of the time to copy the counts, compute the statistics and write the page.",
        f"well under {alerts.SCRAPE_SECONDS:g} s.",
        "MLExporterScrapeSlow: fewer columns or windows, or more CPU.",
    )
    buckets = _rate("mlexporter_scrape_duration_seconds_bucket", by="instance, le")
    expr = f"histogram_quantile(0.95, {buckets})"
    return _each(20, (8, 8), about, expr, unit="s", thresholds=style.warn_from(alerts.SCRAPE_SECONDS))


def _prometheus_time() -> Panel:
    about = About(
        "Time of a scrape, as Prometheus sees it",
        "From its request to the end of the page.",
        f"under {alerts.SCRAPE_SECONDS_OUTSIDE:g} s; over the scrape time-out all metrics are gone.",
        "much more than the time to write the page: the network, or an exporter without CPU.",
    )
    expr = f"scrape_duration_seconds{{{REPLICAS}}} {OF_EXPORTERS}"
    return _each(21, (8, 8), about, expr, unit="s", thresholds=style.warn_from(alerts.SCRAPE_SECONDS_OUTSIDE))


def _series() -> Panel:
    about = About(
        "Series, and their limit",
        "Series that the models of an exporter may take, and `limits.max_series`.",
        f"under {alerts.SERIES:.0%} of the limit.",
        "find the model with most columns and versions (MLExporterSeriesLimitNear).",
    )
    queries = [
        Query(f"max by (instance) (mlexporter_series{{{REPLICAS}}})", LEGEND),
        Query(
            f"{alerts.SERIES:g} * min(mlexporter_series_limit{{{REPLICAS}}})",
            f"{alerts.SERIES:.0%} of the limit",
            style.ORANGE,
            dashed=True,
        ),
    ]
    return panels.lines(22, (8, 8), about, queries, unit="short")


def _memory() -> Panel:
    about = About(
        "Memory",
        "Resident memory of the process.",
        "level: it grows with models and columns, not with traffic.",
        "rising for days: see which models were added, and how many predictions wait in memory.",
    )
    expr = f"max by (instance) (process_resident_memory_bytes{{{REPLICAS}}} {OF_EXPORTERS})"
    return _each(30, (8, 8), about, expr, unit="bytes")


def _cpu() -> Panel:
    about = About(
        "CPU",
        "Cores that the process uses.",
        "well under one core: the exporter is one process.",
        "near 1: more replicas, or fewer columns; requests with many samples cost less than many requests.",
    )
    expr = f"sum by (instance) (rate(process_cpu_seconds_total{{{REPLICAS}}}[$__rate_interval]) {OF_EXPORTERS})"
    return _each(31, (8, 8), about, expr, unit="none")


def _files() -> Panel:
    about = About(
        "Open files",
        "Share of the file descriptors that the process may have. Connections are files, too.",
        "under a half.",
        "rising: clients that open a connection for each request; keep connections open.",
    )
    expr = f"max by (instance) (process_open_fds{{{REPLICAS}}} / process_max_fds{{{REPLICAS}}} {OF_EXPORTERS})"
    return _each(32, (8, 8), about, expr, unit="percentunit")


def _pending() -> Panel:
    about = About(
        "Predictions and labels that wait for each other",
        "Of each exporter, predictions that have no label yet, and labels whose prediction has not come. With Redis as "
        "a shared store every replica tells of the whole store.",
        "level predictions: as many come as are labelled or expire. Hardly any labels.",
        "at `labels.max_rows` the oldest ones make room, and their labels find nothing: raise it, or shorten "
        "`labels.horizon`. Labels that pile up: their ids fit no prediction.",
    )
    queries = [
        Query(f"sum by (instance) (mlexporter_predictions_pending{{{REPLICAS}}})", f"predictions {LEGEND}"),
        Query(f"sum by (instance) (mlexporter_labels_waiting{{{REPLICAS}}})", f"labels {LEGEND}", style.ORANGE),
    ]
    return panels.lines(40, (12, 8), about, queries, unit="short")


def _queue() -> Panel:
    about = About(
        "Rows that wait to be written",
        "Predictions and labels between the request and the store; at 200,000 predictions are dropped.",
        "near 0.",
        "rising: the disk or Redis is slower than the traffic.",
    )
    return _each(41, (12, 8), about, f"max by (instance) (mlexporter_pending_queue_rows{{{REPLICAS}}})", unit="short")


def _writes() -> Panel:
    about = About(
        "Time of a write to the store",
        "Mean time to write, join and count a batch.",
        "some milliseconds.",
        "over a second: a slow disk, or a far Redis.",
    )
    expr = (
        f"{_rate('mlexporter_pending_store_write_seconds_total')}\n"
        f"/ ({_rate('mlexporter_pending_store_writes_total')} > 0)"
    )
    return _each(42, (12, 8), about, expr, unit="s")


def _dropped() -> Panel:
    about = About(
        "Failures of the store",
        "Calls that failed, and predictions that were dropped, per second.",
        "0.",
        "calls are made again until they succeed; what was dropped, no label will find (MLExporterPendingStoreDown).",
    )
    queries = [
        Query(_rate("mlexporter_pending_store_errors_total"), f"failed {LEGEND}", style.ORANGE),
        Query(_rate("mlexporter_pending_dropped_total"), f"dropped {LEGEND}", style.VERMILION),
    ]
    return panels.lines(43, (12, 8), about, queries, unit="ops", maximum=0.1)


def _state_age() -> Panel:
    about = About(
        "Age of the state",
        "Time since the state was last written: what a crash would lose. Empty without `--storage.path`.",
        "up to 30 seconds.",
        f"rising: the disk is full or cannot be written to; the log has the error. Over {alerts.STATE_SECONDS:g} s "
        "MLExporterStateNotWritten fires.",
    )
    expr = f"time() - max by (instance) (mlexporter_state_last_write_timestamp_seconds{{{REPLICAS}}})"
    limit = style.warn_from(alerts.STATE_SECONDS)
    return _each(50, (8, 8), about, expr, unit="s", thresholds=limit, maximum=60)


def _state_time() -> Panel:
    about = About(
        "Time and failures of writes",
        "Time that the last write of the state took, and writes that failed per second.",
        "under a second, no failure.",
        "the disk is slow, full or cannot be written to: the log has the error (MLExporterStateNotWritten).",
    )
    queries = [
        Query(f"max by (instance) (mlexporter_state_last_write_duration_seconds{{{REPLICAS}}})", LEGEND),
        Query(_rate("mlexporter_state_write_errors_total"), f"failed {LEGEND}", style.VERMILION, unit="ops"),
    ]
    return panels.lines(51, (8, 8), about, queries, unit="s")


def _state_size() -> Panel:
    about = About(
        "Size of the state",
        "Size of the file.",
        "level: it grows with models and columns, not with traffic.",
        "see which models and versions were added.",
    )
    return _each(52, (8, 8), about, f"max by (instance) (mlexporter_state_size_bytes{{{REPLICAS}}})", unit="bytes")
