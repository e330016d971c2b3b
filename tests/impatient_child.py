"""`mlexporter serve` that waits less for slow clients: so many seconds for headers, for a silence, and for a body."""

import sys

from mlexporter import http_worker
from mlexporter.cli import main
from mlexporter.slow_clients import BodyReader

if __name__ == "__main__":
    headers, silence, body = map(float, sys.argv[1:4])
    http_worker.HEADER_TIMEOUT_MS = int(headers * 1000)  # type: ignore[misc]
    BodyReader.__init__.__kwdefaults__.update(timeout=silence, longest=body)  # type: ignore[union-attr]
    main(["serve", *sys.argv[4:]])
