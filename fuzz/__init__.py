"""Coverage-guided fuzzing of everything that parses what others send or write: `python -m fuzz --help`."""
