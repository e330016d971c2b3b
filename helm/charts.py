"""What is made in the charts: copies of rules and dashboards, routing for the operator, the values in each README.

`make charts` writes it; `tests/test_helm.py` finds what was left undone. Copies, since a packaged chart has
real files only.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "mlexporter"
LIBRARY = ROOT / "helm" / "mlexporter-sidecar"
MARK = "<!-- What follows is made from values.yaml: make charts -->\n"
ENTRY = re.compile(r"(?P<indent> *)(?P<key>[\w-]+):(?: |$)")


def comments(text: str) -> dict[str, str]:
    r"""The comment above each key of a values file, by the key's dotted path; "" where there is none.

    >>> comments("# A.\na:\n  # B,\n  # in two lines.\n  b: 1\n  c: 2\n")
    {'a': 'A.', 'a.b': 'B, in two lines.', 'a.c': ''}
    """
    found: dict[str, str] = {}
    path: list[str] = []
    above: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip()[1:].strip())
            continue
        if entry := ENTRY.match(line):
            path[len(entry["indent"]) // 2 :] = [entry["key"]]
            found[".".join(path)] = " ".join(above)
        above = []
    return found


def leaves(values: Mapping[str, Any], above: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """Each value that is no mapping, or an empty one, with its dotted path."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, key))
        else:
            yield ".".join((*above, key)), value


def written(value: object) -> str:
    """A default as it stands in a table: YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    return '`""`' if value == "" else f"`{text}`"


def table(rows: Sequence[tuple[str, Any]], said: Mapping[str, str]) -> list[str]:
    """A table of keys, defaults and meanings, with an empty line before it."""
    lines = [f"| `{key}` | {written(value)} | {said[key].replace('|', chr(92) + '|')} |" for key, value in rows]
    return ["", "| key | default | meaning |", "|---|---|---|", *lines]


def readme(chart: Path) -> str:
    """The README of a chart: what it says down to the mark, then its values.

    Keys at the top come first; then a section for each that has keys below it, with its comment in front.
    """
    text = (chart / "values.yaml").read_text(encoding="utf-8")
    prose, mark, _ = (chart / "README.md").read_text(encoding="utf-8").partition(MARK)
    said, values = comments(text), yaml.safe_load(text)
    single = {key: value for key, value in values.items() if not (isinstance(value, dict) and value)}
    lines = [prose + mark.rstrip(), *table(list(leaves(single)), said)]
    for key in (key for key in values if key not in single):
        lines += ["", f"### {key}", "", said[key], *table(list(leaves({key: values[key]})), said)]
    return "\n".join(lines) + "\n"


def matcher(text: str) -> dict[str, str]:
    """A matcher of Alertmanager as the operator writes it.

    >>> matcher('severity=~"info|warning"')
    {'name': 'severity', 'matchType': '=~', 'value': 'info|warning'}
    """
    parts = re.fullmatch(r'(?P<name>\w+)(?P<matchType>=~|!~|!=|=)"(?P<value>[^"]*)"', text)
    if parts is None:
        raise ValueError(f"not a matcher: {text}")
    return parts.groupdict()


def inhibition(text: str) -> str:
    """The inhibition of an Alertmanager's configuration, as `inhibitRules` of an AlertmanagerConfig."""
    rules = [
        {
            "sourceMatch": [matcher(one) for one in rule["source_matchers"]],
            "targetMatch": [matcher(one) for one in rule["target_matchers"]],
            "equal": rule["equal"],
        }
        for rule in yaml.safe_load(text)["inhibit_rules"]
    ]
    return yaml.safe_dump(rules, sort_keys=False, width=120)


def documents() -> dict[Path, bytes]:
    """All files that are made, with their content."""
    example = (ROOT / "prometheus/alertmanager/alertmanager.example.yml").read_text(encoding="utf-8")
    made = {
        CHART / "README.md": readme(CHART).encode(),
        LIBRARY / "README.md": readme(LIBRARY).encode(),
        CHART / "files/inhibit.yaml": inhibition(example).encode(),
    }
    for source, target in (("prometheus/rules/*.yaml", "rules"), ("grafana/dashboards/*.json", "dashboards")):
        made |= {CHART / "files" / target / path.name: path.read_bytes() for path in ROOT.glob(source)}
    return made


def main() -> None:
    """Write them all, and delete copies of what is gone."""
    made = documents()
    for path in CHART.glob("files/*/*"):
        if path not in made:
            path.unlink()
    for path, content in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    sys.stdout.write(f"{len(made)} files of {CHART.parent.relative_to(ROOT)} written\n")


if __name__ == "__main__":
    main()
