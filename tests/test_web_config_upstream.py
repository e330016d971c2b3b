"""The configurations that exporter-toolkit's own tests use, loaded with real files: what it refuses is refused here.

They are those that its `web/tls_config_test.go` names, in `web/testdata`, with the names of keys shortened to what each
is about: https://github.com/prometheus/exporter-toolkit/tree/master/web.
"""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from certificates import Authority, write_pair
from mlexporter.config_document import ConfigError
from mlexporter.web_files import WebFiles
from test_web_config import ALL_SUITES, HASH

CERTIFICATE = {"cert_file": "server.crt", "key_file": "server.key"}
CURVES = ["CurveP256", "CurveP384", "CurveP521", "X25519", "X25519MLKEM768"]
GCM = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
SANS = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.crt", "client_allowed_sans": ["one"]}


class Case(msgspec.Struct, frozen=True):
    """A configuration: whether exporter-toolkit takes it, and at which key it is refused here, if it is."""

    content: Any
    taken: bool
    refused_at: str | None = None


def tls(**more: object) -> dict[str, Any]:
    return {"tls_server_config": {**CERTIFICATE, **more}}


def headers(**more: str) -> dict[str, Any]:
    return {"http_server_config": {"headers": {name.replace("_", "-"): value for name, value in more.items()}}}


GOOD_HEADERS = {
    "X_Frame_Options": "deny", "Strict_Transport_Security": "max-age=31536000; includeSubDomains",
    "X_Content_Type_Options": "nosniff", "X_XSS_Protection": "1",
    "Content_Security_Policy": "default-src 'self' *.test.example.net",
}  # fmt: skip
OPTIONAL = {"client_auth_type": "VerifyClientCertIfGiven"}
USERS = {"alice": HASH, "carol": HASH.replace("$10$", "$12$")}

CASES = {
    # refused by both
    "somefile": Case(None, False, ""),
    "web_config_junk": Case("hogehoge", False, ""),
    "web_config_junk_key": Case(tls(cert_filse="x"), False, "tls_server_config.cert_filse"),
    "web_config_noAuth_certPath_empty.bad": Case(tls(cert_file=""), False, "tls_server_config.cert_file"),
    "web_config_noAuth_cert_empty.bad": Case(
        {"tls_server_config": {"cert": "", "key_file": "server.key"}}, False, "tls_server_config.cert"
    ),
    "web_config_noAuth_keyPath_empty.bad": Case(tls(key_file=""), False, "tls_server_config.key_file"),
    "web_config_noAuth_key_empty.bad": Case(
        {"tls_server_config": {"cert_file": "server.crt", "key": ""}}, False, "tls_server_config.key"
    ),
    "web_config_noAuth_certPath_keyPath_empty.bad": Case(
        tls(cert_file="", key_file="", client_auth_type="x"), False, "tls_server_config.cert_file"
    ),
    "web_config_noAuth_certPath_invalid.bad": Case(tls(cert_file="somefile"), False, "tls_server_config.cert_file"),
    "web_config_noAuth_keyPath_invalid.bad": Case(tls(key_file="somefile"), False, "tls_server_config.key_file"),
    "web_config_noAuth_certPath_keyPath_invalid.bad": Case(
        tls(cert_file="somefile", key_file="somefile"), False, "tls_server_config.cert_file"
    ),
    "web_config_noAuth.bad": Case(tls(client_ca_file="ca.crt"), False, "tls_server_config.client_ca_file"),
    "web_config_auth_clientCAs_invalid.bad": Case(
        tls(client_auth_type="RequireAndVerifyClientCert", client_ca_file="somefile"),
        False,
        "tls_server_config.client_ca_file",
    ),
    "web_config_auth_clientCAs_nocerts.bad": Case(
        tls(client_auth_type="RequireAndVerifyClientCert", client_ca_file="server.key"),
        False,
        "tls_server_config.client_ca_file",
    ),
    "web_config_auth_user_list_invalid.bad": Case(
        {"basic_auth_users": {"john": "doe"}}, False, "basic_auth_users.john"
    ),
    "web_config_noAuth_inventedCiphers.bad": Case(
        tls(cipher_suites=["TLS_MADE_UP"]), False, "tls_server_config.cipher_suites[0]"
    ),
    "web_config_noAuth_inventedCurves.bad": Case(
        tls(curve_preferences=["CurveP257"]), False, "tls_server_config.curve_preferences[0]"
    ),
    "web_config_noAuth_wrongTLSVersion.bad": Case(tls(min_version="TLS111"), False, "tls_server_config.min_version"),
    "web_config_noAuth_noHTTP2Cipher.bad": Case(
        tls(cipher_suites=["TLS_RSA_WITH_AES_128_CBC_SHA"], max_version="TLS12"),
        False,
        "tls_server_config.max_version",
    ),
    "web_config_headers_content_type_options.bad": Case(
        headers(X_Content_Type_Options="foo"), False, "http_server_config.headers.X-Content-Type-Options"
    ),
    "web_config_headers_frame_options.bad": Case(
        headers(X_Frame_Options="DENY"), False, "http_server_config.headers.X-Frame-Options"
    ),
    "web_config_headers_extra_header.bad": Case(headers(Foo="bar"), False, "http_server_config.headers.Foo"),
    "web_config_auth_client_san_no_client_auth.bad": Case(
        tls(client_allowed_sans=["one"]), False, "tls_server_config.client_allowed_sans"
    ),
    "web_config_auth_client_san_optional_cert.bad": Case(
        tls(**SANS | OPTIONAL), False, "tls_server_config.client_allowed_sans"
    ),
    # taken by both
    "web_config_empty": Case("", True),
    "web_config_noAuth.good": Case(tls(**OPTIONAL), True),
    "web_config_noAuth_tlsInline.good": Case("inline", True),
    "web_config_noAuth_allCiphers.good": Case(tls(cipher_suites=ALL_SUITES, **OPTIONAL), True),
    "web_config_noAuth_allCurves.good": Case(tls(curve_preferences=CURVES, **OPTIONAL), True),
    "web_config_headers.good": Case(headers(**GOOD_HEADERS), True),
    "tls_config_noAuth.requireandverifyclientcert.good": Case(
        tls(client_auth_type="RequireAndVerifyClientCert", client_ca_file="ca.crt"), True
    ),
    "web_config_rate_limiter_nonblocking": Case({"rate_limit": {"interval": 0, "burst": 0}}, True),
    "web_config_rate_limiter_one_second": Case({"rate_limit": {"interval": "1s", "burst": 0}}, True),
    "web_config_users_noTLS.good": Case({"basic_auth_users": USERS}, True),
    # taken by exporter-toolkit alone; the page on security says why
    "web_config_noAuth_someCiphers.good": Case(
        tls(cipher_suites=[GCM], max_version="TLS12"), True, "tls_server_config.max_version"
    ),
    "web_config_noAuth_someCiphers_noOrder.good": Case(
        tls(cipher_suites=[GCM], prefer_server_cipher_suites=False), True, "tls_server_config.cipher_suites"
    ),
    "web_config_noAuth_someCurves.good": Case(
        tls(curve_preferences=["CurveP521"], min_version="TLS13"), True, "tls_server_config.curve_preferences"
    ),
    "web_config_noAuth_noHTTP2.good": Case(
        tls(cipher_suites=[GCM], max_version="TLS12") | {"http_server_config": {"http2": False}},
        True,
        "tls_server_config.max_version",
    ),
    "tls_config_noAuth.requireanyclientcert.good": Case(
        tls(client_auth_type="RequireAnyClientCert"), True, "tls_server_config.client_auth_type"
    ),
    "web_config_noAuth.good.blocking": Case(
        tls(client_auth_type="RequireAndVerifyClientCert"), True, "tls_server_config.client_auth_type"
    ),
    "web_config_auth_client_san.good": Case(tls(**SANS), True, "tls_server_config.client_allowed_sans"),
    "web_config_users.good": Case(
        tls() | {"basic_auth_users": USERS | {"bob": HASH.replace("$10$", "$18$")}}, True, "basic_auth_users.bob"
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("web")
    authority = Authority()
    write_pair(made, authority.server())
    (made / "ca.crt").write_bytes(authority.pem)
    return made


@pytest.mark.parametrize("name", CASES)
def test_what_exporter_toolkit_has(folder: Path, name: str) -> None:
    case, path = CASES[name], folder / "web.yml"
    content = case.content
    if content == "inline":
        inline = {key: (folder / f"server.{end}").read_text() for key, end in (("cert", "crt"), ("key", "key"))}
        content = {"tls_server_config": inline | OPTIONAL}
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    files = WebFiles(path if content is not None else folder / "somefile")
    if case.refused_at is None:
        assert (files.load().tls is not None) == ("tls_server_config" in (content or {}))
    else:
        with pytest.raises(ConfigError) as caught:
            files.load()
        assert case.refused_at in str(caught.value)


def test_nothing_that_exporter_toolkit_refuses_is_taken() -> None:
    assert [name for name, case in CASES.items() if not case.taken and case.refused_at is None] == []


def test_what_is_refused_here_alone_is_documented() -> None:
    page = (Path(__file__).parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"### What exporter-toolkit takes and this does not\n(.*?)\n## ", page, re.DOTALL)
    for case in CASES.values():
        if case.taken and case.refused_at is not None:
            key = "basic_auth_users.NAME" if case.refused_at.startswith("basic") else case.refused_at
            assert f"`{key}` | " in section
