"""The shapes of what is answered to who sends samples or labels, and to whatever goes wrong, as JSON."""

import msgspec

from mlexporter.samples import Reason


class Refused(msgspec.Struct, frozen=True, omit_defaults=True):
    """Samples or labels that were refused together.

    Attributes:
        index: of the first one in the request, from 0.
        reason: from a closed set.
        message: for people.
        column: or field that is wrong.
        count: how many they are.

    """

    index: int
    reason: Reason
    message: str
    column: str | None = None
    count: int = 1


class Taken(msgspec.Struct, frozen=True):
    """The answer to a request that was read.

    Attributes:
        accepted: samples or labels that count.
        rejected: those that do not.
        errors: of the rejected ones, 20 at most.

    """

    accepted: int
    rejected: int
    errors: list[Refused]


class Refusal(msgspec.Struct, frozen=True):
    """The answer to a request that is refused as a whole.

    Attributes:
        error: for people.
        reason: from a closed set.
        column: or field that is wrong.

    """

    error: str
    reason: Reason
    column: str | None


class Problem(msgspec.Struct, frozen=True):
    """The answer to a request that has nothing to do with samples.

    Attributes:
        error: for people.

    """

    error: str


def encoded(answer: msgspec.Struct) -> bytes:
    """An answer as a line of JSON."""
    return msgspec.json.encode(answer) + b"\n"
