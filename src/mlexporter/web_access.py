"""What holds for requests now, by the web configuration, which is read again whenever one of its files has changed."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from mlexporter.authentication import Authenticator, PasswordChecks
from mlexporter.config_document import ConfigError
from mlexporter.guard import Rules
from mlexporter.rate_limit import RateLimiter
from mlexporter.telemetry import Telemetry
from mlexporter.tls import Material
from mlexporter.web_files import Loaded, WebFiles

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0


class WebAccess:
    """The rules for requests.

    Args:
        files: of the web configuration.
        loaded: what they came to at the start.
        telemetry: counts what goes wrong later.
        held_up: see `crew`.
        clock: monotonic seconds.

    """

    def __init__(
        self,
        files: WebFiles,
        loaded: Loaded,
        telemetry: Telemetry,
        held_up: Callable[[], AbstractContextManager[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._loaded = loaded
        self.telemetry = telemetry
        self._clock = clock
        self._checks = PasswordChecks(held_up)
        self._rules = self._rules_of(loaded, None)
        self._seen = files.stamp
        self._renew: Callable[[Material], None] = lambda _: None
        self._stopped = threading.Event()
        telemetry.web_config_loaded(successful=True)

    @property
    def tls(self) -> Material | None:
        """What TLS is served with."""
        return self._loaded.tls

    def rules(self) -> Rules:
        """What holds for requests now."""
        return self._rules

    def on_new_tls(self, renew: Callable[[Material], None]) -> None:
        """Have something called with every new certificate, key or client CA."""
        self._renew = renew

    def watch(self) -> None:
        """Look after the files until `stop`; to be run in a thread of its own."""
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:
                logger.error("looking after the web configuration failed", exc_info=True)

    def stop(self) -> None:
        """End `watch`."""
        self._stopped.set()

    def look(self) -> None:
        """Read the files again if one has changed, and has not since the last look: it may be being written."""
        now = self._files.fingerprint()
        changed, self._seen = now != self._seen, now
        if changed or now == self._files.stamp:
            return
        try:
            self._apply(self._files.load())
        except ConfigError as error:
            logger.warning("the new web configuration is refused; the old one stays", extra={"error": str(error)})
            self.telemetry.web_config_loaded(successful=False)
        except BaseException:
            self._files.stamp = ()  # it may be well, so try again
            raise
        else:
            logger.info("read the web configuration again")
            self.telemetry.web_config_loaded(successful=True)

    def _apply(self, loaded: Loaded) -> None:
        before = self._loaded
        if (loaded.tls is None) != (before.tls is None):
            raise self._files.refusal("tls_server_config", "TLS cannot be switched on or off without a restart")
        # The certificate first: it is what may fail.
        if loaded.tls is not None and loaded.tls != before.tls:
            self._renew(loaded.tls)
        self._rules = self._rules_of(loaded, before)
        self._loaded = loaded
        self._checks.keep_only(hashed.encode() for hashed in loaded.users.values())

    def _rules_of(self, loaded: Loaded, before: Loaded | None) -> Rules:
        limit = loaded.rate_limit
        limiter = RateLimiter(limit.interval, limit.burst, self._clock) if limit.interval else None
        if before is not None and before.rate_limit == limit:
            limiter = self._rules.limiter
        authenticator = Authenticator(loaded.users, loaded.permissions, loaded.tokens, self._checks)
        return Rules(authenticator, loaded.headers, limiter, limit.interval)
