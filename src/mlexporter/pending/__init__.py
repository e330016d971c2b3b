"""Predictions that wait for their true label, and the join of the two."""
