"""Where a server listens: addresses in Prometheus manner."""

import socket


def split_address(address: str) -> tuple[str, int]:
    """Host and port of a listen address in Prometheus manner: `:9877`, `127.0.0.1:9877`, `[::1]:9877`.

    Raises:
        ValueError: it is no such address.

    >>> split_address(":9877"), split_address("[::1]:80")
    (('0.0.0.0', 9877), ('::1', 80))

    """
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is no address; accepted are HOST:PORT and :PORT, with a port from 1 to 65535")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{address!r} is no address; an IPv6 host stands in brackets, as in [::1]:9877")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - all interfaces is what :PORT means


def ip_of(host: str) -> str:
    """The IP address of a host, an IPv4 one if it has any, as `localhost` may have both.

    Raises:
        OSError: it has none.

    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return str(min(found, key=lambda each: each[0] != socket.AF_INET)[4][0])


def problem_with(host: str, port: int) -> str | None:
    """Why nothing can listen there; None where it can."""
    try:
        ip = ip_of(host)
        family, kind, protocol, _, address = socket.getaddrinfo(ip, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return f"cannot listen on {host}:{port}: {error.strerror or error}"
    return None
