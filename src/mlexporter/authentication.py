"""Who a request is from, and what it may do: passwords of basic authentication, and bearer tokens.

A check of a password is slow on purpose, some 0.1 s, and Prometheus sends one with each scrape. So what was found right
is remembered, and what is slow is bounded: whoever tries passwords keeps a processor busy, but no more than one, and
never those out whose password is known to be right.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Final

import bcrypt
import msgspec

PLACES: Final = 4
"""Most passwords that wait for their check, the one that is checked among them."""
FOLLOWERS: Final = 16
"""Most requests that wait for the check of a password that another request has brought."""
MAX_REMEMBERED: Final = 1024
TURN_SECONDS: Final = 2.0
_MAX_PASSWORD: Final = 72  # bytes; bcrypt ignores what follows, here as in Go and in htpasswd
_DEFAULT_COST: Final = 10

Permissions = frozenset[str]


class BusyError(Exception):
    """Too many passwords are being checked."""


class Token(msgspec.Struct, frozen=True):
    """A bearer token: the SHA-256 of it, and what it permits. Nothing here can be sent as one."""

    digest: bytes
    permissions: Permissions


class _Check:
    """The check of a password that goes on, and what it found: None where it came to nothing."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.right: bool | None = None


class PasswordChecks:
    """Checks of passwords, one at a time, and the memory of those that were right.

    Requests that bring the same password for the same user at the same time have it checked once.

    What is remembered is an HMAC under a key that only this process has, of the name, the password and the hash that
    it was held against: where the hash is changed or the user is gone, it counts no more. What was wrong is not
    remembered.

    Args:
        held_up: what a thread does while it waits, see `crew`.
        check: whether a password is that of a hash.

    """

    def __init__(
        self,
        held_up: Callable[[], AbstractContextManager[None]],
        check: Callable[[bytes, bytes], bool] = bcrypt.checkpw,
    ) -> None:
        self._held_up = held_up
        self._check = check
        self._key = secrets.token_bytes(32)
        self._remembered: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        self._going_on: dict[bytes, _Check] = {}
        self._followers = 0
        self._turn = threading.Lock()

    def matches(self, user: bytes, password: bytes, hashed: bytes) -> bool:
        """Whether the password is that of the hash.

        Raises:
            BusyError: too many others wait for their check.

        """
        digest = self._digest(user, password, hashed)
        if digest in self._remembered:
            return True
        with self._lock:
            check = self._going_on.get(digest)
            leads = check is None
            if check is None:
                if len(self._going_on) >= PLACES:
                    raise BusyError
                check = self._going_on[digest] = _Check()
            else:
                if self._followers >= FOLLOWERS:
                    raise BusyError
                self._followers += 1
        with self._held_up():
            return self._lead(check, digest, password, hashed) if leads else self._follow(check)

    def _lead(self, check: "_Check", digest: bytes, password: bytes, hashed: bytes) -> bool:
        try:
            if not self._turn.acquire(timeout=TURN_SECONDS):
                raise BusyError
            try:
                check.right = self._check(password[:_MAX_PASSWORD], hashed)
                if check.right:
                    while len(self._remembered) >= MAX_REMEMBERED:
                        del self._remembered[next(iter(self._remembered))]
                    self._remembered[digest] = hashed
            finally:
                self._turn.release()
        finally:
            with self._lock:
                del self._going_on[digest]
            check.done.set()
        return check.right

    def _follow(self, check: "_Check") -> bool:
        check.done.wait()
        with self._lock:
            self._followers -= 1
        if check.right is None:
            raise BusyError
        return check.right

    def keep_only(self, hashes: Iterable[bytes]) -> None:
        """Forget what was held against other hashes than these."""
        kept = set(hashes)
        with self._turn:
            for digest in [digest for digest, hashed in self._remembered.items() if hashed not in kept]:
                del self._remembered[digest]

    def _digest(self, *parts: bytes) -> bytes:
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._key, message, "sha256")


class Authenticator:
    """The users and tokens of one configuration.

    Args:
        users: bcrypt hashes by name.
        permissions: of each user.
        tokens: bearer tokens.
        checks: outlives this.

    """

    def __init__(
        self,
        users: Mapping[str, str],
        permissions: Mapping[str, Permissions],
        tokens: Iterable[Token],
        checks: PasswordChecks,
    ) -> None:
        self._users = {name.encode(): (hashed.encode(), permissions[name]) for name, hashed in users.items()}
        self._tokens = tuple(tokens)
        self._checks = checks
        # A name that nobody has takes as long as one that somebody has: the password is held against a hash of the
        # highest cost among the users', which no password has.
        cost = max((int(hashed.split("$")[2]) for hashed in users.values()), default=_DEFAULT_COST)
        self._nobody = f"$2b${cost:02d}${'.' * 53}".encode()
        self.required = bool(self._users or self._tokens)
        """Whether anything has to be shown at all."""
        self.challenges = tuple(
            [("WWW-Authenticate", 'Basic realm="mlexporter", charset="UTF-8"')] * bool(self._users)
            + [("WWW-Authenticate", 'Bearer realm="mlexporter"')] * bool(self._tokens)
        )

    def permissions_of(self, header: str) -> Permissions | None:
        """What the bearer of an Authorization header may do; None where it proves nothing.

        Raises:
            BusyError: too many others wait for the check of their password.

        """
        scheme, _, given = header.strip().partition(" ")
        if scheme.lower() == "basic" and self._users:
            return self._of_user(given.strip())
        if scheme.lower() == "bearer" and self._tokens:
            return self._of_token(given.strip())
        return None

    def _of_user(self, given: str) -> Permissions | None:
        try:
            name, colon, password = base64.b64decode(given, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return None
        if not colon:
            return None
        hashed, permissions = self._users.get(name, (self._nobody, None))
        right = self._checks.matches(name, password, hashed)
        return permissions if right else None

    def _of_token(self, given: str) -> Permissions | None:
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        found = None
        for token in self._tokens:  # all of them, so that time does not tell which
            if hmac.compare_digest(token.digest, digest):
                found = token.permissions
        return found
