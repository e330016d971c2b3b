"""Certificates, users and tokens from files, and files that change."""

import base64
import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client.parser import text_string_to_metric_families

from certificates import Authority, write_pair
from conftest import Clock
from mlexporter.authentication import Permissions
from mlexporter.config_document import ConfigError
from mlexporter.telemetry import Telemetry
from mlexporter.tls import Material, as_files, problem_with
from mlexporter.web_access import WebAccess
from mlexporter.web_files import Loaded, WebFiles

PUSH, SCRAPE = frozenset({"push"}), frozenset({"scrape"})


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


# -- certificates and keys ---------------------------------------------------------------------------------------------


def odd_pair() -> tuple[bytes, bytes]:
    """A key that OpenSSL takes and the server does not."""
    key = ec.generate_private_key(ec.SECP521R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    issued = Authority().ca._certificate
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(issued.not_valid_before_utc).not_valid_after(issued.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


def encrypted(key: bytes) -> bytes:
    private = serialization.load_pem_private_key(key, None)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )


def test_good_material(authority: Authority) -> None:
    assert problem_with(authority.material()) is None
    assert problem_with(authority.material(authority.pem, required=True)) is None
    assert problem_with(authority.material(authority.pem + Authority().pem)) is None


def test_bad_material(authority: Authority) -> None:
    certificate, key = authority.server()
    _, other = authority.server()
    for pair, part, words in (
        ((certificate, other), "key", "not that of the certificate"),
        ((key, key), "cert", "holds no certificate in PEM"),
        ((certificate, certificate), "key", "holds no private key in PEM"),
        ((certificate[:300], key), "cert", "cannot be used: no valid pem"),
        ((certificate, encrypted(key)), "key", "is encrypted"),
        (odd_pair(), "cert", "refused by the server: General("),
    ):
        found = problem_with(Material(*pair, None, False, "tls1.2"))
        assert found is not None
        assert found[0] == part
        assert words in found[1]
    for client_ca in (b"", key, "ä".encode(), b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"):
        found = problem_with(Material(certificate, key, client_ca, True, "tls1.2"))
        assert found == ("client_ca", "holds no certificates in PEM")


def test_a_client_ca_may_have_comments(authority: Authority) -> None:
    assert problem_with(authority.material("# Autorité\n".encode() + authority.pem, required=True)) is None


def test_files_of_material_are_there_while_they_are_needed_and_on_no_disk(authority: Authority) -> None:
    material = authority.material(authority.pem)
    with as_files(material) as files:
        assert files.client_ca is not None
        content = [Path(path).read_bytes() for path in (files.certificate, files.key, files.client_ca)]
        assert content == [material.certificate, material.key, material.client_ca]
        assert Path(files.key).readlink().as_posix().startswith("/memfd:")
    assert not Path(files.key).exists()


def test_secrets_have_no_representation(authority: Authority) -> None:
    material = authority.material()
    assert "KEY" not in repr(material)
    assert "KEY" not in repr(Loaded(material, {}, {}, (), (), None))  # type: ignore[arg-type]


# -- files -------------------------------------------------------------------------------------------------------------


class Site:
    """A web configuration in a folder, and the access that follows it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.path = folder / "web.yml"
        self.telemetry = Telemetry(Clock())
        self.write(**settings)
        files = WebFiles(self.path)
        self.access = WebAccess(files, files.load(), self.telemetry, contextlib.nullcontext, Clock(0.0))
        self.renewed: list[Material] = []
        self.access.on_new_tls(self.renewed.append)

    def write(self, **settings: Any) -> None:
        self.path.write_text(json.dumps(settings))

    def look(self) -> None:
        """Twice: the first look sees that something has changed, the next one that it is at rest."""
        self.access.look()
        self.access.look()

    def permissions(self, authorization: str) -> Permissions | None:
        return self.access.rules().authenticator.permissions_of(authorization)

    def user(self, name: str, password: str) -> Permissions | None:
        return self.permissions("Basic " + base64.b64encode(f"{name}:{password}".encode()).decode())

    def counted(self) -> tuple[float, float]:
        """Whether the last load succeeded, and how many failed."""
        page = self.telemetry.page(openmetrics=False).decode()
        found = {s.name: s.value for family in text_string_to_metric_families(page) for s in family.samples}
        names = "mlexporter_web_config_last_reload_successful", "mlexporter_web_config_reload_failures_total"
        return found[names[0]], found[names[1]]


def problems(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        WebFiles(path).load()
    return str(caught.value)


def test_files_are_found_beside_the_configuration(tmp_path: Path, authority: Authority) -> None:
    write_pair(tmp_path, authority.server())
    (tmp_path / "token").write_text("0123456789abcdef\n")
    site = Site(
        tmp_path,
        tls_server_config={"cert_file": "server.crt", "key_file": "server.key"},
        basic_auth_users={"alice": hashed("a"), "bob": hashed("b")},
        user_permissions={"alice": ["scrape"]},
        bearer_tokens=[
            {"name": "file", "token_file": "token", "permissions": ["push"]},
            {
                "name": "hash",
                "token_sha256": hashlib.sha256(b"hashed-token-0123").hexdigest().upper(),
                "permissions": ["scrape"],
            },
            {"name": "inline", "token": "inline-token-0123", "permissions": ["push", "scrape"]},
        ],
        http_server_config={"headers": {"X-Frame-Options": "deny", "X-XSS-Protection": ""}},
    )
    assert site.access.tls is not None
    assert site.access.tls.key == (tmp_path / "server.key").read_bytes()
    assert (site.user("alice", "a"), site.user("bob", "b")) == (SCRAPE, PUSH | SCRAPE)
    assert site.permissions("Bearer 0123456789abcdef") == PUSH
    assert site.permissions("Bearer hashed-token-0123") == SCRAPE
    assert site.permissions("Bearer inline-token-0123") == PUSH | SCRAPE
    assert site.access.rules().headers == (("X-Frame-Options", "deny"),)


def test_certificate_and_key_may_stand_in_the_file(tmp_path: Path, authority: Authority) -> None:
    certificate, key = (part.decode() for part in authority.server())
    site = Site(tmp_path, tls_server_config={"cert": certificate, "key": key, "min_version": "TLS13"})
    assert site.access.tls == Material(certificate.encode(), key.encode(), None, False, "tls1.3")


def test_problems_of_files_stand_at_their_key(tmp_path: Path, authority: Authority) -> None:
    write_pair(tmp_path, authority.server())
    path = tmp_path / "web.yml"
    (tmp_path / "short").write_text("short")
    (tmp_path / "large").write_bytes(b"x" * 300_000)
    path.write_text(
        "tls_server_config:\n  cert_file: missing.crt\n  key_file: server.key\n"
        "bearer_tokens:\n  - {name: a, token_file: short, permissions: [push]}\n"
        "  - {name: b, token_file: large, permissions: [push]}\n  - {name: c, token_file: ., permissions: [push]}\n"
    )
    accepted = "a token has 16 to 4096 characters of printable ASCII without blanks"
    assert problems(path).splitlines() == [
        f"{path}:2:14: tls_server_config.cert_file: {tmp_path}/missing.crt cannot be read: No such file or directory",
        f"{path}:5:27: bearer_tokens[0].token_file: {tmp_path}/short holds no token; {accepted}",
        f"{path}:6:27: bearer_tokens[1].token_file: {tmp_path}/large is larger than 262144 bytes",
        f"{path}:7:27: bearer_tokens[2].token_file: {tmp_path} cannot be read: Is a directory",
    ]
    path.write_text("tls_server_config:\n  cert_file: server.key\n  key_file: server.key\n")
    assert problems(path) == f"{path}:2:14: tls_server_config.cert_file: holds no certificate in PEM"
    path.write_text("tls_server_config:\n  cert: |\n    x\n  key_file: server.key\n")
    assert problems(path) == f"{path}:2:9: tls_server_config.cert: holds no certificate in PEM"


# -- files that change -------------------------------------------------------------------------------------------------


def test_users_come_and_go(tmp_path: Path) -> None:
    site = Site(tmp_path, basic_auth_users={"alice": hashed("a")})
    assert site.user("alice", "a") is not None
    site.write(basic_auth_users={"bob": hashed("b")})
    site.look()
    assert site.user("alice", "a") is None  # although it was remembered
    assert site.user("bob", "b") is not None
    assert site.counted() == (1.0, 0.0)


def test_permissions_are_those_of_the_file_now(tmp_path: Path) -> None:
    alice = hashed("a")
    site = Site(tmp_path, basic_auth_users={"alice": alice})
    assert site.user("alice", "a") == PUSH | SCRAPE
    site.write(basic_auth_users={"alice": alice}, user_permissions={"alice": ["push"]})
    site.look()
    assert site.user("alice", "a") == PUSH


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    site = Site(tmp_path, basic_auth_users={"alice": hashed("a")})
    site.path.write_text("basic_auth_users: {al")
    site.access.look()
    site.write(basic_auth_users={"bob": hashed("b")})
    site.access.look()
    assert (site.user("bob", "b"), site.counted()) == (None, (1.0, 0.0))
    site.access.look()
    assert site.user("bob", "b") is not None


@pytest.mark.parametrize("broken", ["basic_auth_users: {", "basic_auth_users: {a: b}", "nonsense: 1", None])
def test_a_broken_file_changes_nothing_and_is_counted_once(tmp_path: Path, broken: str | None) -> None:
    alice = hashed("a")
    site = Site(tmp_path, basic_auth_users={"alice": alice})
    if broken is None:
        site.path.unlink()
    else:
        site.path.write_text(broken)
    for _ in range(3):
        site.look()
        assert site.user("alice", "a") is not None
    assert site.counted() == (0.0, 1.0)
    site.write(basic_auth_users={"alice": alice, "bob": hashed("b")})
    site.look()
    assert site.user("bob", "b") is not None
    assert site.counted() == (1.0, 1.0)


def test_a_token_file_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef")
    site = Site(tmp_path, bearer_tokens=[{"name": "x", "token_file": "token", "permissions": ["push"]}])
    (tmp_path / "token").write_text("fedcba9876543210")
    site.look()
    assert site.permissions("Bearer 0123456789abcdef") is None
    assert site.permissions("Bearer fedcba9876543210") == PUSH
    (tmp_path / "token").unlink()
    site.look()
    assert site.permissions("Bearer fedcba9876543210") == PUSH
    assert site.counted() == (0.0, 1.0)


def test_a_new_certificate_is_handed_on(tmp_path: Path, authority: Authority) -> None:
    write_pair(tmp_path, authority.server())
    site = Site(tmp_path, tls_server_config={"cert_file": "server.crt", "key_file": "server.key"})
    site.look()
    assert site.renewed == []
    pair = authority.server()
    (tmp_path / "server.crt").write_bytes(pair[0])  # the key is still the old one
    site.look()
    assert (site.renewed, site.counted()) == ([], (0.0, 1.0))
    (tmp_path / "server.key").write_bytes(pair[1])
    site.look()
    assert [(each.certificate, each.key) for each in site.renewed] == [pair]
    assert site.counted() == (1.0, 1.0)


def test_kubernetes_way_to_replace_files_is_seen(tmp_path: Path, authority: Authority) -> None:
    """A volume of a Secret: the files are links into a folder that is a link, which is replaced."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_pair(tmp_path / name, authority.server())
    (tmp_path / "..data").symlink_to("one")
    for name in ("server.crt", "server.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    site = Site(tmp_path, tls_server_config={"cert_file": "server.crt", "key_file": "server.key"})
    (tmp_path / "..data_tmp").symlink_to("two")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    site.look()
    assert [each.key for each in site.renewed] == [(tmp_path / "two" / "server.key").read_bytes()]


def test_tls_stays_on_or_off(tmp_path: Path, authority: Authority) -> None:
    write_pair(tmp_path, authority.server())
    tls = {"cert_file": "server.crt", "key_file": "server.key"}
    alice = hashed("a")
    site = Site(tmp_path, tls_server_config=tls, basic_auth_users={"alice": alice})
    site.write()  # nor are its users let go with it
    site.look()
    assert site.user("alice", "a") is not None
    assert (site.renewed, site.counted()) == ([], (0.0, 1.0))
    assert site.access.tls is not None


def test_a_limit_that_stays_keeps_its_count(tmp_path: Path) -> None:
    limit = {"interval": "1h", "burst": 2}
    site = Site(tmp_path, rate_limit=limit)
    limiter = site.access.rules().limiter
    assert limiter is not None
    site.write(rate_limit=limit, basic_auth_users={"alice": hashed("a")})
    site.look()
    assert site.access.rules().limiter is limiter
    site.write(rate_limit={"interval": 0, "burst": 2})
    site.look()
    assert site.access.rules().limiter is None
