"""`python -m mlexporter`."""

from mlexporter.cli import main

main(prog_name="mlexporter")
