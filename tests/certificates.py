"""Certificates for the tests of TLS."""

from pathlib import Path

import trustme

from mlexporter.tls import Material


class Authority:
    """A certificate authority that signs for servers on this machine and for clients."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.pem: bytes = self.ca.cert_pem.bytes()

    def server(self, *names: str) -> tuple[bytes, bytes]:
        """Chain and key of a server, in PEM."""
        return self._pair(*(names or ("localhost", "127.0.0.1")))

    def client(self, name: str = "client@example.org") -> tuple[bytes, bytes]:
        return self._pair(name)

    def _pair(self, *names: str) -> tuple[bytes, bytes]:
        issued = self.ca.issue_cert(*names)
        return b"".join(part.bytes() for part in issued.cert_chain_pems), issued.private_key_pem.bytes()

    def material(self, client_ca: bytes | None = None, *, required: bool = False) -> Material:
        return Material(*self.server(), client_ca, required, "tls1.2")


def write_pair(folder: Path, pair: tuple[bytes, bytes], name: str = "server") -> None:
    """NAME.crt and NAME.key, each replaced at once."""
    for suffix, content in zip((".crt", ".key"), pair, strict=True):
        new = folder / f"{name}{suffix}.new"
        new.write_bytes(content)
        new.replace(folder / f"{name}{suffix}")
