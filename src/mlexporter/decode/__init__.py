"""Wire formats: bytes to batches, one module per format. Nothing here knows models, baselines or state.

Whatever the bytes, `decode` gives `Decoded` or raises `DecodeError`, never anything else.
"""

from collections.abc import Callable, Mapping
from typing import Final

from mlexporter.decode import ndjson, samples_json
from mlexporter.decode.compression import decompress, is_gzip
from mlexporter.decode.rows import REJECTIONS_LISTED
from mlexporter.samples import Decoded, DecodeError, Reason

__all__ = ["FORMATS", "REJECTIONS_LISTED", "decode", "decompress", "is_gzip"]

FORMATS: Final[Mapping[str, Callable[[bytes], Decoded]]] = {
    "application/json": samples_json.decode,
    "application/x-ndjson": ndjson.decode,
    "application/ndjson": ndjson.decode,
    "application/jsonl": ndjson.decode,
}


def decode(body: bytes, content_type: str) -> Decoded:
    """Decode a request body by its media type; a body without one is taken as JSON.

    Raises:
        DecodeError: the type is unknown, or the framing of the body is broken.

    """
    media_type = content_type.partition(";")[0].strip().lower() or "application/json"
    decoder = FORMATS.get(media_type)
    if decoder is None:
        raise DecodeError(
            Reason.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {media_type[:100]!r} is not known; accepted are application/json and application/x-ndjson",
        )
    return decoder(body)
