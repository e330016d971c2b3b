"""What `helm install` says in the end: loud where something is missing, silent where it is not."""

import re
import shutil
from pathlib import Path

import pytest

from charts import kinds, render, run
from helm.charts import CHART

SCRAPED = "podMonitor.enabled=true"
RULES = "prometheusRule.enabled=true"
KEPT = "persistence.enabled=true"
NOBODY = "NOBODY SCRAPES IT"
MONITOR = "THE MONITOR HAS NO LABEL OF ITS OWN"
UNLABELLED = "THE RULES HAVE NO LABEL OF THEIR OWN"
GONE = "THE STATE IS GONE WITH THE POD"
OPEN = "IT ANSWERS EVERYBODY IN THE CLUSTER"
SHUT = "THE NETWORK POLICY LETS NOBODY IN"


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart, with its notes among what `helm template` writes."""
    copy = shutil.copytree(CHART, tmp_path_factory.mktemp("chart") / "mlexporter")
    notes = 'kind: Notes\ntext: {{ include "mlexporter/templates/NOTES.txt" . | toJson }}\n'
    (copy / "templates" / "notes.yaml").write_text(notes, encoding="utf-8")
    return copy


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [
        ((), {NOBODY, GONE, OPEN}),
        ((KEPT,), {NOBODY, OPEN}),
        ((KEPT, SCRAPED), {MONITOR, OPEN}),
        ((KEPT, SCRAPED, RULES), {MONITOR, UNLABELLED, OPEN}),
        ((KEPT, SCRAPED, RULES, "podMonitor.additionalLabels.release=a"), {UNLABELLED, OPEN}),
        ((KEPT, SCRAPED, RULES, "additionalLabels.release=a"), {OPEN}),
        ((KEPT, SCRAPED, "additionalLabels.release=a", "networkPolicy.enabled=true"), {SHUT}),
        ((KEPT, SCRAPED, "additionalLabels.release=a", "webConfig.existingSecret=web"), set()),
    ],
)
def test_warnings_are_of_what_is_missing(settings: tuple[str, ...], warnings: set[str], chart: Path) -> None:
    (notes,) = kinds(render(*(f"--set={one}" for one in settings), chart=chart))["Notes"]
    assert set(re.findall(r"^WARNING: ([A-Z ]+[A-Z])", notes["text"], flags=re.MULTILINE)) == warnings


def test_an_install_is_rehearsed_and_says_so() -> None:
    done = run("install", "r", CHART, "--dry-run=client", "--namespace=ml")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "http://r-mlexporter.ml.svc:9877/v1/samples" in notes
    assert f"WARNING: {NOBODY}" in notes
