"""The file of `--web.config.file`: TLS, users, tokens and headers, in the format of Prometheus's exporter-toolkit.

Its keys, values and defaults are those of
https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md, and what of it cannot be honoured
here is refused with the reason, never ignored. `bearer_tokens` and `user_permissions` go beyond it.
"""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from mlexporter import config, scalars
from mlexporter.config_document import Document, KeyPath, key_path
from mlexporter.scalars import Scalar, shown
from mlexporter.strict_yaml import Items, read

MAX_BCRYPT_COST: Final = 14
"""A check at cost 10 takes 0.1 s of a processor, and each step doubles it."""
MIN_TOKEN: Final = 16
MAX_TOKEN: Final = 4096

Permission = Literal["push", "scrape"]
Permissions = tuple[Permission, ...]
ALL_PERMISSIONS: Final[Permissions] = ("push", "scrape")

SERVED_SUITES: Final = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)
"""The cipher suites of TLS 1.2 that rustls, which serves TLS here, has; there is no way to leave one out."""
SERVED_CURVES: Final = ("X25519", "CurveP256", "CurveP384")
"""Likewise its curves."""
_HEADERS: Final[dict[str, tuple[str, ...]]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}


def _pattern(expression: str, problem: str, accepts: str) -> Scalar[str]:
    """Text that a regular expression matches; no message shows it, for it is a secret."""

    def parse(value: str) -> str:
        if not re.fullmatch(expression, value, re.ASCII):
            raise ValueError(problem)
        return value

    return Scalar(parse, accepts)


def _bcrypt_hash() -> Scalar[str]:
    accepts = "what `htpasswd -nBC 10 NAME` writes after the colon, in quotes or not"

    def parse(value: str) -> str:
        # The 22nd character ends the salt and has two bits of it; bcrypt knows no other than these four.
        found = re.fullmatch(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", value)
        if found is None:
            raise ValueError("is no bcrypt hash of a password")
        if not 4 <= int(found[1]) <= MAX_BCRYPT_COST:
            raise ValueError(f"has a cost of {int(found[1])}, which is not from 4 to {MAX_BCRYPT_COST}")
        return value

    return Scalar(parse, accepts)


def _user_name() -> Scalar[str]:
    name = scalars.text(1, 128)

    def parse(value: str) -> str:
        if ":" in value:
            raise ValueError(f"{shown(value)} has a colon, which ends the name in basic authentication")
        return name.parse(value)

    return Scalar(parse, "a name of 1 to 128 characters without a colon")


def _interval() -> Scalar[float]:
    duration = scalars.duration("1ms", "1h")
    return Scalar(lambda value: 0.0 if value in ("0", "0s") else duration.parse(value), f"0, or {duration.accepts}")


def _header_value() -> Scalar[str]:
    return _pattern(r"[\x20-\x7e]{0,4096}", "is no value of an HTTP header", "printable ASCII, up to 4096 characters")


_Path = Annotated[Path, scalars.path()]
_Pem = Annotated[str, _pattern(r"[\x20-\x7e\r\n\t]{1,262144}", "is empty, or no PEM", "text in PEM, lines after a |")]
_Token = Annotated[
    str,
    _pattern(
        rf"[\x21-\x7e]{{{MIN_TOKEN},{MAX_TOKEN}}}",
        "is no token",
        f"{MIN_TOKEN} to {MAX_TOKEN} printable ASCII characters without blanks, such as `openssl rand -hex 32` writes",
    ),
]
_Digest = Annotated[
    str, _pattern(r"[0-9a-fA-F]{64}", "is no SHA-256", "64 hexadecimal digits, as `sha256sum` writes of the token")
]
_Version = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
_Suite = Literal[
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_256_GCM_SHA384",
]  # fmt: skip


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Certificate and key of the server, in files or inline, and what is asked of clients."""

    cert: _Pem | None = None
    key: _Pem | None = None
    client_ca: _Pem | None = None
    cert_file: _Path | None = None
    key_file: _Path | None = None
    client_ca_file: _Path | None = None
    client_auth_type: Literal[
        "NoClientCert", "RequestClientCert", "RequireClientCert", "RequireAnyClientCert", "VerifyClientCertIfGiven",
        "RequireAndVerifyClientCert",
    ] = "NoClientCert"  # fmt: skip
    client_allowed_sans: tuple[Annotated[str, scalars.text(1, 256)], ...] = ()
    min_version: _Version = "TLS12"
    max_version: _Version = "TLS13"
    cipher_suites: tuple[_Suite, ...] = ()
    curve_preferences: tuple[Literal["CurveP256", "CurveP384", "CurveP521", "X25519", "X25519MLKEM768"], ...] = ()
    prefer_server_cipher_suites: bool = True


class HttpConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is spoken, and headers of every answer. Empty ones are not sent."""

    http2: bool = True
    headers: dict[Literal[tuple(_HEADERS)], Annotated[str, _header_value()]] = {}  # type: ignore[valid-type]


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """A token bucket for all requests but probes: `burst` at once, one more each `interval` seconds; 0 is no limit."""

    interval: Annotated[float, _interval()] = 0.0
    burst: Annotated[int, scalars.whole(0, 1_000_000)] = 0


class BearerToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token, given as itself, in a file or as its SHA-256; `name` is for people."""

    name: Annotated[str, scalars.text(1, 128)]
    token: _Token | None = None
    token_file: _Path | None = None
    token_sha256: _Digest | None = None
    permissions: Annotated[Permissions, Items(1, 2)]


class WebConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    tls_server_config: TlsConfig | None = None
    http_server_config: HttpConfig = HttpConfig()
    basic_auth_users: dict[Annotated[str, _user_name()], Annotated[str, _bcrypt_hash()]] = {}
    user_permissions: dict[Annotated[str, _user_name()], Annotated[Permissions, Items(1, 2)]] = {}
    bearer_tokens: Annotated[tuple[BearerToken, ...], Items(0, 1000)] = ()
    rate_limit: RateLimit = RateLimit()


def read_document(path: Path) -> Document[WebConfig]:
    """The file at `path`, with what is wrong in itself; files that it names are not looked at yet.

    Raises:
        ConfigError: there is no such file, or it is no YAML.

    """
    return checked(config.text_of(path), name=str(path))


def checked(text: str, *, name: str) -> Document[WebConfig]:
    """The document in `text`, likewise; `name` stands before each error."""
    document = read(text, WebConfig, name=name, secret=True)
    if not document.stopped:
        _check_tls(document)
        _check_headers(document)
        _check_users(document)
        _check_tokens(document)
    return document


_TLS: Final[KeyPath] = ("tls_server_config",)
_PAIRS: Final = (("cert", "cert_file"), ("key", "key_file"), ("client_ca", "client_ca_file"))


def _check_tls(document: Document[WebConfig]) -> None:
    if not document.is_mapping(_TLS):
        return
    for inline, file in _PAIRS:
        both = [name for name in (inline, file) if document.get((*_TLS, name)) is not None]
        if len(both) == 2:
            document.refuse((*_TLS, inline), f"{file} is given too; keep one of them")
        elif inline != "client_ca" and not both and not any(document.failed((*_TLS, n)) for n in (inline, file)):
            document.refuse(_TLS, f"{inline} is missing; give {file} or {inline}")
    _check_clients(document)
    _check_versions(document)
    _check_subset(document, "cipher_suites", SERVED_SUITES)
    _check_subset(document, "curve_preferences", SERVED_CURVES)


def _check_clients(document: Document[WebConfig]) -> None:
    kind_path = (*_TLS, "client_auth_type")
    kind = document.get(kind_path, "NoClientCert")
    has_ca = any(document.get((*_TLS, name)) is not None for name in _PAIRS[2])
    broken = document.failed(kind_path) or any(document.failed((*_TLS, name)) for name in _PAIRS[2])
    if kind in ("RequireAnyClientCert", "RequireClientCert"):
        message = "a certificate that nobody verifies proves nothing, and is not asked for here; use "
        document.refuse(kind_path, f"{message}RequireAndVerifyClientCert with client_ca_file")
    elif kind == "RequireAndVerifyClientCert" and not has_ca and not broken:
        message = "needs client_ca_file or client_ca; the system's certificate authorities are not asked"
        document.refuse(kind_path, message)
    elif kind in ("NoClientCert", "RequestClientCert") and has_ca and not broken:
        ca = next((*_TLS, name) for name in _PAIRS[2] if document.get((*_TLS, name)) is not None)
        document.refuse(ca, f"of no use with client_auth_type {kind}; set it to RequireAndVerifyClientCert")
    sans = (*_TLS, "client_allowed_sans")
    if document.get(sans):
        message = "the names in client certificates cannot be checked here; give a client_ca_file of a certificate "
        document.refuse(sans, f"{message}authority that signs for the allowed clients only")


def _check_versions(document: Document[WebConfig]) -> None:
    least, most = (*_TLS, "min_version"), (*_TLS, "max_version")
    if document.get(least) in ("TLS10", "TLS11"):
        document.refuse(least, "TLS 1.0 and 1.1 are not served, as they are broken; use TLS12 or TLS13")
    if document.get(most) in ("TLS10", "TLS11", "TLS12"):
        document.refuse(most, "TLS 1.3 is always served; leave max_version out, or use TLS13")


def _check_subset(document: Document[WebConfig], name: str, served: tuple[str, ...]) -> None:
    """A list that leaves out what is served cannot be honoured; one of TLS 1.2's suites has no meaning in TLS 1.3."""
    given: tuple[str, ...] = document.get((*_TLS, name)) or ()
    if not given or (name == "cipher_suites" and document.get((*_TLS, "min_version")) == "TLS13"):
        return
    if missing := [each for each in served if each not in given]:
        message = f"leaves out {', '.join(missing)}, which cannot be switched off here; leave {name} out"
        if name == "cipher_suites":
            message += ", or set min_version: TLS13"
        document.refuse((*_TLS, name), message)


def _check_headers(document: Document[WebConfig]) -> None:
    section: KeyPath = ("http_server_config", "headers")
    for name, accepted in _HEADERS.items():
        value = document.get((*section, name))
        if value and accepted and value not in accepted:
            document.refuse((*section, name), f"is not one of {', '.join(accepted)}")


def _check_users(document: Document[WebConfig]) -> None:
    for path in list(document.places):
        if path[:-1] == ("user_permissions",) and ("basic_auth_users", path[-1]) not in document.places:
            document.refuse(path, f"{shown(str(path[-1]))} is no user; basic_auth_users has the users")


def _check_tokens(document: Document[WebConfig]) -> None:
    first: dict[str, KeyPath] = {}
    kinds = ("token", "token_file", "token_sha256")
    for token in document.items(("bearer_tokens",)):
        given = [kind for kind in kinds if (*token, kind) in document.places]
        if document.is_mapping(token) and len(given) != 1:
            document.refuse(token, f"has {' and '.join(given) or 'no token'}; give exactly one of {', '.join(kinds)}")
        name = document.get((*token, "name"))
        if name is not None and (before := first.setdefault(name, token)) != token:
            document.refuse((*token, "name"), f"{shown(name)} is {key_path(before)} already; give it another name")
