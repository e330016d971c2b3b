"""Templates of actions: Jinja in a sandbox, where what an alert says can only ever be a value.

A template is compiled when the configuration is read, and rendered to one text when a run begins. The text then becomes
one JSON string, one header or one argument, so that no label can add structure to what is sent.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

import jinja2
import msgspec
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mlexporter.scalars import Scalar, did_you_mean, shown

VARIABLES: Final = (
    "alerts", "annotations", "common_annotations", "common_labels", "external_url", "group_key", "group_labels",
    "labels", "receiver", "route", "run",
)  # fmt: skip
"""What a template can name."""

MAX_SOURCE: Final = 16 * 1024  # characters
MAX_RENDERED: Final = 64 * 1024  # characters
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
# a URL whose host no label can change: it ends before the first thing that is a template
_FIXED_HOST: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(?=/|$)")

Context = Mapping[str, object]


class TemplateError(ValueError):
    """A template that cannot be read, or not be rendered with what an alert says."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox, in which `labels.items` is the label of that name and never a method of a dict."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


def _sandbox(finalize: Callable[[Any], Any] | None = None) -> _Sandbox:
    sandbox = _Sandbox(
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # the text becomes JSON, a header or an argument, and never HTML
        keep_trailing_newline=True,
        finalize=finalize,
    )
    sandbox.globals.clear()
    return sandbox


def _quoted(value: object) -> str:
    """A value as one segment of a path, or one value of a query."""
    if isinstance(value, jinja2.Undefined):
        return str(value)  # raises
    text = str(value)
    if text in ("", ".", ".."):
        raise TemplateError(f"{shown(text)} cannot be a part of a URL")
    return quote(text, safe="")


_PLAIN = _sandbox()
_IN_URL = _sandbox(_quoted)


class Template(msgspec.Struct, frozen=True, eq=False):
    """A compiled template; `source` is how it was written."""

    source: str
    _compiled: jinja2.Template

    def render(self, context: Context) -> str:
        """The text of this template for one alert.

        Raises:
            TemplateError: it names a label that the alert does not have, or fails in another way, or is too long.

        """
        try:
            text = self._compiled.render(context)
        except TemplateError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a template does, it fails this run and nothing else
            raise TemplateError(f"template {shown(self.source)} cannot be rendered: {error}") from None
        if len(text) > MAX_RENDERED:
            raise TemplateError(f"template {shown(self.source)} gives more than {MAX_RENDERED} characters")
        return text


def parse(source: str, *, in_url: bool = False) -> Template:
    """Compile a template; what is filled into that of a URL is quoted.

    Raises:
        TemplateError: its syntax is broken, or it names a variable that there is not.

    >>> parse("retrain {{ labels.model }}").render({"labels": {"model": "churn"}})
    'retrain churn'
    >>> parse("/m/{{ labels.model }}", in_url=True).render({"labels": {"model": "a/../b?c"}})
    '/m/a%2F..%2Fb%3Fc'

    """
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"longer than {MAX_SOURCE} characters; no template is")
    if found := _CONTROL.search(source):
        raise TemplateError(f"has the control character U+{ord(found[0]):04X}")
    sandbox = _IN_URL if in_url else _PLAIN
    try:
        unknown = sorted(meta.find_undeclared_variables(sandbox.parse(source)) - set(VARIABLES))
        compiled = sandbox.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        at = f"line {error.lineno} of it: " if "\n" in source else ""
        raise TemplateError(f"{shown(source)} is no valid template: {at}{error.message}") from None
    if unknown:
        near = did_you_mean(unknown[0], VARIABLES) or f"known are {', '.join(VARIABLES)}"
        raise TemplateError(f"{shown(source)} names the unknown variable {unknown[0]}; {near}")
    return Template(source, compiled)


def template() -> Scalar[Template]:
    """A template, as an annotation of a setting."""
    return Scalar(parse, "text, in which {{ labels.NAME }} is filled in", spoken=True)


def url_template() -> Scalar[Template]:
    """A URL in whose path and query templates may stand."""
    accepts = "http:// or https://, a host without a user or a template, and then a path, in which templates may stand"

    def read(value: str) -> Template:
        host = _FIXED_HOST.match(value)
        if host is None or re.search(r"[\s#]", re.sub(r"{{.*?}}|{%.*?%}", "", value)):
            raise TemplateError(f"{shown(value)} is no such URL; use {accepts}")
        return parse(value, in_url=True)

    return Scalar(read, accepts, spoken=True)
