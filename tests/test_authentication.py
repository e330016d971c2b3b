"""Passwords and tokens: who is let in, what is remembered of it, and that a refusal takes as long."""

import base64
import contextlib
import hashlib
import threading
from collections.abc import Iterator

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlexporter.authentication import (
    FOLLOWERS,
    MAX_REMEMBERED,
    PLACES,
    Authenticator,
    BusyError,
    PasswordChecks,
    Permissions,
    Token,
)

DEADLINE = 10.0
BOTH = frozenset({"push", "scrape"})
PUSH, SCRAPE = frozenset({"push"}), frozenset({"scrape"})
# made by htpasswd -nbB -C 4 NAME PASSWORD, and by crypt_blowfish's own tests
ALICE = "$2y$04$" + bcrypt.hashpw(b"wonderland", b"$2b$04$abcdefghijklmnopqrstuu").decode()[7:]
BOB = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"  # crypt_blowfish: the password is U*U
GO = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"  # exporter-toolkit: fakepassword


class Bcrypt:
    """bcrypt, which keeps count of the hashes that it checked."""

    def __init__(self) -> None:
        self.hashes: list[bytes] = []

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.hashes.append(hashed)
        return bcrypt.checkpw(password, hashed)


@pytest.fixture
def slow() -> Bcrypt:
    return Bcrypt()


@pytest.fixture
def checks(slow: Bcrypt) -> PasswordChecks:
    return PasswordChecks(contextlib.nullcontext, slow)


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def users(checks: PasswordChecks, *, tokens: tuple[Token, ...] = (), **hashes: str) -> Authenticator:
    permissions: dict[str, Permissions] = dict.fromkeys(hashes, BOTH)
    return Authenticator(hashes, permissions, tokens, checks)


def token(text: str, permissions: Permissions = BOTH) -> Token:
    return Token(hashlib.sha256(text.encode()).digest(), permissions)


@pytest.mark.parametrize(("hashed", "password"), [(ALICE, "wonderland"), (BOB, "U*U"), (GO, "fakepassword")])
def test_hashes_of_others_are_understood(checks: PasswordChecks, hashed: str, password: str) -> None:
    authenticator = users(checks, somebody=hashed)
    assert authenticator.permissions_of(basic("somebody", password)) == BOTH
    assert authenticator.permissions_of(basic("somebody", password + "x")) is None


@pytest.mark.parametrize(
    "header",
    [
        "", "Basic", "Basic ", "Basic !!!!", "Basic YWxpY2U=", basic("alice", ""), basic("", "wonderland"),
        basic("alice", "Wonderland"), basic("Alice", "wonderland"), basic("bob", "wonderland"),
        "Bearer wonderland", "Digest wonderland", basic("alice", "wonderland") + "=", "alice:wonderland",
    ],
)  # fmt: skip
def test_anything_else_proves_nothing(checks: PasswordChecks, header: str) -> None:
    assert users(checks, alice=ALICE).permissions_of(header) is None


def test_scheme_is_known_in_any_case(checks: PasswordChecks) -> None:
    authenticator = users(checks, alice=ALICE, tokens=(token("0123456789abcdef"),))
    assert authenticator.permissions_of(basic("alice", "wonderland").replace("Basic", "bAsIc ")) == BOTH
    assert authenticator.permissions_of("BEARER 0123456789abcdef ") == BOTH


def test_a_password_may_hold_a_colon_and_any_letter(checks: PasswordChecks) -> None:
    hashed = bcrypt.hashpw("pä:ss:".encode(), bcrypt.gensalt(4)).decode()
    assert users(checks, alice=hashed).permissions_of(basic("alice", "pä:ss:")) == BOTH


def test_of_a_password_72_bytes_count(checks: PasswordChecks) -> None:
    """As everywhere with bcrypt, https://pkg.go.dev/golang.org/x/crypto/bcrypt; the rest is no error of the server."""
    hashed = bcrypt.hashpw(b"a" * 72, bcrypt.gensalt(4)).decode()
    assert users(checks, alice=hashed).permissions_of(basic("alice", "a" * 100)) == BOTH


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_name_that_nobody_has_costs_as_much_as_one_that_somebody_has(checks: PasswordChecks, slow: Bcrypt) -> None:
    authenticator = users(checks, alice=ALICE, bob=BOB)
    for _ in range(2):
        assert authenticator.permissions_of(basic("nobody", "wonderland")) is None
        assert authenticator.permissions_of(basic("alice", "wrong")) is None
    costs = [int(hashed.split(b"$")[2]) for hashed in slow.hashes]
    assert costs == [5, 4, 5, 4]  # the highest of the users' costs, each time


def test_no_password_is_that_of_nobody(checks: PasswordChecks, slow: Bcrypt) -> None:
    authenticator = users(checks, alice=ALICE)
    authenticator.permissions_of(basic("nobody", "x"))
    (nobody,) = slow.hashes
    assert bcrypt.hashpw(b"x", nobody) != nobody  # a hash that can be computed, and that is not one
    assert len(bcrypt.hashpw(b"x", nobody)) == len(nobody)


def test_every_token_is_looked_at(checks: PasswordChecks, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(a)
        return a == b

    monkeypatch.setattr("mlexporter.authentication.hmac.compare_digest", compare)
    tokens = [token(f"token-{i}-0123456789", SCRAPE if i else PUSH) for i in range(3)]
    authenticator = Authenticator({}, {}, tokens, checks)
    assert authenticator.permissions_of("Bearer token-0-0123456789") == PUSH
    assert authenticator.permissions_of("Bearer token-9-0123456789") is None
    assert compared == [token.digest for token in tokens] * 2


# -- memory ------------------------------------------------------------------------------------------------------------


def test_what_was_right_is_checked_once(checks: PasswordChecks, slow: Bcrypt) -> None:
    authenticator = users(checks, alice=ALICE)
    for _ in range(3):
        assert authenticator.permissions_of(basic("alice", "wonderland")) == BOTH
    assert len(slow.hashes) == 1


def test_what_was_wrong_is_checked_each_time(checks: PasswordChecks, slow: Bcrypt) -> None:
    authenticator = users(checks, alice=ALICE)
    for _ in range(3):
        assert authenticator.permissions_of(basic("alice", "wrong")) is None
    assert len(slow.hashes) == 3


def test_memory_outlives_the_configuration_but_not_the_user(checks: PasswordChecks, slow: Bcrypt) -> None:
    assert users(checks, alice=ALICE).permissions_of(basic("alice", "wonderland")) == BOTH
    assert users(checks, alice=ALICE, bob=BOB).permissions_of(basic("alice", "wonderland")) == BOTH
    assert len(slow.hashes) == 1
    assert users(checks, bob=BOB).permissions_of(basic("alice", "wonderland")) is None
    assert users(checks, alice=BOB).permissions_of(basic("alice", "wonderland")) is None
    assert users(checks, bob=ALICE).permissions_of(basic("bob", "wonderland")) == BOTH
    assert len(slow.hashes) == 4  # what was found of alice says nothing of bob


def test_a_user_who_is_gone_is_forgotten(checks: PasswordChecks, slow: Bcrypt) -> None:
    authenticator = users(checks, alice=ALICE, bob=BOB)
    for _ in range(2):
        authenticator.permissions_of(basic("alice", "wonderland"))
        authenticator.permissions_of(basic("bob", "U*U"))
        checks.keep_only([BOB.encode()])
    assert slow.hashes == [ALICE.encode(), BOB.encode(), ALICE.encode()]


def test_nothing_that_was_sent_is_kept(checks: PasswordChecks) -> None:
    users(checks, alice=ALICE).permissions_of(basic("alice", "wonderland"))
    assert "wonderland" not in repr(vars(checks))
    other = PasswordChecks(contextlib.nullcontext)
    users(other, alice=ALICE).permissions_of(basic("alice", "wonderland"))
    assert vars(checks)["_remembered"].keys().isdisjoint(vars(other)["_remembered"])  # a key for each process


def test_memory_is_bounded() -> None:
    asked: list[bytes] = []

    def check(password: bytes, _: bytes) -> bool:
        asked.append(password)
        return True

    checks = PasswordChecks(contextlib.nullcontext, check)
    authenticator = users(checks, alice=ALICE)
    for number in range(MAX_REMEMBERED + 1):
        authenticator.permissions_of(basic("alice", str(number)))
    assert len(vars(checks)["_remembered"]) == MAX_REMEMBERED
    authenticator.permissions_of(basic("alice", str(MAX_REMEMBERED)))
    assert len(asked) == MAX_REMEMBERED + 1
    authenticator.permissions_of(basic("alice", "0"))  # the oldest
    assert asked[-1] == b"0"


# -- many at once ------------------------------------------------------------------------------------------------------


class Held:
    """A check that goes on until it is let go, and the threads that ask for it."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.at_once = self.most = self.count = self.held_up = 0

    def check(self, password: bytes, _: bytes) -> bool:
        self.count += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.begun.set()
        assert self.go_on.wait(DEADLINE)
        self.at_once -= 1
        return password == b"right"

    @contextlib.contextmanager
    def relieved(self) -> Iterator[None]:
        self.held_up += 1
        yield


def started(authenticator: Authenticator, *headers: str) -> tuple[list[threading.Thread], list[Permissions | None]]:
    found: list[Permissions | None] = []
    threads = [
        threading.Thread(target=lambda header=header: found.append(authenticator.permissions_of(header)))
        for header in headers
    ]
    for thread in threads:
        thread.start()
    return threads, found


def test_one_password_is_checked_at_a_time_and_few_may_wait() -> None:
    held = Held()
    checks = PasswordChecks(held.relieved, held.check)
    authenticator = users(checks, alice=ALICE, tokens=(token("0123456789abcdef"),))
    threads, found = started(authenticator, *(basic("alice", f"wrong{i}") for i in range(PLACES)))
    assert held.begun.wait(DEADLINE)
    while held.held_up < PLACES:
        threading.Event().wait(0.001)
    with pytest.raises(BusyError):
        authenticator.permissions_of(basic("alice", "right"))
    assert authenticator.permissions_of("Bearer 0123456789abcdef") == BOTH  # who needs no check does not wait for one
    held.go_on.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert (found, held.most, held.count) == ([None] * PLACES, 1, PLACES)
    assert authenticator.permissions_of(basic("alice", "right")) == BOTH  # and there is room again


@pytest.mark.parametrize(("password", "expected"), [("right", BOTH), ("wrong", None)])
def test_a_password_that_many_bring_at_once_is_checked_once(password: str, expected: Permissions | None) -> None:
    held = Held()
    checks = PasswordChecks(held.relieved, held.check)
    authenticator = users(checks, alice=ALICE)
    threads, found = started(authenticator, *[basic("alice", password)] * (1 + FOLLOWERS))
    assert held.begun.wait(DEADLINE)
    while held.held_up < 1 + FOLLOWERS:
        threading.Event().wait(0.001)
    with pytest.raises(BusyError):
        authenticator.permissions_of(basic("alice", password))
    held.go_on.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert (found, held.count) == ([expected] * (1 + FOLLOWERS), 1)
    assert authenticator.permissions_of(basic("alice", password)) == expected
    assert held.count == (1 if expected else 2)


def test_who_follows_a_check_that_fails_may_try_again() -> None:
    held = Held()

    def fail(password: bytes, hashed: bytes) -> bool:
        held.check(password, hashed)
        raise ValueError("Invalid salt")

    authenticator = users(PasswordChecks(held.relieved, fail), alice=ALICE)
    caught: list[type[Exception]] = []

    def ask() -> None:
        try:
            authenticator.permissions_of(basic("alice", "x"))
        except (BusyError, ValueError) as error:
            caught.append(type(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    while held.held_up < 3:
        threading.Event().wait(0.001)
    held.go_on.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(caught, key=str) == [ValueError, BusyError, BusyError]


def test_a_check_that_fails_gives_its_place_back() -> None:
    def fail(_: bytes, __: bytes) -> bool:
        raise ValueError("Invalid salt")

    authenticator = users(PasswordChecks(contextlib.nullcontext, fail), alice=ALICE)
    for _ in range(2 * PLACES):
        with pytest.raises(ValueError, match="Invalid salt"):
            authenticator.permissions_of(basic("alice", "x"))


# -- what is asked -----------------------------------------------------------------------------------------------------


def test_challenges_name_what_is_there(checks: PasswordChecks) -> None:
    def schemes(authenticator: Authenticator) -> list[str]:
        return [value.split(" ")[0] for _, value in authenticator.challenges]

    nobody = users(checks)
    assert (nobody.required, schemes(nobody)) == (False, [])
    assert schemes(users(checks, alice=ALICE)) == ["Basic"]
    assert schemes(users(checks, tokens=(token("0123456789abcdef"),))) == ["Bearer"]
    assert schemes(users(checks, alice=ALICE, tokens=(token("0123456789abcdef"),))) == ["Basic", "Bearer"]


@settings(deadline=None)
@given(
    st.text()
    | st.binary().map(lambda raw: "Basic " + base64.b64encode(raw).decode())
    | st.text().map("Bearer ".__add__)
)
def test_no_header_is_too_odd(header: str) -> None:
    checks = PasswordChecks(contextlib.nullcontext, lambda _, __: False)
    assert users(checks, alice=ALICE, tokens=(token("0123456789abcdef"),)).permissions_of(header) is None
