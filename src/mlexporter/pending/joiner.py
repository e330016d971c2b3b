"""The thread that writes predictions and labels to the store: in batches, off the request path.

Requests hand over whole columns and go on; what the store cannot take in time is dropped and counted. Only who brings
labels waits for them to be kept, for a bounded time and in bounded number.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from mlexporter.pending.offers import Part
from mlexporter.pending.queue import OfferQueue
from mlexporter.pending.records import (
    Direct,
    Joined,
    Label,
    PendingStore,
    Prediction,
    StoreError,
    Totals,
    row_count,
)
from mlexporter.pending.runs import Run
from mlexporter.pending.sink import Sink, Tally
from mlexporter.pending.work import Health, LabelRequest, Work
from mlexporter.samples import Batch

LABEL_ROWS: Final = 200_000
WAITING_REQUESTS: Final = 6
"""Each holds one of the ten threads of the server; the others are for samples, scrapes and probes."""
CHUNK_ROWS: Final = 100_000
"""Predictions per write: each takes some 200 turns with Python's lock, however many rows it has. Columns of more are
large: their memory would be new each time."""
CHUNK_LABELS: Final = 5_000
"""Labels per write: they take more of the interpreter's time."""
LINGER_SECONDS: Final = 1.0
"""Predictions wait for company this long, unless a chunk is full or labels come: large writes are the cheap ones."""
FORGET_SECONDS: Final = 3.0
FORGET_CHANGES: Final = 100_000
"""After so many rows the store is held to its limit at once."""
FIRST_RETRY_SECONDS: Final = 0.1
LAST_RETRY_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


class Overloaded(StoreError):  # noqa: N818 - it says what is the case
    """Too many labels wait to be kept. It is worth a retry, later."""


class Joiner:
    """Writes what requests bring, in a thread that runs `run`.

    Args:
        store: used by that thread alone.
        sink: who counts.
        clock: Unix time in seconds.

    """

    def __init__(self, store: PendingStore, sink: Sink[Any], clock: Callable[[], float]) -> None:
        self._store = store
        self._sink = sink
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # under the lock
        self._offers = OfferQueue(self._lock)
        self._requests: deque[LabelRequest] = deque()
        self._submitting = 0
        self._dropped = self._errors = self._writes = 0
        self._write_seconds = 0.0
        self._failing_since: float | None = None
        self._stop_at: float | None = None
        self._running = False
        # of the thread
        self._forget_at = 0.0
        self._since_forget = 0

    # -- for requests -------------------------------------------------------------------------------------------------

    def offer(self, model: str, version: str, batch: Batch, now: float) -> None:
        """Have the predictions of a batch wait for their labels, those that have an id; its labels come with them.

        Never waits and never fails. What does not fit into the queue is dropped.

        Args:
            model: that predicted.
            version: of it.
            batch: its samples.
            now: Unix time.

        """
        with self._lock:
            if self._stop_at is not None:
                self._dropped += batch.size
                return
            if not self._offers.add(model, version, batch, now):
                return
        self._offers.pack(wait=False)
        with self._changed:
            if self._offers.rows >= CHUNK_ROWS:
                self._changed.notify_all()

    def submit(
        self,
        labels: Sequence[Label],
        predictions: Sequence[Prediction] = (),
        direct: Sequence[Direct] = (),
        timeout: float = 2.0,
    ) -> None:
        """Keep labels, and predictions that came with them, and wait until they are kept.

        After an error some of them may be kept, or will be: a label by id that comes again is not counted again.

        Args:
            labels: in the order in which they are to be taken.
            predictions: go before them.
            direct: outcomes without an id, to be counted only.
            timeout: seconds.

        Raises:
            Overloaded: too many others wait.
            StoreError: the store cannot be used, or took longer.

        """
        request = LabelRequest(labels, predictions, direct, threading.Event())
        with self._changed:
            self._admit(request, timeout)
            self._requests.append(request)
            self._submitting += 1
            self._changed.notify_all()
        try:
            while not (done := request.done.wait(timeout)) and not self._forsake(request):
                pass
        finally:
            with self._changed:
                self._submitting -= 1
                if request in self._requests:  # nobody waits for it any more, and its sender will send it again
                    self._requests.remove(request)
        if not done:
            raise StoreError(f"labels could not be kept within {timeout:g} s; send them again")
        if request.error is not None:
            raise StoreError(request.error)

    def _forsake(self, request: LabelRequest) -> bool:
        """Have outcomes without an id not counted, unless just that is going on."""
        with self._changed:
            request.forsaken = not request.counting
            return request.forsaken

    def _admit(self, request: LabelRequest, timeout: float) -> None:
        """Refuse at once what would wait in vain. Under the lock."""
        if self._stop_at is not None:
            raise StoreError("the server is stopping; send the labels again")
        if self._failing_since is not None and time.monotonic() - self._failing_since > timeout:
            raise StoreError("the store of pending predictions is down; send the labels later")
        rows = request.size + sum(other.size for other in self._requests)
        full = self._requests and rows > LABEL_ROWS
        if full or self._submitting >= WAITING_REQUESTS:
            raise Overloaded("too many labels wait to be kept; send them later")

    def health(self) -> Health:
        """How the store fares."""
        with self._changed:
            return Health(
                self._failing_since is None,
                self._errors,
                self._offers.rows,
                self._dropped + self._offers.dropped,
                self._writes,
                self._write_seconds,
            )

    def stop(self, timeout: float = 5.0) -> None:
        """Write what is queued, for at most this many seconds, and end the thread. What is left is dropped."""
        with self._changed:
            if self._stop_at is None:
                self._stop_at = time.monotonic() + timeout
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running, timeout)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Write what comes until `stop`."""
        with self._changed:
            self._running = True
        try:
            while self._wait():
                work = self._next()
                if work.predictions or work.labels or work.direct or work.bringing:
                    self._perform(work)
                self._finish(work)
                self._since_forget += row_count(work.predictions) + len(work.labels)
                if time.monotonic() >= self._forget_at or self._since_forget >= FORGET_CHANGES:
                    self._forget()
        finally:
            with self._changed:
                self._give_up()
                self._running = False
                self._changed.notify_all()

    def _wait(self) -> bool:
        """Wait for something to do; False where it is time to end."""
        with self._changed:
            if self._stop_at is None:
                self._changed.wait_for(
                    lambda: self._requests or self._offers.rows >= CHUNK_ROWS or self._stop_at is not None,
                    LINGER_SECONDS,
                )
            if self._stop_at is None:
                return True
            return bool(self._requests or self._offers) and time.monotonic() < self._stop_at

    def _next(self) -> Work:
        """The oldest labels and predictions, no more than one write takes."""
        work = Work()
        with self._changed:
            room = CHUNK_LABELS
            while self._requests and room > 0:
                request = self._requests[0]
                begin, request.taken = request.taken, request.taken + room
                work.bringing += [request] if request.direct and not begin else []
                work.predictions += request.predictions[begin : request.taken]
                work.labels += request.labels[begin : request.taken]
                room = request.taken - request.size
                if room >= 0:
                    work.finished.append(self._requests.popleft())
        for taken in self._offers.take(CHUNK_ROWS):
            if isinstance(taken, Run):
                work.predictions.append(predictions := taken.predictions())
                work.rows += len(taken)
                self._drop_rows(len(taken) - len(predictions.values))
            else:
                self._encode(taken, work)
        return work

    def _encode(self, part: Part, work: Work) -> None:
        """Add some rows of an offer."""
        offer, begin, end = part
        work.rows += end - begin
        try:
            dropped = offer.encode(begin, end, work.predictions, work.labels, work.direct)
        except Exception as error:  # noqa: BLE001 - a bug in one batch must not end the next ones
            dropped = end - begin
            _log.error("predictions cannot be encoded, and are dropped", exc_info=error)
        self._drop_rows(dropped)

    def _drop_rows(self, rows: int) -> None:
        """Count predictions that are given up."""
        if rows:
            with self._changed:
                self._dropped += rows

    def _perform(self, work: Work) -> None:
        """Write, again and again while the store fails; nothing of it is counted before it is kept."""
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                self._write(work)
            except StoreError as error:
                self._failed(error)
                self._counted(work.bringing)
                if not self._pause(pause):
                    self._drop(work, "the server is stopping; send the labels again")
                    return
                pause = min(2 * pause, LAST_RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - a bug in one write must not end the next ones
                rows = {"predictions": row_count(work.predictions), "labels": len(work.labels)}
                _log.error("predictions and labels cannot be joined, and are dropped", extra=rows, exc_info=error)
                self._drop(work, "labels could not be joined")
                return
            else:
                # the others have labels by id that are not written yet
                self._counted([request for request in work.bringing if request not in work.finished])
                return

    def _counted(self, requests: Sequence[LabelRequest]) -> None:
        """Nothing of these is being counted any more."""
        with self._changed:
            for request in requests:
                request.counting = False

    def _write(self, work: Work) -> None:
        tallies: list[Tally] = []

        def totals(joined: Joined) -> Totals:
            with self._changed:
                for request in work.bringing:
                    request.counting = not request.forsaken
            brought = [each for request in work.bringing if request.counting for each in request.direct]
            tallies.append(self._sink.tally(joined, [*work.direct, *brought]))
            return tallies[-1].totals

        begin = time.perf_counter()
        self._store.apply(work.predictions, work.labels, totals)
        elapsed = time.perf_counter() - begin
        with self._changed:
            self._writes += 1
            self._write_seconds += elapsed
        self._worked()
        self._sink.install(tallies[-1])

    def _finish(self, work: Work) -> None:
        """Take written or dropped rows off the queue, and tell who waits."""
        with self._changed:
            self._offers.written(work.rows)
        for request in work.finished:
            request.done.set()

    def _drop(self, work: Work, why: str) -> None:
        self._drop_rows(row_count(work.predictions))
        for request in work.finished:
            request.error = why

    def _give_up(self) -> None:
        """Drop what is left at the end. Under the lock."""
        self._dropped += self._offers.clear()
        for request in self._requests:
            request.error = "the server is stopping; send the labels again"
            request.done.set()
        self._requests.clear()

    def _forget(self) -> None:
        """Have the store give up what is too old or too much, and show what waits."""
        self._forget_at = time.monotonic() + FORGET_SECONDS
        self._since_forget = 0
        try:
            lost = self._store.forget(self._clock())
            self._sink.lost(lost)
            self._sink.waiting(self._store.waiting())
            self._worked()
        except StoreError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - a bug must not end the thread
            _log.error("what waits too long for its label cannot be given up", exc_info=error)

    def _failed(self, error: StoreError) -> None:
        with self._changed:
            self._errors += 1
            first = self._failing_since is None
            if first:
                self._failing_since = time.monotonic()
        if first:
            _log.warning("predictions and labels wait in memory: %s", error)

    def _worked(self) -> None:
        with self._changed:
            since, self._failing_since = self._failing_since, None
        if since is not None:
            _log.info("the store of pending predictions is back", extra={"seconds": round(time.monotonic() - since, 1)})

    def _pause(self, seconds: float) -> bool:
        """Wait before the next try; False where there is no time left for one."""
        with self._changed:
            if self._stop_at is None:
                self._changed.wait_for(lambda: self._stop_at is not None, seconds)
                return True
            left = self._stop_at - time.monotonic()
        if left > 0:
            time.sleep(min(seconds, left))
        return left > seconds
