"""Templates: what labels may hold, and what they can never do."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlexporter.trigger.matchers import parse as matcher
from mlexporter.trigger.templates import MAX_RENDERED, TemplateError, parse, url_template

HOSTILE = [
    '"', "'", "\\", "\n", "\r\nX-Evil: 1", "$(reboot)", "`reboot`", "; rm -rf /", "{{ 7 * 7 }}", "{% raw %}", "--flag",
    '", "admin": true, "x": "', "../../etc", "%s %n", "\u2028", "\u202e", "a=b", "<script>", "${jndi:x}", "é", "",
]  # fmt: skip


def labels(**given: str) -> dict[str, Any]:
    return {"labels": given}


@pytest.mark.parametrize("value", HOSTILE)
def test_a_label_is_filled_in_as_it_is(value: str) -> None:
    assert parse("<{{ labels.model }}>").render(labels(model=value)) == f"<{value}>"


@given(st.text())
def test_any_label_is_filled_in_as_it_is(value: str) -> None:
    assert parse("{{ labels.model }}{{ labels['model'] }}").render(labels(model=value)) == value + value


@pytest.mark.parametrize("name", ["items", "keys", "values", "get", "pop", "update", "__class__", "copy"])
def test_labels_are_no_methods(name: str) -> None:
    assert parse(f"{{{{ labels.{name} }}}}").render(labels(**{name: "x"})) == "x"
    with pytest.raises(TemplateError):
        parse(f"{{{{ labels.{name} }}}}").render(labels())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ labels.modle }}", "has no attribute 'modle'"),
        ("{{ labels.model.__class__.__mro__ }}", "is unsafe"),
        ("{{ ''.__class__.__base__.__subclasses__() }}", "is unsafe"),
        ("{{ labels.update({'a': 1}) }}", "has no attribute 'update'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% include 'x' %}", "no loader"),
        ("{{ 'x' * 70000 }}", f"gives more than {MAX_RENDERED} characters"),
    ],
)
def test_what_fails_when_it_is_filled_in(source: str, message: str) -> None:
    with pytest.raises(TemplateError, match="template") as caught:
        parse(source).render(labels(model="churn"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ labels.model", "is no valid template"),
        ("{% for a in alerts %}", "is no valid template"),
        ("{{ labels.model | nope }}", "No filter named 'nope'"),
        ("a\n{{ }}", "line 2 of it"),
        ("{{ lables.model }}", "names the unknown variable lables; did you mean labels?"),
        ("{{ namespace }}", "names the unknown variable namespace; known are alerts, "),
        ("{{ range(10) }}", "names the unknown variable range"),
        ("a\0b", "control character U+0000"),
        ("x" * 20_000, "longer than"),
    ],
)
def test_what_is_refused_at_once(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse(source)
    assert message in str(caught.value)


def test_defaults_and_filters() -> None:
    context = {"alerts": [{"labels": {"column": "a"}}, {"labels": {}}, {"labels": {"column": "a"}}], "labels": {}}
    assert parse("{{ labels.version | default('none') }}").render(context) == "none"
    source = "{{ alerts | map(attribute='labels.column', default='') | select | unique | join(',') }}"
    assert parse(source).render(context) == "a"


@given(st.text(min_size=1).filter(lambda value: value not in (".", "..")))
def test_a_label_in_a_url_is_one_segment(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        return
    url = (
        url_template()
        .parse("https://h.example/m/{{ labels.model }}/go?v={{ labels.model }}")
        .render(labels(model=value))
    )
    path, _, query = url.removeprefix("https://h.example/m/").partition("/go?v=")
    assert path == query
    assert not set(path) & set("/?#&@: \r\n\\")


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_a_label_that_is_no_segment(value: str) -> None:
    with pytest.raises(TemplateError, match="cannot be a part of a URL"):
        url_template().parse("https://h.example/m/{{ labels.model }}").render(labels(model=value))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/", "h/", "https://{{ labels.model }}/x", "https://h{{ labels.model }}/x", "https://u:p@h/",
        "https://h/ x", "https://h/#x", "file:///etc/passwd", "//h/", "https://h?x={{ labels.model }}",
    ],
)  # fmt: skip
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(TemplateError, match="is no such URL"):
        url_template().parse(url)


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ('severity="critical"', "critical", "critical "),
        ("severity = critical", "critical", "Critical"),
        ('severity!="critical"', "warning", "critical"),
        ('severity=~"warn.*|critical"', "warning", "very critical"),
        ('severity!~"warn.*"', "critical", "warning"),
        (r'severity=~"a\.b"', "a.b", "axb"),
        (r'severity="a\"b\\c"', 'a"b\\c', "a"),
        ('severity=""', "", "x"),
        ('severity=~".+"', "a\nb", ""),
    ],
)
def test_matchers(text: str, matching: str, other: str) -> None:
    assert matcher(text).matches({"severity": matching})
    assert not matcher(text).matches({"severity": other})


def test_a_label_that_is_not_there_is_empty() -> None:
    assert matcher('team=""').matches({})
    assert not matcher('team=~".+"').matches({})


@pytest.mark.parametrize(
    "text", ["", "severity", '="x"', 'a-b="x"', 'a="x', 'a=~"("', 'a="x" b="y"', json.dumps({"a": 1})]
)
def test_what_is_no_matcher(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no (matcher|regular expression)"):
        matcher(text)
