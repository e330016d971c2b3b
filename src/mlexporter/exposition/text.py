"""The text of families: names and labels as bytes, numbers as Prometheus writes them."""

from collections.abc import Mapping, Sequence
from itertools import compress

import numpy as np
import orjson
from numpy.typing import NDArray
from prometheus_client.utils import floatToGoString

from mlexporter.edges import Floats, Ints
from mlexporter.metrics import Metric


def go_number(value: float) -> str:
    """A number as Go, and so Prometheus, writes it."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def prefix(name: str, labels: Mapping[str, str]) -> bytes:
    """A line up to its number, with the end of the line before it."""
    text = ",".join(f'{key}="{_escape(value)}"' for key, value in sorted(labels.items()))
    return f"\n{name}{{{text}}} ".encode("utf-8", "replace") if text else f"\n{name} ".encode()


def numbers(values: Floats) -> list[bytes]:
    """Numbers as prometheus_client writes them.

    >>> numbers(np.array([3.0, 0.25, 12345678.0, 1e-05, np.inf]))
    [b'3.0', b'0.25', b'1.2345678e+07', b'1e-05', b'+Inf']
    """
    if not len(values):
        return []
    texts = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    # orjson writes the same shortest digits, but large and small numbers in another notation, and infinity as null
    size = np.abs(values)
    for i in np.flatnonzero(~((size >= 1e-4) & (size < 1e6) | (size == 0))).tolist():
        texts[i] = go_number(values[i]).encode()
    return texts


def header(metric: Metric, *, openmetrics: bool) -> bytes:
    """The HELP and TYPE lines of a family."""
    name = metric.name.removesuffix("_total") if openmetrics and metric.type == "counter" else metric.name
    return f"\n# HELP {name} {metric.help}\n# TYPE {name} {metric.type}".encode()


class Family:
    """Lines of one family as they come together."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def add(self, prefixes: Sequence[bytes], values: Floats) -> None:
        """Lines with their numbers; NaN is absent."""
        absent = np.isnan(values)
        if absent.any():
            present: NDArray[np.bool_] = ~absent
            prefixes, values = list(compress(prefixes, present.tolist())), values[present]
        parts: list[bytes] = [b""] * (2 * len(prefixes))
        parts[::2] = prefixes
        parts[1::2] = numbers(values)
        self.parts += parts

    def add_one(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """One line."""
        self.parts += (prefix(name, labels), go_number(value).encode())


Families = Mapping[str, Family]
"""By name."""


def add_histogram(
    family: Family, name: str, labels: Mapping[str, str], buckets: Sequence[float], counts: Ints, total: float
) -> None:
    """A histogram.

    Args:
        family: to add to.
        name: of the metric.
        labels: of the histogram.
        buckets: K upper ends.
        counts: (K+1,) per bucket, the last one unbounded, not cumulative.
        total: sum of the values.

    """
    cumulative = np.cumsum(counts).tolist()
    for bucket, count in zip((*map(go_number, buckets), "+Inf"), cumulative, strict=True):
        family.add_one(f"{name}_bucket", {**labels, "le": bucket}, count)
    family.add_one(f"{name}_count", labels, cumulative[-1])
    family.add_one(f"{name}_sum", labels, total)
