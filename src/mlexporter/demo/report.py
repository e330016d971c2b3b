"""What the demo says: the only module of it that writes to the terminal."""

import shutil
import sys
from collections.abc import Mapping, Sequence

import click
import orjson

from mlexporter.demo.data import Features
from mlexporter.demo.model import MODEL, VERSION
from mlexporter.demo.readings import FIGURES, PSI_LIMIT, Column, Feedback, Figure, Readings, signs
from mlexporter.demo.traffic import CONCEPT_DRIFT, DRIFTS, Phase
from mlexporter.demo.wire import Address

# The least change of a number, as a share of it and in itself, that gets an arrow.
_ARROW_RELATIVE = 0.02
_ARROW_ABSOLUTE = 0.004

_HEADER = (
    f"{'column':<12}{'samples':>9} "
    + "".join(f"{name:>8} " for name in ("PSI", "noise", "JS", "KS", "W1"))
    + "  missing  evidence"
)
_FEEDBACK_HEADER = f"{'performance':<12}" + "".join(
    f"{name:>11}" for name in ("labels", "estimated", "baseline", "gap")
)
_FIGURE_NAMES = {"accuracy_ratio": "accuracy", "roc_auc_ratio": "ROC AUC"}


def say(text: str = "") -> None:
    """One line, or several."""
    click.echo(text)


def table(readings: Readings, before: Readings | None, missing_before: Mapping[str, float]) -> list[str]:
    """The columns' drift numbers, a line each, with an arrow where a number moved since `before`."""
    earlier = {} if before is None else {(column.role, column.name): column for column in before.columns}
    up, down = _arrows()

    def cell(now: float | None, then: float | None, form: str) -> str:
        if now is None:
            return f"{'-':>8} "
        moved = 0.0 if then is None else now - then
        still = abs(moved) < max(_ARROW_ABSOLUTE, _ARROW_RELATIVE * abs(now))
        return f"{format(now, form):>8}{' ' if still else up if moved > 0 else down}"

    lines = [click.style(_HEADER, bold=True)]
    for column in readings.columns:
        old = earlier.get((column.role, column.name), column)
        line = (
            f"{column.name:<12}{column.samples or 0:9,.0f} "
            f"{cell(column.psi, old.psi, '.4f')}"
            f"{cell(column.noise_floor, None, '.4f')}"
            f"{cell(column.js, old.js, '.3f')}"
            f"{cell(column.ks, old.ks, '.3f')}"
            f"{cell(column.wasserstein, old.wasserstein, '.2f')}"
            f" {cell(column.missing, old.missing, '.1%')}{cell(column.evidence, old.evidence, '.1f')}"
            f"{_note(column, missing_before)}{_alarm(readings, column)}"
        )
        lines.append(line.rstrip())
    return lines


def feedback_table(readings: Readings) -> list[str]:
    """What labels say: how many came and how late, the figures, and the evidence that the concept drifted."""
    feedback = readings.feedback
    share = feedback.labels / feedback.tracked if feedback.tracked else 0.0
    delay = "" if feedback.delay is None else f", {feedback.delay:.1f} s after it on average"
    lines = [
        f"{feedback.labels:,.0f} labels found their prediction{delay}: {share:.0%} of all; "
        f"{feedback.corrected:,.0f} corrected",
        click.style(_FEEDBACK_HEADER, bold=True),
    ]
    for name in FIGURES:
        figure = feedback.figures.get(name, Figure())
        cells = (figure.realised, figure.estimated, figure.baseline)
        gap = "-" if figure.gap is None else f"{figure.gap:+.4f}"
        lines.append(
            f"{_FIGURE_NAMES[name]:<12}"
            + "".join(f"{'-' if value is None else format(value, '.4f'):>11}" for value in cells)
            + f"{gap:>11}"
        )
    evidence = "-" if feedback.evidence is None else f"{feedback.evidence:.1f}"
    threshold = "-" if readings.threshold is None else f"{readings.threshold:.1f}"
    lines.append(f"concept drift: evidence {evidence}, pages from {threshold} on{_alarm(readings, feedback)}")
    return lines


def _note(column: Column, missing_before: Mapping[str, float]) -> str:
    if column.role == "prediction":
        return "  moved" if column.above_noise else ""
    reasons = signs(column, missing_before)
    return click.style(f"  drift: {', '.join(reasons)}", fg="red", bold=True) if reasons else ""


def _alarm(readings: Readings, watched: Column | Feedback) -> str:
    return click.style("  PAGE", fg="red", bold=True) if readings.alarms(watched) else ""


def _arrows() -> tuple[str, str]:
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
    return ("↑", "↓") if encoding.startswith("utf") else ("^", "v")


class Board:
    """A block of lines that is drawn over its last state on a terminal, and below it anywhere else."""

    def __init__(self) -> None:
        self._drawn = 0

    def show(self, lines: Sequence[str]) -> None:
        """Draw the block."""
        size = shutil.get_terminal_size()
        # A block that does not fit cannot be found again by going up as many lines as it has.
        fits = len(lines) < size.lines and all(len(click.unstyle(line)) < size.columns for line in lines)
        again = sys.stdout.isatty() and fits
        if again and self._drawn:
            click.echo(f"\x1b[{self._drawn}F\x1b[J", nl=False)
        click.echo("\n".join(lines) + ("" if again else "\n"))
        self._drawn = len(lines) if again else 0


def prediction_line(prediction: Column | None) -> str:
    """What the drift did to the predictions."""
    if prediction is None or prediction.psi is None or prediction.noise_floor is None:
        return "prediction: too few samples to say whether it moved"
    psi, floor = prediction.psi, prediction.noise_floor
    if not prediction.above_noise:
        return f"prediction: did not move (PSI {psi:.4f}, noise floor {floor:.4f})"
    size = "clearly" if psi > PSI_LIMIT else "a little"
    return f"prediction: moved {size} as a consequence (PSI {psi:.4f}, noise floor {floor:.4f})"


def where_to_look(exporter: Address, model_server: Address, pid: int | None) -> None:
    """The addresses."""
    say(f"""
  exporter      {exporter.url}/               (process {pid})
  metrics       {exporter.url}/metrics
  status        {exporter.url}/api/v1/status
  alarms        {exporter.url}/api/v1/models/{MODEL}/versions/{VERSION}/drift
  model server  {model_server.url}/predict
""")


def what_to_try(exporter: Address, model_server: Address, example: Features) -> None:
    """Commands for another terminal."""
    sample = {"model": MODEL, "version": VERSION, "samples": [{"id": "mine", "features": example, "prediction": 0.83}]}
    label = {"model": MODEL, "id": "mine", "label": True}
    say(f"""Try in another terminal:

  # one sample of your own, and where it went
  curl -s -H 'Content-Type: application/json' {exporter.url}/v1/samples \\
    -d '{orjson.dumps(sample).decode()}'
  curl -s {exporter.url}/metrics | grep 'mlexporter_column_bin_total.*column="carrier"'

  # what became of it
  curl -s -H 'Content-Type: application/json' {exporter.url}/v1/labels -d '{orjson.dumps(label).decode()}'
  curl -s {exporter.url}/metrics | grep mlexporter_outcomes_total

  # ask the model itself; it tells the exporter
  curl -s {model_server.url}/predict -d '[{orjson.dumps(example).decode()}]'

  # what Prometheus thinks of the page (no output: nothing to complain about)
  curl -s {exporter.url}/metrics | promtool check metrics

  # let a Prometheus of yours look: in its prometheus.yml
  scrape_configs:
    - job_name: mlexporter
      static_configs:
        - targets: ["{exporter.url.removeprefix("http://")}"]
""")


def announce(phase: Phase) -> None:
    """What goes wrong from now on."""
    say("From now on:")
    if phase == Phase.CONCEPT:
        say(f"  the truth {CONCEPT_DRIFT}")
        say("            (no feature shows it, and the model cannot know)")
        return
    for drift in DRIFTS:
        say(f"  {drift.column:<9} {drift.what}")
