"""The web configuration: the shapes that exporter-toolkit's own tests have, good and bad, and what goes beyond it."""

import contextlib
import re
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlexporter.config_document import ConfigError
from mlexporter.web_config import (
    SERVED_CURVES,
    SERVED_SUITES,
    BearerToken,
    HttpConfig,
    RateLimit,
    TlsConfig,
    WebConfig,
    checked,
)

HASH = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
FILES = "cert_file: server.crt\n  key_file: server.key\n"
TLS = f"tls_server_config:\n  {FILES}"
ALL_SUITES = [
    *SERVED_SUITES, "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA", "TLS_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_256_GCM_SHA384",
]  # fmt: skip
HEADERS = "http_server_config:\n  headers:\n    "


def parse(text: str) -> WebConfig:
    return checked(text, name="web.yml").result()


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value).splitlines()


def in_list(key: str, items: list[str] | tuple[str, ...]) -> str:
    return f"  {key}: [{', '.join(items)}]\n"


# named as the files in exporter-toolkit's web/testdata are
GOOD = {
    "empty": "",
    "noAuth": f"{TLS}  client_auth_type: VerifyClientCertIfGiven\n",
    "noAuth_quoted": 'tls_server_config:\n  cert_file: "server.crt"\n  key_file: "server.key"\n',
    "noAuth_allCiphers": f"{TLS}{in_list('cipher_suites', ALL_SUITES)}",
    "noAuth_allCurves": f"{TLS}{in_list('curve_preferences', ('CurveP256', 'CurveP384', 'CurveP521', 'X25519'))}",
    "noAuth_tlsInline": "tls_server_config:\n  cert: |\n    -----BEGIN CERTIFICATE-----\n  key: |\n    -----BEGIN\n",
    "requireandverifyclientcert": f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n",
    "noAuth_noHTTP2": f"{TLS}http_server_config:\n  http2: false\n",
    "headers": (
        f"{HEADERS}X-Frame-Options: deny\n    Strict-Transport-Security: max-age=31536000; includeSubDomains\n"
        "    X-Content-Type-Options: nosniff\n    X-XSS-Protection: 1\n"
        "    Content-Security-Policy: \"default-src 'self' *.test.example.net\"\n"
    ),
    "rate_limiter_nonblocking": "rate_limit:\n  interval: 0\n  burst: 0\n",
    "rate_limiter_one_second": 'rate_limit:\n  interval: "1s"\n  burst: 0\n',
    "users": f"{TLS}basic_auth_users:\n  alice: {HASH}\n",
    "users_noTLS": f"basic_auth_users:\n  alice: {HASH}\n  bob: {HASH}\n",
    "min_version": f"{TLS}  min_version: TLS13\n  max_version: TLS13\n",
    "cipher_suites_of_no_effect": f"{TLS}  min_version: TLS13\n  cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]\n",
    "prefer_server_cipher_suites": f"{TLS}  prefer_server_cipher_suites: false\n",
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_shapes(name: str) -> None:
    parse(GOOD[name])


BAD = {
    "junk": ("hogehoge", "web.yml:1:1: the document is a single value"),
    "junk_key": (
        f"{TLS}  cert_filse: server.crt\n",
        "web.yml:4:3: tls_server_config.cert_filse: unknown key; did you mean cert_file?",
    ),
    "certPath_empty": ('tls_server_config:\n  cert_file: ""\n  key_file: server.key\n', "web.yml:2:14: tls_server_c"),
    "cert_empty": ('tls_server_config:\n  cert: ""\n  key_file: k\n', "web.yml:2:9: tls_server_config.cert: is empty"),
    "key_empty": ('tls_server_config:\n  cert_file: c\n  key: ""\n', "web.yml:3:8: tls_server_config.key: is empty"),
    "certPath_missing": (
        "tls_server_config:\n  key_file: server.key\n",
        "web.yml:2:3: tls_server_config: cert is missing; give cert_file or cert",
    ),
    "keyPath_missing": (
        "tls_server_config:\n  cert_file: server.crt\n",
        "web.yml:2:3: tls_server_config: key is missing; give key_file or key",
    ),
    "noAuth": (
        f"{TLS}  client_ca_file: ca.crt\n",
        "web.yml:4:19: tls_server_config.client_ca_file: of no use with client_auth_type NoClientCert",
    ),
    "client_auth_type": (f"{TLS}  client_auth_type: Never\n", "web.yml:4:21: tls_server_config.client_auth_type: "),
    "user_list_invalid": ("basic_auth_users:\n  john: doe\n", "web.yml:2:9: basic_auth_users.john: is no bcrypt hash"),
    "inventedCiphers": (
        f"{TLS}  cipher_suites: [TLS_ECDHE_MADE_UP]\n",
        "web.yml:4:19: tls_server_config.cipher_suites[0",
    ),
    "inventedCurves": (
        f"{TLS}  curve_preferences: [CurveP257]\n",
        "web.yml:4:23: tls_server_config.curve_preferences[",
    ),
    "wrongTLSVersion": (f"{TLS}  min_version: TLS111\n", "web.yml:4:16: tls_server_config.min_version: "),
    "headers_content_type_options": (f"{HEADERS}X-Content-Type-Options: foo\n", "web.yml:3:29: http_server_config.hea"),
    "headers_frame_options": (f"{HEADERS}X-Frame-Options: DENY\n", "web.yml:3:22: http_server_config.headers.X-Frame"),
    "headers_extra_header": (f"{HEADERS}Foo: bar\n", "web.yml:3:5: http_server_config.headers.Foo: "),
    "client_san_no_client_auth": (
        f"{TLS}  client_allowed_sans: [a.example]\n",
        "web.yml:4:24: tls_server_config.client_allowed_sans: the names in client certificates cannot be checked",
    ),
    # exporter-toolkit takes these; what it does with them cannot be done here
    "requireanyclientcert": (
        f"{TLS}  client_auth_type: RequireAnyClientCert\n",
        "web.yml:4:21: tls_server_config.client_auth_type: a certificate that nobody verifies proves nothing",
    ),
    "requireandverifyclientcert_of_the_system": (
        f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n",
        "web.yml:4:21: tls_server_config.client_auth_type: needs client_ca_file or client_ca",
    ),
    "noAuth_someCiphers": (
        f"{TLS}{in_list('cipher_suites', SERVED_SUITES[1:])}",
        f"web.yml:4:18: tls_server_config.cipher_suites: leaves out {SERVED_SUITES[0]}, which cannot be switched off",
    ),
    "noAuth_someCurves": (
        f"{TLS}{in_list('curve_preferences', SERVED_CURVES[1:])}",
        "web.yml:4:22: tls_server_config.curve_preferences: leaves out X25519, which cannot be switched off here",
    ),
    "max_version": (f"{TLS}  max_version: TLS12\n", "web.yml:4:16: tls_server_config.max_version: TLS 1.3 is always"),
    "min_version": (f"{TLS}  min_version: TLS10\n", "web.yml:4:16: tls_server_config.min_version: TLS 1.0 and 1.1 are"),
    # stricter than exporter-toolkit, which takes the file then
    "both": (f"{TLS}  cert: x\n", "web.yml:4:9: tls_server_config.cert: cert_file is given too; keep one of them"),
    "cost": (
        f"basic_auth_users: {{a: {HASH.replace('$10$', '$15$')}}}\n",
        "web.yml:1:23: basic_auth_users.a: has a cost of 15, which is not from 4 to 14",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_shapes(name: str) -> None:
    text, expected = BAD[name]
    (line,) = problems(text)
    assert line.startswith(expected)


def test_every_mistake_is_found_at_once() -> None:
    text = "".join(
        f"{key}: {value}\n" for key, value in {"a": 1, "rate_limit": "{burst: x}", "bearer_tokens": 3}.items()
    )
    assert [line.split(":")[1] for line in problems(text)] == ["1", "2", "3"]


def test_documentation_is_that_of_the_settings() -> None:
    """Its example is good, and its tables have every key."""
    page = (Path(__file__).parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(tls_server_config:\n.*?)```", page, re.DOTALL)
    found = parse(example)
    assert found.tls_server_config is not None
    assert set(found.user_permissions) < set(found.basic_auth_users)
    shapes = {
        "tls_server_config": TlsConfig, "http_server_config": HttpConfig, "rate_limit": RateLimit,
        "bearer_tokens[]": BearerToken,
    }  # fmt: skip
    keys = {f"{section}.{key}" for section, shape in shapes.items() for key in shape.__struct_fields__}
    keys |= {"basic_auth_users.NAME", "user_permissions.NAME"}
    keys = keys - {"http_server_config.headers"} | {"http_server_config.headers.NAME"}
    documented = re.findall(r"`((?:[a-z_]+(?:\[\])?\.)+[A-Za-z_0-9]+)`", "".join(re.findall(r"(?m)^\| `.*?\|", page)))
    assert set(documented) == keys


TOKEN = "0123456789abcdef"


def test_tokens_and_permissions() -> None:
    found = parse(
        f"basic_auth_users: {{a: {HASH}, b: {HASH}}}\nuser_permissions: {{a: [scrape]}}\nbearer_tokens:\n"
        f"  - {{name: model, token: {TOKEN}, permissions: [push]}}\n"
        "  - {name: file, token_file: t, permissions: [push, scrape]}\n"
        f"  - {{name: hash, token_sha256: {'aB' * 32}, permissions: [scrape]}}\n"
    )
    assert found.user_permissions == {"a": ("scrape",)}
    assert [(token.name, token.permissions) for token in found.bearer_tokens] == [
        ("model", ("push",)),
        ("file", ("push", "scrape")),
        ("hash", ("scrape",)),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        "bearer_tokens: [{name: x, permissions: [push]}]": "bearer_tokens[0]: has no token; give exactly one of ",
        f"bearer_tokens: [{{name: x, token: {TOKEN}, token_file: t, permissions: [push]}}]": "has token and token_file",
        f"bearer_tokens: [{{name: x, token: {TOKEN}}}]": "bearer_tokens[0].permissions: missing, and required",
        f"bearer_tokens: [{{name: x, token: {TOKEN}, permissions: []}}]": "permissions: has 0 items; use 1 to 2",
        f"bearer_tokens: [{{name: x, token: {TOKEN}, permissions: [admin]}}]": '"admin" is not one of push, scrape',
        "bearer_tokens: [{name: x, token: short, permissions: [push]}]": "[0].token: is no token; use 16 to",
        "bearer_tokens: [{name: x, token_sha256: ab, permissions: [push]}]": "token_sha256: is no SHA-256; use 64 hex",
        "user_permissions: {a: [push]}": 'user_permissions.a: "a" is no user; basic_auth_users has the users',
        f'basic_auth_users: {{"a:b": {HASH}}}': "has a colon, which ends the name in basic authentication",
        "rate_limit: {interval: 1}": 'rate_limit.interval: "1" has no unit; use 0, or a duration from 1ms to 1h',
    }.items(),
)
def test_mistakes_in_what_goes_beyond(text: str, expected: str) -> None:
    (line,) = problems(text)
    assert expected in line


def test_names_of_tokens_are_told_apart() -> None:
    item = f"{{name: x, token: {TOKEN}, permissions: [push]}}"
    assert problems(f"bearer_tokens: [{item}, {item}]") == [
        'web.yml:1:81: bearer_tokens[1].name: "x" is bearer_tokens[0] already; give it another name'
    ]


@pytest.mark.parametrize(
    "text",
    [
        "basic_auth_users: {a: SECRET}",
        "basic_auth_users: SECRET",
        "basic_auth_users: [SECRET]",
        "basic_auth_users: {a: [SECRET]}",
        "bearer_tokens: SECRET",
        "bearer_tokens: [SECRET]",
        "bearer_tokens: [{name: x, token: SE CRET, permissions: [push]}]",
        "bearer_tokens: [{name: x, token_sha256: SECRET, permissions: [push]}]",
        "bearer_tokens: [{name: x, token: [SECRET], permissions: [push]}]",
        'tls_server_config: {cert_file: c, key: "SECRET\\0"}',
        "tls_server_config: {cert_file: c, key: {SECRET: SECRET}}",
        # at another key, where text as long as a token stands in no message either
        "bearer_tokens: [{name: x, token_file: t, permissions: [SECRET-0123456789]}]",
        "tls_server_config: {cert_file: c, key_file: k, min_version: SECRET-0123456789}",
        'tls_server_config: {cert_file: c, key_file: "-----BEGIN PRIVATE KEY-----\\nSECRET-0123456789"}',
        "rate_limit: {interval: SECRET-0123456789, burst: SECRET-0123456789}",
        'http_server_config: {http2: "SECRET-0123456789", headers: {X-Frame-Options: SECRET-0123456789}}',
    ],
)
def test_no_message_shows_a_secret(text: str) -> None:
    assert "CRET" not in "\n".join(problems(text)).replace("token", "")


@settings(deadline=None)
@given(
    st.from_regex(r"\$2[aby]\$04\$[./A-Za-z0-9]{21}([.Oeu]|[./A-Za-z0-9])[./A-Za-z0-9]{31}", fullmatch=True),
    st.binary(max_size=72),
)
def test_a_hash_that_is_taken_can_be_checked(hashed: str, password: bytes) -> None:
    try:
        parse(f"basic_auth_users: {{a: {hashed}}}")
    except ConfigError:
        with pytest.raises(ValueError, match="Invalid salt"):
            bcrypt.checkpw(password, hashed.encode())
    else:
        assert bcrypt.checkpw(password, hashed.encode()) in (True, False)


@settings(deadline=None)
@given(st.recursive(st.text(), lambda inner: st.dictionaries(st.sampled_from(
    ["tls_server_config", "cert", "key_file", "basic_auth_users", "bearer_tokens", "name", "token", "rate_limit", "x"]
), inner) | st.lists(inner)), st.booleans())  # fmt: skip
def test_anything_is_read_or_refused(content: object, raw: bool) -> None:
    with contextlib.suppress(ConfigError):
        parse(content if raw and isinstance(content, str) else repr(content))
