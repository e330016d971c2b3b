"""The Helm charts, and what keeps them in step with the rest of the project."""
