"""A web configuration with the files that it names: read as one, and refused as one."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from mlexporter.authentication import Permissions, Token
from mlexporter.config_document import ConfigError, ConfigProblem, Document, KeyPath
from mlexporter.tls import Material, problem_with
from mlexporter.web_config import ALL_PERMISSIONS, MAX_TOKEN, MIN_TOKEN, RateLimit, TlsConfig, WebConfig, read_document

_MAX_FILE: Final = 256 * 1024
_TLS: Final[KeyPath] = ("tls_server_config",)
_PARTS: Final = ("cert", "key", "client_ca")


class Loaded(msgspec.Struct, frozen=True):
    """What a web configuration comes to."""

    tls: Material | None
    users: Mapping[str, str]
    permissions: Mapping[str, Permissions]
    tokens: tuple[Token, ...]
    headers: tuple[tuple[str, str], ...]
    rate_limit: RateLimit

    def __repr__(self) -> str:
        return "Loaded(...)"  # it holds secrets


class WebFiles:
    """A web configuration and the files that it names.

    Args:
        path: of the configuration.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp: tuple[object, ...] = ()
        """The fingerprint of what was loaded last."""
        self._named: tuple[Path, ...] = ()

    def load(self) -> Loaded:
        """Read it all.

        Raises:
            ConfigError: with all that is wrong.

        """
        # Stamped before they are read: what changes in between is another fingerprint.
        self.stamp = self.fingerprint()
        own = self.stamp[:1]
        document = read_document(self.path)
        self._named = tuple(self.path.parent / path for path in _paths_in(document))
        self.stamp = (*own, *self.fingerprint()[1:])
        tokens = _tokens_of(document, self.path.parent)
        tls = _tls_of(document, self.path.parent)
        settings = document.result()
        return Loaded(
            tls=tls,
            users=settings.basic_auth_users,
            permissions={
                name: frozenset(settings.user_permissions.get(name, ALL_PERMISSIONS))
                for name in settings.basic_auth_users
            },
            tokens=tokens,
            headers=tuple((name, value) for name, value in settings.http_server_config.headers.items() if value),
            rate_limit=settings.rate_limit,
        )

    def fingerprint(self) -> tuple[object, ...]:
        """What changes with any of the files, as far as the last `load` came to know them."""
        return tuple(_stamp(path) for path in (self.path, *self._named))

    def refusal(self, key: str, message: str) -> ConfigError:
        """The error that refuses the configuration for something other than what stands in it."""
        return ConfigError(str(self.path), (ConfigProblem(key, 0, 0, message),))


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def _paths_in(document: Document[WebConfig]) -> list[Path]:
    return [value for value in document.values.values() if isinstance(value, Path)]


def _content(document: Document[WebConfig], path: KeyPath, folder: Path) -> bytes | None:
    """The content of the file that is named at a key; None where there is none, which is noted."""
    name = document.get(path)
    if name is None:
        return None
    try:
        with (folder / name).open("rb") as file:
            content: bytes = file.read(_MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "bad name"
        document.refuse(path, f"{folder / name} cannot be read: {reason}")
        return None
    if len(content) > _MAX_FILE:
        document.refuse(path, f"{folder / name} is larger than {_MAX_FILE} bytes")
        return None
    return content


def _tls_of(document: Document[WebConfig], folder: Path) -> Material | None:
    """Certificate and keys; None where there are none, or they are refused, which is noted."""
    if not document.is_mapping(_TLS):
        return None
    parts: dict[str, bytes | None] = {}
    for part in _PARTS:
        inline = document.get((*_TLS, part))
        parts[part] = _content(document, (*_TLS, f"{part}_file"), folder) if inline is None else inline.encode()
    settings = document.get(_TLS)
    if document.problems or not isinstance(settings, TlsConfig):
        return None  # to look into what is read for another reason than it is used would mislead
    assert parts["cert"] is not None
    assert parts["key"] is not None
    material = Material(
        certificate=parts["cert"],
        key=parts["key"],
        client_ca=parts["client_ca"],
        required=settings.client_auth_type == "RequireAndVerifyClientCert",
        minimum="tls1.3" if settings.min_version == "TLS13" else "tls1.2",
    )
    problem = problem_with(material)
    if problem is None:
        return material
    part, message = problem
    document.refuse(next((*_TLS, key) for key in (f"{part}_file", part) if (*_TLS, key) in document.places), message)
    return None


def _tokens_of(document: Document[WebConfig], folder: Path) -> tuple[Token, ...]:
    found = []
    for item in document.items(("bearer_tokens",)):
        permissions = frozenset(document.get((*item, "permissions")) or ())
        inline, digest = document.get((*item, "token")), document.get((*item, "token_sha256"))
        path = (*item, "token_file")
        content = inline.encode() if inline is not None else _content(document, path, folder)
        if content is not None:
            token = content.strip()
            if not MIN_TOKEN <= len(token) <= MAX_TOKEN or not all(0x21 <= byte < 0x7F for byte in token):
                accepted = f"a token has {MIN_TOKEN} to {MAX_TOKEN} characters of printable ASCII without blanks"
                document.refuse(path, f"{folder / document.get(path)} holds no token; {accepted}")
            found.append(Token(hashlib.sha256(token).digest(), permissions))
        elif digest is not None:
            found.append(Token(bytes.fromhex(digest), permissions))
    return tuple(found)
