"""Template variables. Those that may be All match what is absent too: without Kubernetes there is no namespace."""

from grafana_foundation_sdk.builders.dashboard import DatasourceVariable, QueryVariable
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.dashboard import VariableOption, VariableRefresh, VariableSort

from grafana.generate.queries import JOBS, REPLICAS

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def datasource() -> DatasourceVariable:
    """The Prometheus to ask."""
    return DatasourceVariable("datasource").label("Data source").type("prometheus")


def _query(name: str, label: str, selector: str, description: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(DATASOURCE)
        .query(f"label_values({selector}, {name})")
        .definition(f"label_values({selector}, {name})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
    )


def _many(variable: QueryVariable, all_value: str = ".*") -> QueryVariable:
    everything = VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).all_value(all_value).current(everything)


def job() -> QueryVariable:
    """Scrape jobs."""
    text = "Scrape jobs that have an exporter."
    return _many(_query("job", "Job", "mlexporter_build_info", text), ".+")


def namespace() -> QueryVariable:
    """Namespaces; without Kubernetes there is none, and All is all there is."""
    text = "Namespaces of Kubernetes. Without it there is none, and All is all there is."
    return _many(_query("namespace", "Namespace", 'mlexporter_build_info{job=~"$job"}', text))


def instance() -> QueryVariable:
    """Exporters."""
    text = "Exporters. What is pooled from all replicas by the recording rules does not heed it."
    return _many(_query("instance", "Instance", f"mlexporter_build_info{{{JOBS}}}", text), ".+")


def models() -> QueryVariable:
    """Models, several at once."""
    return _many(_query("model", "Model", f"mlexporter_samples_total{{{JOBS}}}", "Models."))


def model() -> QueryVariable:
    """One model."""
    return _query("model", "Model", f"mlexporter_samples_total{{{JOBS}}}", "The model.")


def versions() -> QueryVariable:
    """Versions of the model, several at once."""
    selector = f'mlexporter_samples_total{{{JOBS}, model="$model"}}'
    return _many(_query("version", "Version", selector, "Versions of the model."))


def version() -> QueryVariable:
    """One version of the model."""
    selector = f'mlexporter_samples_total{{{JOBS}, model="$model"}}'
    return _query("version", "Version", selector, "The version of the model.")


def role() -> QueryVariable:
    """One role."""
    selector = f'mlexporter_column_window_samples{{{REPLICAS}, model="$model", version="$version"}}'
    return _query("role", "Role", selector, "What the column is to the model: feature, prediction or label.")


def column() -> QueryVariable:
    """One column."""
    selector = f'mlexporter_column_window_samples{{{REPLICAS}, model="$model", version="$version", role="$role"}}'
    return _query("column", "Column", selector, "The column.")


def window() -> QueryVariable:
    """Windows of the exporters, several at once; the last hour at first."""
    selector = f'mlexporter_column_window_samples{{{REPLICAS}, model="$model"}}'
    text = "Windows that exporters keep their statistics over. Those of all replicas together are 1h and 24h."
    hour = VariableOption(selected=True, text=["1h"], value=["1h"])
    return _many(_query("window", "Window", selector, text)).current(hour)
