"""The exporter's own metrics, as the parsers of prometheus_client read them."""

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from conftest import Clock
from mlexporter import __version__, metrics
from mlexporter.samples import Reason, Rejection
from mlexporter.telemetry import Telemetry

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series_of(telemetry: Telemetry, *, as_openmetrics: bool = False) -> Series:
    page = telemetry.page(openmetrics=as_openmetrics).decode()
    assert "# EOF" not in page
    families = (
        parse_openmetrics(page + "# EOF\n")  # type: ignore[no-untyped-call]
        if as_openmetrics
        else parse_text(page)
    )
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def one(telemetry: Telemetry, name: str, **labels: str) -> float:
    series, in_openmetrics = series_of(telemetry), series_of(telemetry, as_openmetrics=True)
    value = series[name, frozenset(labels.items())]
    assert in_openmetrics[name, frozenset(labels.items())] == value
    return value


def test_every_reason_has_a_counter_from_the_start() -> None:
    telemetry = Telemetry(Clock())
    for reason in Reason:
        assert one(telemetry, "mlexporter_samples_rejected_total", reason=reason.value) == 0
    names = [key for key in series_of(telemetry) if key[0] == "mlexporter_samples_rejected_total"]
    assert len(names) == len(Reason)


def test_refusals_are_counted() -> None:
    telemetry = Telemetry(Clock())
    telemetry.refused(Reason.INVALID_JSON)
    telemetry.refused(Reason.INVALID_JSON)
    telemetry.rejected(Rejection(3, Reason.INVALID_ID, "secret", "id"))
    telemetry.rejected(Rejection(0, Reason.MODEL_LIMIT, "secret", count=998))
    assert one(telemetry, "mlexporter_samples_rejected_total", reason="invalid_json") == 2
    assert one(telemetry, "mlexporter_samples_rejected_total", reason="invalid_id") == 1
    assert one(telemetry, "mlexporter_samples_rejected_total", reason="model_limit") == 998
    assert one(telemetry, "mlexporter_samples_rejected_total", reason="overloaded") == 0
    assert b"secret" not in telemetry.page(openmetrics=False)


def test_requests_are_counted_and_timed() -> None:
    telemetry = Telemetry(Clock())
    for code, seconds in ((200, 0.0005), (200, 0.003), (400, 20.0)):
        telemetry.request("/v1/samples", "POST", code, seconds)
    telemetry.request("/metrics", "GET", 200, 0.25)
    assert one(telemetry, "mlexporter_http_requests_total", handler="/v1/samples", method="POST", code="200") == 2
    assert one(telemetry, "mlexporter_http_requests_total", handler="/v1/samples", method="POST", code="400") == 1
    name = "mlexporter_http_request_duration_seconds"
    buckets = {"0.0005": 1, "0.0025": 1, "0.005": 2, "10.0": 2, "+Inf": 3}
    for le, count in buckets.items():
        assert one(telemetry, f"{name}_bucket", handler="/v1/samples", le=le) == count
    assert one(telemetry, f"{name}_count", handler="/v1/samples") == 3
    assert one(telemetry, f"{name}_sum", handler="/v1/samples") == 0.0005 + 0.003 + 20.0
    assert one(telemetry, f"{name}_sum", handler="/metrics") == 0.25


def test_the_configuration_and_the_build() -> None:
    clock = Clock(1_700_000_000.25)
    telemetry = Telemetry(clock)
    assert one(telemetry, "mlexporter_config_last_reload_successful") == 0
    telemetry.loaded()
    clock.now += 100
    assert one(telemetry, "mlexporter_config_last_reload_successful") == 1
    assert one(telemetry, "mlexporter_config_last_reload_success_timestamp_seconds") == 1_700_000_000.25
    builds = [(dict(labels), value) for (name, labels), value in series_of(telemetry).items() if "build" in name]
    assert [(labels["version"], value) for labels, value in builds] == [(__version__, 1.0)]


def test_families_are_those_of_the_table() -> None:
    telemetry = Telemetry(Clock())
    telemetry.request("/", "GET", 200, 0.1)
    telemetry.scrape_duration.observe(0.1)
    telemetry.keeping_state(restored=True, damaged=False)
    telemetry.written(1_700_000_000.0, 0.02, 400_000)
    found = {family.name: family for family in parse_text(telemetry.page(openmetrics=False).decode())}
    for metric in metrics.EXPORTER_METRICS:
        family = found.pop(metric.name if metric.type != "counter" else metric.name.removesuffix("_total"))
        assert (family.type, family.documentation) == (metric.type, metric.help)
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        assert labels == set(metric.labels)
    own = {name for name in found if not name.endswith("_created")}
    assert all(name.startswith("process_") for name in own)
    assert "process_resident_memory_bytes" in own


def test_registries_do_not_mix() -> None:
    first, second = Telemetry(Clock()), Telemetry(Clock())
    first.refused(Reason.OVERLOADED)
    assert one(second, "mlexporter_samples_rejected_total", reason="overloaded") == 0
