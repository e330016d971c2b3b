"""Bearer tokens, which live in files and are never kept: a file that was replaced counts from the next request on."""

import hmac
from pathlib import Path
from typing import Final

MAX_TOKEN: Final = 8192  # bytes


class TokenError(Exception):
    """A token that cannot be read; its text says why, and holds nothing of it."""


def read_token(path: Path) -> str:
    """The token in a file, without the blanks and line breaks around it.

    Raises:
        TokenError: there is none.

    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TOKEN + 1)
    except (OSError, ValueError) as error:
        raise TokenError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'bad name'}") from None
    token = content.strip()
    if not token or len(content) > MAX_TOKEN or not all(0x21 <= byte < 0x7F for byte in token):
        raise TokenError(f"{path}: holds no token; a token is printable ASCII without blanks, up to {MAX_TOKEN} bytes")
    return token.decode("ascii")


def is_authorized(header: str, token: str) -> bool:
    """Whether an Authorization header carries the token. Takes the same time whatever it carries.

    >>> is_authorized("Bearer abc", "abc"), is_authorized("Basic abc", "abc")
    (True, False)
    """
    scheme, _, given = header.strip().partition(" ")
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
    return same and scheme.lower() == "bearer"
