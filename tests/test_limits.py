"""docs/limits.md: each of its rows has a test, its numbers are those of the code, its metrics and reasons exist."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from certificates import Authority
from mlexporter import (
    authentication,
    backlog,
    categories,
    connections,
    decode,
    http_worker,
    learning,
    metrics,
    outcome_profile,
    registry,
    serving,
    store,
)
from mlexporter.config import Config, LabelStoreConfig, LimitsConfig
from mlexporter.decode import compression, forms, label_rows, rows
from mlexporter.http_worker import HEADER_BYTES, Worker, listen
from mlexporter.learning import Learner
from mlexporter.pending import joiner, offers, queue, runs
from mlexporter.registry import Version
from mlexporter.samples import Batch, DecodeError, Reason
from mlexporter.tls import Material

ROOT = Path(__file__).parent.parent
DEADLINE = 30.0

# of each row of docs/limits.md: the tests that hold it
TESTS = {
    "connections at a time": "test_connections.py::test_of_too_many_the_most_silent_go "
    "e2e/test_overload.py::test_connections_that_say_nothing_make_room",
    "requests on a connection": "e2e/test_bad_input.py::test_requests_may_follow_each_other_without_waiting",
    "path, and headers of a request": "test_limits.py::test_headers_are_bounded "
    "e2e/test_bad_input.py::test_broken_http",
    "number of headers": "test_limits.py::test_headers_are_few",
    "time for the headers, and between requests": "test_limits.py::test_headers_have_to_come "
    "e2e/test_bad_input.py::test_clients_that_stall_are_told_so_in_the_end",
    "time for a TLS handshake": "test_limits.py::test_a_handshake_has_to_come",
    "silence in the middle of a body": "e2e/test_bad_input.py::test_clients_that_stall_are_told_so_in_the_end",
    "time for a body, however steadily it comes": (
        "test_slow_clients.py::test_a_client_that_sends_drops_is_ended_after_a_time "
        "e2e/test_hostile_http.py::test_bodies_that_come_drop_by_drop"
    ),
    "reading of an answer": "test_connections.py::test_who_does_not_read_is_cut_off "
    "e2e/test_overload.py::test_a_page_that_nobody_reads_holds_up_nobody",
    "requests, all clients together": "test_guard.py::test_beyond_the_limit_requests_are_refused_and_probes_are_not",
    "passwords being checked": "test_authentication.py::test_one_password_is_checked_at_a_time_and_few_may_wait",
    "wait before a request is taken on": "test_backlog.py::test_it_is_late_where_many_wait "
    "e2e/test_overload.py::test_what_is_acknowledged_is_counted_and_nothing_else",
    "bodies being read at once": "test_slow_clients.py::test_only_so_many_bodies_are_read_at_once",
    "bodies over 64 KiB, or compressed, being decoded at once": (
        "test_server.py::test_large_and_compressed_bodies_wait_for_their_turn"
    ),
    "requests with labels that wait to be written": "test_pending_joiner.py::test_a_storm_of_labels_is_refused_at_once "
    "test_pending_joiner.py::test_labels_are_bounded_in_rows",
    "time for labels to be written": "test_pending_joiner.py::test_labels_that_took_too_long_may_come_again",
    "samples that wait to be put into bins, per version": "test_store.py::test_what_waits_is_bounded",
    "predictions that wait to be written": "test_pending_joiner.py::test_the_queue_is_bounded_in_bytes "
    "e2e/test_feedback_stores.py::test_queue_that_is_full",
    "predictions and labels that wait for each other": "e2e/test_feedback_stores.py::test_more_than_may_wait",
    "size of a body, as sent and decompressed": "test_decode.py::test_the_limit_holds_for_what_comes_out "
    "test_server.py::test_too_large_is_said_before_reading",
    "members of a gzip body": "test_decode.py::test_gzip_of_many_members",
    "gzip within gzip": "test_decode.py::test_gzip_within_gzip_is_opened_once",
    "nesting of JSON": "test_limits.py::test_nesting_is_bounded "
    "e2e/test_bad_input.py::test_a_refused_request_costs_nobody_else_anything",
    "errors listed in an answer": "test_server.py::test_at_most_20_errors_are_listed_and_all_are_counted",
    "different reasons of the model's errors": "test_decode.py::test_of_many_reasons_of_errors_the_first_are_named "
    "test_limits.py::test_reasons_of_errors_are_few",
    "name of a model or version": "test_decode.py::test_bad_names",
    "`id` of a sample": "test_limits.py::test_long_ids_are_dropped",
    "`id` of a label, a label or class in text": "test_decode_labels.py::test_one_bad_label_costs_only_itself",
    "prediction that waits for its label": "test_pending_joiner.py::test_huge_values_do_not_wait",
    "text in a column": "e2e/test_bad_input.py::test_texts_of_a_megabyte",
    "name of a column that is learned": "test_limits.py::test_columns_with_long_names_are_not_learned",
    "models that the configuration does not name": "test_registry.py::test_max_models_counts_discovered_ones "
    "e2e/test_bad_input.py::test_names_cannot_grow_the_page",
    "versions of a model at a time": "test_registry.py::test_max_versions_and_retirement_of_silent_ones",
    "columns of a model that is learned": "test_limits.py::test_columns_beyond_the_limit_are_not_learned",
    "columns of a request": "e2e/test_bad_input.py::test_ten_thousand_unknown_columns",
    "series on the page": "test_cli.py::test_models_that_take_too_many_series_are_refused_at_the_start "
    "test_store.py::test_max_series_refuses_models_versions_and_baselines",
    "classes of a model": "test_config.py::test_bad_file",
}
NUMBERS = {
    "connections at a time": (connections.MOST,),
    "path, and headers of a request": (HEADER_BYTES >> 10,),
    "time for the headers, and between requests": (http_worker.HEADER_TIMEOUT_MS // 1000,),
    "reading of an answer": (connections.UNREAD_BYTES >> 10, int(connections.UNREAD_SECONDS)),
    "wait before a request is taken on": (
        round(1000 * backlog.LATE_SECONDS),
        backlog.FEW,
        round(1000 * backlog.WORK_SECONDS),
    ),
    "bodies being read at once": (serving.BODIES_AT_ONCE,),
    "requests with labels that wait to be written": (joiner.WAITING_REQUESTS, joiner.LABEL_ROWS),
    "samples that wait to be put into bins, per version": (
        store.FOLD_ROWS,
        store.FOLD_BATCHES,
        store.FOLD_BYTES >> 20,
    ),
    "predictions that wait to be written": (queue.QUEUE_ROWS, queue.QUEUE_BYTES >> 20),
    "predictions and labels that wait for each other": (LabelStoreConfig().max_rows,),
    "size of a body, as sent and decompressed": (LimitsConfig().max_body_bytes >> 20,),
    "members of a gzip body": (compression._MOST_MEMBERS,),
    "errors listed in an answer": (decode.REJECTIONS_LISTED,),
    "different reasons of the model's errors": (rows.REASONS_NAMED, registry.MAX_ERROR_REASONS),
    "name of a model or version": (forms.NAME_LENGTH,),
    "`id` of a sample": (runs.ID_LENGTH,),
    "`id` of a label, a label or class in text": (label_rows.TEXT_LENGTH,),
    "prediction that waits for its label": (offers.VALUE_LENGTH >> 10,),
    "text in a column": (categories.LONGEST, categories.LABEL_LENGTH),
    "name of a column that is learned": (learning.LONGEST_NAME,),
    "models that the configuration does not name": (Config().discovery.max_models,),
    "versions of a model at a time": (LimitsConfig().max_versions,),
    "columns of a model that is learned": (Config().discovery.max_columns,),
    "series on the page": (LimitsConfig().max_series,),
    "classes of a model": (outcome_profile.MAX_CLASSES,),
    "passwords being checked": (1, authentication.PLACES - 1, authentication.FOLLOWERS),
}


def documented() -> dict[str, list[str]]:
    """The cells of each row of docs/limits.md but the first, by the first."""
    found = {}
    for line in (ROOT / "docs" / "limits.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| limit "):
            first, *others = [cell.strip() for cell in line.strip("|").split(" | ")]
            found[first] = others
    return found


def test_each_limit_has_a_test() -> None:
    assert list(documented()) == list(TESTS)
    for where in " ".join(TESTS.values()).split():
        file, _, name = where.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), where


@pytest.mark.parametrize("limit", NUMBERS)
def test_its_numbers_are_those_of_the_code(limit: str) -> None:
    default = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", documented()[limit][0])]
    assert [number for number in default if number in NUMBERS[limit]] == list(NUMBERS[limit])


def test_what_counts_it_exists() -> None:
    names = {metric.name for metric in metrics.ALL}
    for limit, cells in documented().items():
        for counted in re.findall(r"`(\w+)[`{]", cells[-1]):
            assert counted in names or counted in list(Reason), f"{limit}: {counted}"


# -- limits that are tested nowhere else -------------------------------------------------------------------------------


@contextmanager
def worker(tls: Material | None = None) -> Iterator[Callable[[], socket.socket]]:
    """Connects to a server that answers everything."""

    def handle(protocol: Any, _: dict[str, Any]) -> None:
        protocol.response_bytes(200, [("Content-Length", "2")], b"ok")

    with listen("127.0.0.1", 0) as listener:
        found = Worker(listener, handle, threads=2, tls=tls)
        try:
            yield lambda: socket.create_connection(listener.getsockname(), timeout=DEADLINE)
        finally:
            found.stop()
            assert found.ended.wait(DEADLINE)
            found.close()


def answer_to(connect: Callable[[], socket.socket], request: bytes) -> bytes:
    """The status of an answer; empty where the connection was closed without one."""
    with connect() as connection:
        try:
            connection.sendall(request)
            return connection.recv(4096)[9:12]
        except (BrokenPipeError, ConnectionResetError):
            return b""


def test_headers_are_bounded() -> None:
    with worker() as connect:
        for size, codes in ((HEADER_BYTES - 1000, {b"200"}), (2 * HEADER_BYTES, {b"431", b"414", b""})):
            name = b"x" * size
            assert answer_to(connect, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + name + b"\r\n\r\n") in codes
            assert answer_to(connect, b"GET /" + name + b" HTTP/1.1\r\nHost: x\r\n\r\n") in codes


def test_headers_are_few() -> None:
    with worker() as connect:
        for number, code in ((99, b"200"), (100, b"431")):
            assert answer_to(connect, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * number + b"\r\n") == code


def test_headers_have_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_worker, "HEADER_TIMEOUT_MS", 200)
    with worker() as connect:
        for sent in (b"GET / HTTP/1.1\r\nHo", b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
            with connect() as connection:
                connection.sendall(sent)
                while connection.recv(4096):  # an answer, perhaps, and then the end
                    pass


def test_a_handshake_has_to_come() -> None:
    with worker(Authority().material()) as connect, connect() as connection:
        connection.sendall(b"\x16\x03\x01")
        assert connection.recv(4096) == b""


@pytest.mark.parametrize("nan", [b"", b", NaN"])
def test_nesting_is_bounded(nan: bytes) -> None:
    """Also for the parser that knows NaN."""
    assert decode.decode(b'{"features": {"a": ' + b"[" * 500 + b"1" + nan + b"]" * 500 + b"}}", "").batches[0].size == 1
    with pytest.raises(DecodeError) as caught:
        decode.decode(b'{"features": {"a": ' + b"[" * 5000 + b"1" + nan + b"]" * 5000 + b"}}", "")
    assert caught.value.reason is Reason.INVALID_JSON


def test_reasons_of_errors_are_few() -> None:
    version = Version("m", "1", None, configured=False)
    for number in range(25):
        version.accept(Batch(1, {}, errors=1, error_reasons={f"r{number}": 1}), 0.0)
    assert version.errors == 25
    assert version.error_reasons == {f"r{number}": 1 for number in range(10)} | {"__other__": 15}


def test_long_ids_are_dropped() -> None:
    def encoded(name: str) -> tuple[int, int]:
        predictions: list[Any] = []
        offer = offers.Offer.of("m", "1", Batch(1, {}, prediction=["yes"], ids=[name]), 0.0)
        assert offer is not None
        return offer.encode(0, 1, predictions, [], []), len(predictions)

    assert encoded("x" * 256) == (0, 1)
    assert encoded("x" * 257) == (1, 0)
    run, ids = runs.Run("m", "1"), ["x" * 256, "x" * 257, "ß" * 256, "ß" * 257]
    content = runs.packed([(Batch(4, {}, prediction=[1.0] * 4, ids=ids), 0.0)])
    assert content is not None
    run.add(content)
    assert [*run.predictions().ids.names()] == ["x" * 256, "ß" * 256]


def test_columns_with_long_names_are_not_learned() -> None:
    learner = Learner(10)
    learner.add(Batch(2, {"x" * 256: [1, 2], "y" * 257: [1, None]}))
    assert [column.name for column in learner.learn("m", "1", {}).columns] == ["x" * 256]
    assert learner.unknown == 1


def test_columns_beyond_the_limit_are_not_learned() -> None:
    learner = Learner(2)
    learner.add(Batch(1, {"a": [1], "b": [2], "c": [3]}))
    assert [column.name for column in learner.learn("m", "1", {}).columns] == ["a", "b"]
    assert learner.unknown == 1
