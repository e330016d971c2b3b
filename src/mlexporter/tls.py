"""Certificates and keys as they are handed to the server: whole, checked, and never on a disk."""

import contextlib
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

_PROBE_SECONDS: Final = 30.0
_PROBE: Final = "import sys; from mlexporter.http_worker import probe; probe(*sys.argv[1:])"


class Material(msgspec.Struct, frozen=True):
    """What TLS is served with: PEM of the server's chain and key, and of the authorities that sign for clients.

    A client without a certificate is refused if `required`; one with a certificate that no authority signed is always.
    """

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    required: bool
    minimum: Literal["tls1.2", "tls1.3"]

    def __repr__(self) -> str:
        return "Material(...)"  # it holds a private key


class Paths(msgspec.Struct, frozen=True):
    """Where a server in this process finds the parts of a `Material`."""

    certificate: str
    key: str
    client_ca: str | None
    descriptors: tuple[int, ...]


@contextlib.contextmanager
def as_files(material: Material) -> Iterator[Paths]:
    """Files of the material, in memory.

    The server takes names of files. It gets the very bytes that were checked, whatever has become of the files that
    they were read from, and inline keys never reach a disk.
    """
    opened: list[int] = []

    def file(content: bytes) -> str:
        descriptor = os.memfd_create("mlexporter-tls", os.MFD_CLOEXEC)
        opened.append(descriptor)
        os.write(descriptor, content)
        return f"/proc/self/fd/{descriptor}"

    try:
        certificate, key = file(material.certificate), file(material.key)
        client_ca = file(material.client_ca) if material.client_ca is not None else None
        yield Paths(certificate, key, client_ca, tuple(opened))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def problem_with(material: Material) -> tuple[Literal["cert", "key", "client_ca"], str] | None:
    """What is wrong with the material, and with which part of it; None where nothing is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if b"BEGIN CERTIFICATE" not in material.certificate:
        return "cert", "holds no certificate in PEM"
    if b"PRIVATE KEY-----" not in material.key:
        return "key", "holds no private key in PEM"
    if b"ENCRYPTED" in material.key:
        return "key", "the private key is encrypted, and there is nobody to ask for its password; decrypt it"
    with as_files(material) as files:
        try:
            context.load_cert_chain(files.certificate, files.key, password="")
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or "NO_VALID_PEM"
            if reason == "KEY_VALUES_MISMATCH":
                return "key", "the private key is not that of the certificate"
            return "cert", f"the certificate or its key cannot be used: {str(reason).lower().replace('_', ' ')}"
    if material.client_ca is not None:
        try:
            # bundles have comments, in any language
            context.load_verify_locations(cadata=material.client_ca.decode("ascii", "ignore"))
        except (ssl.SSLError, ValueError):
            return "client_ca", "holds no certificates in PEM"
    return _probed(material)


def _probed(material: Material) -> tuple[Literal["cert"], str] | None:
    """What the server itself says of the material, in a process of its own.

    It knows fewer kinds of keys than OpenSSL does, such as no P-521, and ends its process where it meets another one.
    """
    with as_files(material) as files:
        arguments = [files.certificate, files.key, files.client_ca or "", material.minimum]
        done = subprocess.run(  # noqa: S603 - this very Python
            [sys.executable, "-P", "-c", _PROBE, *arguments],  # nothing is imported from the current folder
            pass_fds=files.descriptors,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    if done.returncode == 0:
        return None
    said = [line for line in done.stderr.decode(errors="replace").splitlines() if "Err` value:" in line]
    reason = said[0].partition("Err` value: ")[2] if said else "for a reason that it does not give"
    return "cert", f"the certificate, its key or the client CA is refused by the server: {reason[:300]}"
