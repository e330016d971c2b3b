"""A token bucket."""

import threading
from collections.abc import Callable


class RateLimiter:
    """Lets `burst` requests through at once, and one more each `interval` seconds.

    Args:
        interval: seconds.
        burst: requests; with 0 none ever gets through.
        clock: monotonic seconds.

    """

    def __init__(self, interval: float, burst: int, clock: Callable[[], float]) -> None:
        self._interval = interval
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._since = clock()
        self._lock = threading.Lock()

    def allow(self) -> bool:
        """Whether a request that comes now may go through."""
        with self._lock:
            now = self._clock()
            self._left = min(self._burst, self._left + (now - self._since) / self._interval)
            self._since = now
            if self._left < 1:
                return False
            self._left -= 1
            return True
