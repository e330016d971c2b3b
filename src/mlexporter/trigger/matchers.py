"""Matchers of alert labels, written as Alertmanager writes them: ``severity="critical"``, ``model=~"churn|fraud"``."""

import re
from collections.abc import Mapping

import msgspec

from mlexporter.scalars import Scalar, shown

_MATCHER = re.compile(
    r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=~|!~|!=|=)\s*(?:"((?:[^"\\]|\\.)*)"|([^"\s][^"]*?))\s*', re.DOTALL
)


class Matcher(msgspec.Struct, frozen=True):
    """One condition on one label. A label that an alert does not have is empty, as in Alertmanager."""

    label: str
    negative: bool
    pattern: re.Pattern[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert with these labels fulfils the condition. Regular expressions match the whole value."""
        return (self.pattern.fullmatch(labels.get(self.label, "")) is not None) != self.negative


def parse(text: str) -> Matcher:
    """Read a matcher.

    Raises:
        ValueError: it is none, or its regular expression is broken.

    >>> parse('severity=~"warning|critical"').matches({"severity": "critical"})
    True

    """
    found = _MATCHER.fullmatch(text)
    if found is None:
        raise ValueError(f"{shown(text)} is no matcher")
    label, operator, quoted, plain = found.groups()
    # these two escapes and no others, as Alertmanager does it: a backslash before a dot stays for the expression
    value = plain if quoted is None else re.sub(r'\\(["\\])', r"\1", quoted)
    try:
        pattern = re.compile(value if "~" in operator else re.escape(value), re.DOTALL)
    except re.error as error:
        raise ValueError(f"{shown(value)} is no regular expression: {error}") from None
    return Matcher(label, operator.startswith("!"), pattern)


def matcher() -> Scalar[Matcher]:
    """A matcher, as an annotation of a setting."""
    accepts = 'a label, one of = != =~ !~, and a value in double quotes, such as severity="critical"'
    return Scalar(parse, accepts)
