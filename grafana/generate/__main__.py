"""Writes the dashboards beside this package."""

from pathlib import Path

from grafana.generate.dashboards import documents

FOLDER = Path(__file__).parents[1] / "dashboards"


def main() -> None:
    """Write every dashboard to its file."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
