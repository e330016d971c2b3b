"""Routes, and what they take and answer, as a document of OpenAPI 3.1."""

from typing import Any, Final

import msgspec

from mlexporter import __version__
from mlexporter.answers import Problem, Refusal, Taken
from mlexporter.baseline import Baseline
from mlexporter.openapi import reports, shapes

Json = dict[str, Any]

_COMPONENTS: Final = "#/components/schemas/"
_JSON: Final = "application/json"
_LINES: Final = "application/x-ndjson"
_TYPES: Final = (
    shapes.SampleRows, shapes.SampleColumns, shapes.Sample,
    shapes.LabelRows, shapes.LabelColumns, shapes.TruthOf,
    Taken, Refusal, Problem, reports.Status, reports.Drift, Baseline,
)  # fmt: skip
# Without a web configuration everything is open: {}.
_SECURITY: Final[list[Json]] = [{}, {"basic": []}, {"bearer": []}]
_RETRY_AFTER: Final = {"Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer"}}}


def document() -> Json:
    """The description as JSON values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mlexporter",
            "version": __version__,
            "description": "Samples and labels go in, counts come out. What each route does: docs/http-api.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


# -- schemas ----------------------------------------------------------------------------------------------------------


def _schemas() -> Json:
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template=_COMPONENTS + "{name}")
    # What types cannot say: a label is for something.
    for name, some in (("TruthOf", {"not": {"type": "null"}}), ("LabelColumnLists", {"type": "array"})):
        schemas[name]["anyOf"] = [{"required": [each], "properties": {each: some}} for each in ("id", "prediction")]
    return schemas


def _ref(name: str) -> Json:
    return {"$ref": _COMPONENTS + name}


def _one_form(forms: Json) -> Json:
    """A document with exactly one of these members; each tells the form, and so the type, of the document."""
    return {
        "oneOf": [
            _ref(name) | {"not": {"anyOf": [{"required": [other]} for other in forms if other != member]}}
            for member, name in forms.items()
        ]
    }


# -- routes -----------------------------------------------------------------------------------------------------------


def _paths() -> Json:
    version = "/api/v1/models/{model}/versions/{version}"
    return {
        "/v1/samples": _sending(
            "sendSamples", "Send samples", {"samples": "SampleRows", "columns": "SampleColumns", "features": "Sample"}
        ),
        "/v1/labels": _sending(
            "sendLabels", "Send true labels", {"labels": "LabelRows", "columns": "LabelColumns", "label": "TruthOf"}
        ),
        "/metrics": _reading(
            "scrape", "The page that Prometheus scrapes", _text("text/plain", "application/openmetrics-text")
        ),
        "/api/v1/status": _reading("status", "Models, versions, columns and current numbers", _content("Status")),
        f"{version}/baseline": _of_version("baseline", "The baseline of a version, as a baseline file", "Baseline"),
        f"{version}/drift": _of_version("drift", "What the drift alarm has found", "Drift"),
        "/-/healthy": {"get": _probe("healthy", "200 while the process runs")},
        "/-/ready": {
            "get": _probe("ready", "200 once samples are taken in", {"503": _answer("Not ready", _text("text/plain"))})
        },
        "/-/reload": {"post": _reloading("reload"), "put": _reloading("reloadByPut")},
        "/": _reading("landing", "A page for people", _text("text/html")),
        "/openapi.json": _reading("openapi", "This description", {_JSON: {"schema": {"type": "object"}}}),
    }


def _sending(identifier: str, summary: str, forms: Json) -> Json:
    either = {_JSON: {"schema": {"anyOf": [_ref("Refusal"), _ref("Problem")]}}}
    each = next(name for name in reversed(forms.values()))
    return {
        "post": {
            "operationId": identifier,
            "summary": summary,
            "security": _SECURITY,
            "parameters": [
                {
                    "name": "Content-Encoding",
                    "in": "header",
                    "description": "A body that begins like gzip is taken for gzip without it, too.",
                    "schema": {"type": "string", "enum": ["gzip", "identity"]},
                }
            ],
            "requestBody": {
                "required": True,
                "content": {
                    _JSON: {"schema": _one_form(forms)},
                    _LINES: {"schema": {"type": "string", "description": f"On each line, as JSON: {each}."}},
                },
            },
            "responses": {
                "200": _answer("The request was read; `errors` tells what was refused", _content("Taken")),
                "400": _answer("The body, or the name of the model, is not what it should be", _content("Refusal")),
                "404": _answer("Nothing was accepted, as model or version is not monitored here", _content("Taken")),
                "408": _answer("The body did not come to its end", _content("Refusal")),
                "413": _answer("The body is too large", _content("Refusal")),
                "415": _answer("Content-Type or Content-Encoding is not understood", _content("Refusal")),
                "500": _answer("A fault of the exporter", either),
                **_GUARDED,
                "503": _answer("Overloaded, or labels cannot be written down now", either, _RETRY_AFTER),
            },
        }
    }


def _reading(identifier: str, summary: str, content: Json, more: Json | None = None) -> Json:
    operation = _probe(identifier, summary)
    operation["security"] = _SECURITY
    operation["responses"] = {
        "200": _answer(summary, content),
        **(more or {}),
        **_GUARDED,
        "500": _answer("A fault of the exporter", _content("Problem")),
        "503": _answer("Too many passwords are being checked", _content("Problem"), _RETRY_AFTER),
    }
    return {"get": operation}


def _of_version(identifier: str, summary: str, shape: str) -> Json:
    unknown = _answer("No such model version, or there is nothing of it yet", _content("Problem"))
    names = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}, "example": example}
        for name, example in (("model", "churn"), ("version", "7"))
    ]
    return {"parameters": names, **_reading(identifier, summary, _content(shape), {"404": unknown})}


def _reloading(identifier: str) -> Json:
    text = _text("text/plain")
    forbidden = text | _content("Problem")
    busy = _answer("A reload is under way, and others wait for the next one", text, _RETRY_AFTER)
    return {
        "operationId": identifier,
        "summary": "Read the configuration and its baselines again",
        "security": _SECURITY,
        "responses": {
            "200": _answer("What they say holds", text),
            **_GUARDED,
            "403": _answer("Not enabled by --web.enable-lifecycle, or the credentials do not permit this", forbidden),
            "500": _answer("Nothing has changed; every problem stands on a line", text),
            "503": busy,
        },
    }


def _probe(identifier: str, summary: str, more: Json | None = None) -> Json:
    responses = {"200": _answer(summary, _text("text/plain")), **(more or {})}
    return {"operationId": identifier, "summary": summary, "responses": responses}


def _answer(description: str, content: Json, headers: Json | None = None) -> Json:
    return {"description": description, "content": content} | ({"headers": headers} if headers else {})


def _content(name: str) -> Json:
    return {_JSON: {"schema": _ref(name)}}


def _text(*media_types: str) -> Json:
    return {media_type: {"schema": {"type": "string"}} for media_type in media_types}


# Only with a web configuration.
_CHALLENGE: Final = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}
_GUARDED: Final = {
    "401": _answer("Credentials are missing or wrong", _content("Problem"), _CHALLENGE),
    "403": _answer("The credentials do not permit this", _content("Problem")),
    "429": _answer("More requests than the rate limit allows", _content("Problem"), _RETRY_AFTER),
}
