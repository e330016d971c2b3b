"""What a client accepts, by its Accept and Accept-Encoding headers."""


def accepts(header: str, *names: str) -> bool:
    """Whether a header names one of these; with `q=0` it refuses it.

    prometheus_client has a function for that, which raises over a version that is none.

    >>> accepts("br;q=1.0, GZIP; q=0.5", "gzip"), accepts("gzip;q=0.0, br", "gzip"), accepts("*/*", "gzip")
    (True, False, False)

    """
    for part in header.lower().split(","):
        name, *parameters = part.split(";")
        if name.strip() in names:
            weights = [each.replace(" ", "").rstrip("0").rstrip(".") for each in parameters]
            return "q=" not in weights and "q=0" not in weights
    return False
