"""The description of the HTTP API that the exporter serves: OpenAPI 3.1, with its schemas made from types.

It is imported with the first request for it: who never asks pays nothing.
"""

from mlexporter.openapi.document import document

__all__ = ["document"]
