"""Wire formats: bytes to batches, one module per format. Nothing here knows models, baselines or state.

Whatever the bytes, `decode` gives `Decoded` and `decode_labels` gives `DecodedLabels`, or they raise `DecodeError`,
never anything else.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from mlexporter.decode import labels_json, ndjson, samples_json
from mlexporter.decode.compression import decompress, is_gzip
from mlexporter.decode.forms import REJECTIONS_LISTED
from mlexporter.samples import Decoded, DecodedLabels, DecodeError, Reason

__all__ = ["REJECTIONS_LISTED", "decode", "decode_labels", "decompress", "is_gzip"]

_Result = TypeVar("_Result")

_LINES: Final = frozenset(("application/x-ndjson", "application/ndjson", "application/jsonl"))


def decode(body: bytes, content_type: str) -> Decoded:
    """Decode a body of samples by its media type; a body without one is taken as JSON.

    Raises:
        DecodeError: the type is unknown, or the framing of the body is broken.

    """
    return _decoder(content_type, samples_json.decode, ndjson.decode)(body)


def decode_labels(body: bytes, content_type: str) -> DecodedLabels:
    """Decode a body of labels by its media type; a body without one is taken as JSON.

    Raises:
        DecodeError: the type is unknown, or the framing of the body is broken.

    """
    return _decoder(content_type, labels_json.decode, ndjson.decode_labels)(body)


def _decoder(
    content_type: str, of_json: Callable[[bytes], _Result], of_lines: Callable[[bytes], _Result]
) -> Callable[[bytes], _Result]:
    media_type = content_type.partition(";")[0].strip().lower() or "application/json"
    if media_type == "application/json":
        return of_json
    if media_type in _LINES:
        return of_lines
    raise DecodeError(
        Reason.UNSUPPORTED_MEDIA_TYPE,
        f"Content-Type {media_type[:100]!r} is not known; accepted are application/json and application/x-ndjson",
    )
