"""What Alertmanager sends to a webhook, version 4: bytes to a `Notification`, or a `NotificationError`.

The form is that of Alertmanager's documentation of `webhook_config`. Fields that are not known are ignored, as newer
versions of Alertmanager add some.
"""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

MAX_GROUP_KEY: Final = 16 * 1024  # characters; the labels of a route and of a group
_Labels = dict[str, str]


class NotificationError(ValueError):
    """A body that is no notification; its text says why."""


class Alert(msgspec.Struct, frozen=True, rename="camel"):
    """One alert of a group."""

    status: Literal["firing", "resolved"]
    labels: _Labels
    annotations: _Labels = {}
    starts_at: str = ""
    ends_at: str = ""
    fingerprint: str = ""


class Notification(msgspec.Struct, frozen=True, rename="camel"):
    """The state of one group of alerts. `status` is "firing" as long as one of them is.

    `group_key` identifies the group; it is Alertmanager's.
    """

    version: Literal["4"]
    group_key: str
    status: Literal["firing", "resolved"]
    alerts: tuple[Alert, ...]
    receiver: str = ""
    group_labels: _Labels = {}
    common_labels: _Labels = {}
    common_annotations: _Labels = {}
    external_url: str = msgspec.field(default="", name="externalURL")

    def firing(self) -> Iterator[Alert]:
        """The alerts that fire now."""
        return (alert for alert in self.alerts if alert.status == "firing")


_DECODER: Final = msgspec.json.Decoder(Notification)


def decode(body: bytes) -> Notification:
    """Read the body of a request.

    Raises:
        NotificationError: it is no notification of version 4.

    """
    try:
        notification = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise NotificationError(f"no notification of Alertmanager, version 4: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotificationError(f"not valid JSON: {error}") from None
    if not 0 < len(notification.group_key) <= MAX_GROUP_KEY:
        raise NotificationError(f"groupKey has {len(notification.group_key)} characters, not 1 to {MAX_GROUP_KEY}")
    return notification
