"""The decoder of webhooks: Alertmanager's own form, and anything else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alertmanager import GROUP_KEY, LABELS, alert, body, notification
from mlexporter.trigger.notification import MAX_GROUP_KEY, Notification, NotificationError, decode


def test_a_notification() -> None:
    found = decode(body(alert(), alert("resolved", column="confidence")))
    assert (found.group_key, found.status, found.receiver) == (GROUP_KEY, "firing", "mlexporter-trigger")
    assert found.external_url == "http://alertmanager.example.org:9093"
    assert found.group_labels == {"alertname": "MLExporterPredictionDrift", "model": "churn"}
    assert [each.labels["column"] for each in found.firing()] == ["prediction"]
    assert found.alerts[0].labels == LABELS
    assert found.alerts[0].starts_at == "2026-02-06T13:08:45.828Z"


def test_fields_of_later_versions_are_ignored() -> None:
    assert decode(body(notificationReason="first", groupRouteID={"x": 1})).status == "firing"


def without(key: str) -> bytes:
    content = notification()
    del content[key]
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON: "),
        (b"{", "not valid JSON: "),
        (b'{"version": "\xff"}', "not valid JSON: "),
        (b'{"x": ' + b"[" * 100_000, "not valid JSON: "),
        (b"[]", "no notification of Alertmanager, version 4: Expected `object`, got `array`"),
        (without("groupKey"), "Object missing required field `groupKey`"),
        (without("alerts"), "Object missing required field `alerts`"),
        (body(version="3"), "Invalid enum value '3' - at `$.version`"),
        (body(status="pending"), "Invalid enum value 'pending' - at `$.status`"),
        (body({**alert(), "labels": {"a": 1}}), "Expected `str`, got `int` - at `$.alerts[0].labels[...]`"),
        (body(key=""), f"groupKey has 0 characters, not 1 to {MAX_GROUP_KEY}"),
        (body(key="x" * (MAX_GROUP_KEY + 1)), f"groupKey has {MAX_GROUP_KEY + 1} characters"),
    ],
)
def test_what_is_no_notification(content: bytes, message: str) -> None:
    with pytest.raises(NotificationError) as caught:
        decode(content)
    assert message in str(caught.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def either(content: bytes) -> None:
    """A notification or a NotificationError, and nothing else."""
    try:
        found = decode(content)
    except NotificationError:
        return
    assert isinstance(found, Notification)


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    either(content)


@given(st.sampled_from(sorted(notification())), _JSON)
def test_any_value_in_a_field(field: str, value: Any) -> None:
    either(json.dumps(notification() | {field: value}).encode())


@given(st.data())
def test_any_damage(data: st.DataObject) -> None:
    content = bytearray(body())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    either(bytes(content[: data.draw(st.integers(0, len(content)))]))


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=50), max_size=5))
def test_labels_come_through_unchanged(labels: dict[str, str]) -> None:
    found = decode(body(alert() | {"labels": labels}))
    assert found.alerts[0].labels == labels
