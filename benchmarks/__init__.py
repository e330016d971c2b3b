"""Benchmarks: every budget printed beside what is measured, and a peer's figure from the same run."""
