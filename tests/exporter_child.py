"""`mlexporter serve` with its state written after other pauses than 30 seconds: seconds, then its options."""

import sys

from mlexporter import persistence
from mlexporter.cli import main

if __name__ == "__main__":
    persistence.SECONDS = float(sys.argv[1])  # type: ignore[misc]
    main(["serve", *sys.argv[2:]])
