"""Sends a request, once. Redirects are never followed: a token goes to the configuration's host and to no other."""

import http.client
import urllib.error
import urllib.request
from typing import Final

from mlexporter.trigger.actions import USER_AGENT, Request, Result
from mlexporter.trigger.token import TokenError, read_token

_LONGEST_WAIT: Final = 3600.0  # seconds that another side may ask for


def send(request: Request) -> Result:
    """Send a request. Answers of 5xx and 429, and connections that fail, are worth another attempt; no other is."""
    try:
        headers = dict(request.headers) | {"User-Agent": USER_AGENT}
        if request.token_file is not None:
            headers["Authorization"] = f"Bearer {read_token(request.token_file)}"
        # the scheme is http or https: the configuration takes no other
        outgoing = urllib.request.Request(  # noqa: S310
            request.url, data=request.body, headers=headers, method=request.method
        )
        with _opener().open(outgoing, timeout=request.timeout) as answer:
            return _judged(answer.status, answer.headers.get("Retry-After", ""), request)
    except TokenError as error:
        return Result("failed", f"no token: {error}")
    except (OSError, http.client.HTTPException) as error:
        # of a URLError the reason, of others the kind, which for some is all that they say
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return Result("again", f"no answer: {str(reason) or type(reason).__name__}")
    except ValueError as error:
        return Result("failed", f"cannot be sent: {error}")


def _judged(status: int, retry_after: str, request: Request) -> Result:
    if 200 <= status < 300:
        return Result("succeeded", f"answered {status}")
    if status in request.done:
        return Result("succeeded", f"answered {status}: it was started before")
    if status == 429 or status >= 500:
        wait = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
        return Result("again", f"answered {status}", min(wait, _LONGEST_WAIT))
    if 300 <= status < 400:
        return Result("failed", f"answered {status}, and redirects are not followed; give the address it leads to")
    return Result("failed", f"answered {status}")


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS, through a proxy where the environment names one; no redirects, no files, no FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()):
        opener.add_handler(handler)
    return opener
