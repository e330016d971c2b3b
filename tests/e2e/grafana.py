"""Asks a real Prometheus what Grafana would: the values of variables, and the queries with them filled in."""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests

from dashboards import ALL, SCRAPE_SECONDS, Chosen, Json, Query, has_all, interpolated, query_of

RANGE_SECONDS = 3600


def own(step: int) -> dict[str, str]:
    """The variables that Grafana has itself, for the last hour with so many seconds between values."""
    return {
        "__interval": f"{step}s",
        "__interval_ms": f"{step * 1000}",
        "__rate_interval": f"{max(step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)}s",
        "__range": f"{RANGE_SECONDS}s",
        "__range_s": f"{RANGE_SECONDS}",
        "__range_ms": f"{RANGE_SECONDS * 1000}",
    }


_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)", re.DOTALL)


class RefusedError(Exception):
    """Prometheus refused a query."""


@dataclass(frozen=True, slots=True)
class Grafana:
    """Grafana, as far as it asks Prometheus at this address."""

    url: str

    def values(self, query: Query, expr: str, now: float) -> int:
        """How many values an expression gives, of all series; those that are not a number do not count.

        Raises RefusedError where Prometheus refuses it.
        """
        if query.instant:
            series = self._ask("query", {"query": expr, "time": now})["result"]
            return sum(_is_number(one["value"]) for one in series)
        window = {"start": now - RANGE_SECONDS, "end": now, "step": query.step}
        series = self._ask("query_range", {"query": expr, **window})["result"]
        return sum(_is_number(value) for one in series for value in one["values"])

    def options(self, variable: Json, chosen: Mapping[str, Chosen], now: float) -> list[str]:
        """What a variable offers, in its order.

        Raises RefusedError where Prometheus refuses its query.
        """
        text = interpolated(query_of(variable), chosen, own(SCRAPE_SECONDS))
        found = _LABEL_VALUES.fullmatch(text)
        assert found is not None, f"a query of a variable that is not known here: {text}"
        window = {"start": now - RANGE_SECONDS, "end": now}
        values: list[str] = self._ask(f"label/{found[2]}/values", {"match[]": found[1], **window})
        return values

    def choose(self, dashboard: Json, wanted: Mapping[str, str], alls: frozenset[str]) -> dict[str, Chosen]:
        """A value for each variable: All where it is among `alls` and has it, what is wanted, or its first.

        Raises RefusedError where Prometheus refuses a query.
        """
        now, chosen = time.time(), {"datasource": Chosen(["prometheus"])}
        for variable in dashboard["templating"]["list"]:
            name = variable["name"]
            if variable["type"] == "datasource":
                continue
            regex = bool(variable.get("multi") or variable.get("includeAll"))
            options = self.options(variable, chosen, now)
            if name in alls and has_all(variable):
                chosen[name] = Chosen(options or [ALL], regex, variable.get("allValue") or None)
            else:
                assert options, f"the variable {name} offers nothing"
                value = wanted[name] if wanted.get(name) in options else options[0]
                chosen[name] = Chosen([value], regex)
        return chosen

    def _ask(self, what: str, data: Mapping[str, Any]) -> Any:
        method = requests.get if what.startswith("label/") else requests.post
        key = "params" if what.startswith("label/") else "data"
        answer = method(f"{self.url}/api/v1/{what}", **{key: data}, timeout=60).json()  # type: ignore[arg-type]
        if answer["status"] != "success":
            raise RefusedError(answer.get("error", answer))
        return answer["data"]


def _is_number(value: tuple[float, str]) -> bool:
    return not math.isnan(float(value[1]))
