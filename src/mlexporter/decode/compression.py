"""gzip bodies, known by their header or by their first bytes; the limit holds for what comes out."""

import zlib
from typing import Final

from mlexporter.samples import DecodeError, Reason

_MAGIC: Final = b"\x1f\x8b"
# gzip members may follow each other, as in a file that was appended to; empty ones cost a sender nothing
_MOST_MEMBERS: Final = 10_000
_CHUNK: Final = 65536


def is_gzip(body: bytes) -> bool:
    """Whether a body begins like gzip."""
    return body.startswith(_MAGIC)


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before compression.

    Args:
        body: as it was sent.
        encoding: the Content-Encoding header, or an empty text. Some loggers compress without saying so, so a body
            that begins like gzip is gzip.
        limit: in bytes, for the decompressed body; no more than this is ever decompressed.

    Raises:
        DecodeError: it is larger, broken, cut short, or compressed in another way.

    """
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise DecodeError(
            Reason.UNSUPPORTED_MEDIA_TYPE, f"Content-Encoding {encoding[:100]!r} is not known; accepted is gzip"
        )
    if not is_gzip(body):
        if "gzip" in encoding and body:
            raise DecodeError(Reason.INVALID_GZIP, "Content-Encoding is gzip, but the body does not begin like gzip")
        if len(body) > limit:
            raise too_large(limit)
        return body
    try:
        return _gunzip(memoryview(body), limit)
    except zlib.error as error:
        raise DecodeError(Reason.INVALID_GZIP, f"the body is not valid gzip: {error}") from error


def _gunzip(body: memoryview, limit: int) -> bytes:
    parts: list[bytes] = []
    room, at = limit, 0
    for _ in range(_MOST_MEMBERS):
        inflater = zlib.decompressobj(wbits=31)
        while not inflater.eof:
            if at >= len(body):
                raise DecodeError(Reason.INVALID_GZIP, "the gzip body ends too early")
            # in chunks, for what is not used of one is copied: all the rest of the body for each member
            chunk = body[at : at + _CHUNK]
            parts.append(inflater.decompress(chunk, room + 1))
            at += len(chunk) - len(inflater.unused_data)
            room -= len(parts[-1])
            if room < 0:
                raise too_large(limit)
        if at == len(body):
            return b"".join(parts)
    raise DecodeError(Reason.INVALID_GZIP, f"the gzip body has more than {_MOST_MEMBERS} members")


def too_large(limit: int) -> DecodeError:
    """The error for a body over the limit."""
    return DecodeError(
        Reason.BODY_TOO_LARGE, f"the body is larger than limits.max_body_bytes ({limit} bytes); send smaller batches"
    )
