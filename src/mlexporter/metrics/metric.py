"""One metric as data."""

from typing import Literal

import msgspec


class Metric(msgspec.Struct, frozen=True):
    """One metric family.

    Attributes:
        name: with `_total` for a counter.
        type: as Prometheus has it.
        help: one sentence.
        labels: names, in the order in which values are given.

    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
