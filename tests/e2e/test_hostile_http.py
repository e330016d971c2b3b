"""HTTP that no honest client sends, at a real exporter: answered or dropped, never stuck, every sample counted once.

The exporter is one that waits a second for what others wait a minute for. All shapes are sent first, several at a time,
for the server keeps most connections until it has waited in vain for another request; then each is looked at.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from e2e.conftest import Exporter, answer_of, exporters, poll
from mlexporter.serving import BODIES_AT_ONCE

PROGRAM = str(Path(__file__).parents[1] / "impatient_child.py")
HEADER_SECONDS, SILENCE_SECONDS, BODY_SECONDS = 1, 1, 3
STUCK_SECONDS = 20.0

SAMPLES = 7
BODY = json.dumps({"model": "m", "samples": [{"features": {"a": 1}}] * SAMPLES}).encode()
SIZE = len(BODY)
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (SIZE, BODY)


def request(head: bytes, body: bytes = b"") -> bytes:
    """A request; the lines of its head end as they should, unless they have a `\\r` already."""
    return re.sub(rb"(?<!\r)\n", b"\r\n", head) + b"\r\n\r\n" + body


def post(headers: bytes, body: bytes = BODY) -> bytes:
    return request(b"POST /v1/samples HTTP/1.1\nHost: x\n" + headers, body)


def get(path: bytes, headers: bytes = b"Host: x") -> bytes:
    return request(b"GET " + path + b" HTTP/1.1\n" + headers)


def chunked(body: bytes, headers: bytes = b"Transfer-Encoding: chunked") -> bytes:
    return post(headers, body)


LENGTH = b"Content-Length: %d" % SIZE
GOOD = post(LENGTH)

# Taken: answered 200 and counted, for every reader of RFC 9112 sees the same request in it.
TAKEN = {
    "a length twice": post(LENGTH + b"\n" + LENGTH),
    "a header like Content-Length": post(b"Content_Length: 3\n" + LENGTH),
    "a header like Transfer-Encoding": post(b"Transfer_Encoding: chunked\n" + LENGTH),
    "chunked, in capitals": chunked(CHUNKS, b"Transfer-Encoding:\tCHUNKED"),
    "a chunk with an extension": chunked(b'%x;a="b"\r\n%s\r\n0\r\n\r\n' % (SIZE, BODY)),
    "trailers": chunked(b"%x\r\n%s\r\n0\r\nContent-Length: 3\r\nHost: y\r\n\r\n" % (SIZE, BODY)),
    "lines before the request": b"\r\n\r\n\r\n" + GOOD,
    "lines after the request": GOOD + b"\r\n\r\n",
    "Expect: 100-continue": post(b"Expect: 100-continue\n" + LENGTH),
    "Expect: 100-continue and chunks": chunked(CHUNKS, b"Expect: 100-continue\nTransfer-Encoding: chunked"),
    "HTTP/1.0": request(b"POST /v1/samples HTTP/1.0\n" + LENGTH, BODY),
    "HTTP/1.0, kept alive": request(b"POST /v1/samples HTTP/1.0\nConnection: keep-alive\n" + LENGTH, BODY),
    "an upgrade to h2c": post(
        b"Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\n" + LENGTH
    ),
    "an absolute address": request(b"POST http://elsewhere/v1/samples HTTP/1.1\nHost: x\n" + LENGTH, BODY),
    "a path with percents": request(b"POST /v1/%73amples HTTP/1.1\nHost: x\n" + LENGTH, BODY),
    "Connection names Content-Length": post(b"Connection: close, Content-Length\n" + LENGTH),
    "headers that proxies use": post(b"X-HTTP-Method-Override: DELETE\nX-Original-URL: /-/healthy\n" + LENGTH),
}
# Taken or refused: RFC 9112 leaves it to the server; what counts is that nothing else is found in it.
TAKEN_OR_REFUSED = {
    "a length and chunks": chunked(CHUNKS, b"Content-Length: %d\nTransfer-Encoding: chunked" % len(CHUNKS)),
    "a length as a list": post(b"Content-Length: %d, %d" % (SIZE, SIZE)),
    "identity, then chunked": chunked(CHUNKS, b"Transfer-Encoding: identity, chunked"),
    "chunked and chunked": chunked(CHUNKS, b"Transfer-Encoding: chunked\nTransfer-Encoding: chunked"),
    "a space after the size of a chunk": chunked(b"%x \r\n%s\r\n0\r\n\r\n" % (SIZE, BODY)),
    "an extension of a megabyte": chunked(b"%x;%s\r\n%s\r\n0\r\n\r\n" % (SIZE, b"a" * (1 << 20), BODY)),
    "trailers of a megabyte": chunked(b"%x\r\n%s\r\n0\r\nX: %s\r\n\r\n" % (SIZE, BODY, b"y" * (1 << 20))),
    "bare line feeds": b"POST /v1/samples HTTP/1.1\nHost: x\n" + LENGTH + b"\n\n" + BODY,
    "a bare line feed within": b"POST /v1/samples HTTP/1.1\r\nX: a\n" + LENGTH + b"\r\n\r\n" + BODY,
    "no host": request(b"POST /v1/samples HTTP/1.1\n" + LENGTH, BODY),
    "two hosts": post(b"Host: y\n" + LENGTH),
    "another expectation": post(b"Expect: 200-ok\n" + LENGTH),
}
# Refused, or dropped: nothing is counted.
REFUSED = {
    "CL.TE": post(b"Content-Length: %d\nTransfer-Encoding: chunked" % (5 + len(GOOD)), b"0\r\n\r\n" + GOOD),
    "TE.CL": post(b"Content-Length: 4\nTransfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)),
    "two lengths": post(b"Content-Length: 0\n" + LENGTH),
    "two lengths, the longer first": post(LENGTH + b"\nContent-Length: 0"),
    "a length with a sign": post(b"Content-Length: +%d" % SIZE),
    "a length in hexadecimal": post(b"Content-Length: 0x%x" % SIZE),
    "a length with a space": post(b"Content-Length: 1 0"),
    "an empty length": post(b"Content-Length: "),
    "a length of 2^64": post(b"Content-Length: 18446744073709551616"),
    "xchunked": chunked(CHUNKS, b"Transfer-Encoding: xchunked"),
    "chunked, then identity": chunked(CHUNKS, b"Transfer-Encoding: chunked, identity"),
    "chunked and another": chunked(CHUNKS, b"Transfer-Encoding: chunked\nTransfer-Encoding: x"),
    "chunked in quotes": chunked(CHUNKS, b'Transfer-Encoding: "chunked"'),
    "chunked after a vertical tab": chunked(CHUNKS, b"Transfer-Encoding: \x0bchunked"),
    "chunked in a folded line": chunked(CHUNKS, b"Transfer-Encoding:\n chunked"),
    "a space before the colon": chunked(CHUNKS, b"Transfer-Encoding : chunked"),
    "chunks in HTTP/1.0": request(b"POST /v1/samples HTTP/1.0\nTransfer-Encoding: chunked", CHUNKS),
    "a chunk beyond 64 bits": chunked(b"fffffffffffffffff\r\n" + BODY),
    "a chunk of 2^64 - 1": chunked(b"ffffffffffffffff\r\n" + BODY),
    "a chunk of less than nothing": chunked(b"-1\r\n" + BODY),
    "a chunk with 0x": chunked(b"0x%x\r\n%s\r\n0\r\n\r\n" % (SIZE, BODY)),
    "a chunk that is too short": chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (SIZE - 1, BODY)),
    "chunks with bare line feeds": chunked(b"%x\n%s\n0\n\n" % (SIZE, BODY)),
    "chunks with bare carriage returns": chunked(b"%x\r%s\r0\r\r" % (SIZE, BODY)),
    "bare carriage returns": b"POST /v1/samples HTTP/1.1\rHost: x\r" + LENGTH + b"\r\r" + BODY,
    "a carriage return in a value": post(b"X: a\rContent-Length: 0\n" + LENGTH),
    "NUL in a value": post(b"X: a\0b\n" + LENGTH),
    "NUL in a name": post(b"X\0: a\n" + LENGTH),
    "NUL in the path": get(b"/\0"),
    "a header without a colon": post(b"foo\n" + LENGTH),
    "a header without a name": post(b": foo\n" + LENGTH),
    "a header that continues none": b"GET /metrics HTTP/1.1\r\n X: y\r\nHost: x\r\n\r\n",
    "Expect: 100-continue and too much": post(b"Expect: 100-continue\nContent-Length: 99999999999", b""),
    "HTTP/0.9": b"GET /metrics\r\n\r\n",
    "HTTP/1.2": request(b"GET /metrics HTTP/1.2\nHost: x"),
    "HTTP/2 by name": request(b"GET /metrics HTTP/2.0\nHost: x"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "HTTP/3 frames": b"\x00\x04\x00\x01\x01" * 20,
    "a method with a parenthesis": request(b"P(ST /v1/samples HTTP/1.1\nHost: x\n" + LENGTH, BODY),
    "no method": request(b" /v1/samples HTTP/1.1\nHost: x\n" + LENGTH, BODY),
    "spaces before the request": b"  " + GOOD,
    "a space in the path": get(b"/- /healthy"),
    "bytes that are no text in the path": get(b"/\xff\xfe"),
    "bytes that are no text in the query": get(b"/metrics?\xff"),
    "a path of a megabyte": get(b"/" + b"x" * (1 << 20)),
    "a path of 100 kilobytes": get(b"/" + b"x" * 100_000),
    "a header of a megabyte": get(b"/metrics", b"X: " + b"y" * (1 << 20)),
    "a name of 100 kilobytes": get(b"/metrics", b"X" * 100_000 + b": y"),
    "two hundred headers": get(b"/metrics", b"\n".join(b"X%d: y" % i for i in range(200))),
    "chunks of which none comes": chunked(b""),
    "half a body": GOOD[:-9],
    "half a head": GOOD[:40],
    "nothing": b"",
}
# Harmless: answered for what it is, or refused, and nothing is counted.
HARMLESS = {
    "an absolute address of another": get(b"http://a:b@elsewhere.example:99999999/-/healthy"),
    "an asterisk": request(b"OPTIONS * HTTP/1.1\nHost: x"),
    "GET of an asterisk": get(b"*"),
    "CONNECT": request(b"CONNECT x:443 HTTP/1.1\nHost: x"),
    "CONNECT to a path": request(b"CONNECT /v1/samples HTTP/1.1\nHost: x\n" + LENGTH, BODY),
    "GET of an authority": get(b"x:443"),
    "an unknown method": request(b"BREW /v1/samples HTTP/1.1\nHost: x\n" + LENGTH, BODY),
    "a long method": request(b"A" * 5000 + b" /v1/samples HTTP/1.1\nHost: x"),
    "a method in small letters": request(b"post /v1/samples HTTP/1.1\nHost: x\n" + LENGTH, BODY),
    "an unknown method of no page": request(b"PURGE /nowhere HTTP/1.1\nHost: x"),
    "GET with a body that is a request": get(b"/-/healthy", b"Host: x\nContent-Length: %d" % len(GOOD)) + GOOD,
    "GET with chunks": get(b"/metrics", b"Host: x\nTransfer-Encoding: chunked") + CHUNKS,
    "percents that are none": get(b"/%zz%1"),
    "a percent for NUL": get(b"/%00"),
    "percents that are no text": get(b"/api/v1/models/%ff%00/versions/%zz/baseline"),
    "percents for half a surrogate pair": get(b"/api/v1/models/%ed%a0%80/versions/7/drift"),
    "bytes that are text in the path": get("/ä".encode()),
    "the way up": get(b"/../../etc/passwd"),
    "two slashes": get(b"//metrics"),
    "a query of 60 kilobytes": get(b"/metrics?" + b"x" * 60_000),
    "a query of 10,000 fields": get(b"/api/v1/status?" + b"a=b&" * 10_000),
    "a query with broken percents": get(b"/?%ff=%zz&=&&%00"),
    "a fragment": get(b"/-/healthy#x"),
    "an upgrade to a web socket": get(
        b"/metrics",
        b"Host: x\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "a range": get(b"/metrics", b"Host: x\nRange: bytes=0-5,1-2,-9999999999999999999\nIf-None-Match: *"),
    "Accept that is no text": get(b"/metrics", b"Host: x\nAccept: application/openmetrics-text;q=\xff\xfe"),
    "Accept of 50 kilobytes": get(b"/metrics", b"Host: x\nAccept: " + b"text/*;q=0.1," * 4000),
    "Accept-Encoding of 50 kilobytes": get(b"/metrics", b"Host: x\nAccept-Encoding: " + b"gzip;q=,;=0," * 4000),
    "ninety headers": get(b"/-/healthy", b"\n".join(b"X%d: y" % i for i in range(90))),
    "a host that is none": get(b"/", b"Host: a b/?#@\\"),
    "credentials that are none": get(b"/-/healthy", b"Host: x\nAuthorization: Basic \xff:\nCookie: " + b"a=;" * 5000),
}
TRACED = request(b"TRACE /metrics HTTP/1.1\nHost: x\nAuthorization: Bearer secret-of-who-asks")
HEADS = {
    "HEAD": request(b"HEAD /metrics HTTP/1.1\nHost: x\nConnection: close"),
    "HEAD with a body": request(b"HEAD /v1/samples HTTP/1.1\nHost: x\nConnection: close\n" + LENGTH, BODY),
    "HEAD with a body that is a request": request(
        b"HEAD /-/healthy HTTP/1.1\nHost: x\nConnection: close\nContent-Length: %d" % len(GOOD), GOOD
    ),
}
PIPELINED = {
    "garbage after a request": (GOOD + b"\x00\x01garbage\r\n\r\n", [200, 400]),
    "half a request after a request": (GOOD + GOOD[:50], [200]),
    "refused ones between": ((GOOD + post(b"Content-Length: 2", b"{}")) * 5, [200, 400] * 5),
    "nothing after one that ends the connection": (post(b"Connection: close\n" + LENGTH) + GOOD * 3, [200]),
    "nothing after a length that is none": (GOOD + post(b"Content-Length: x") + GOOD * 3, [200, 400]),
    "nothing after a length and chunks": (TAKEN_OR_REFUSED["a length and chunks"] + GOOD * 3, [200]),
    "nothing after broken chunks": (chunked(b"zz\r\n") + GOOD * 3, [400]),
}
SENT = (
    TAKEN | TAKEN_OR_REFUSED | REFUSED | HARMLESS | HEADS | {"TRACE": TRACED}
    | {name: sent for name, (sent, _) in PIPELINED.items()}
)  # fmt: skip


class Answered(msgspec.Struct):
    """An answer: its code, and its body."""

    code: int
    head: bytes
    body: bytes


def answers_in(data: bytes, *, to_head: bool) -> list[Answered]:
    """All answers but the interim ones; data that is no whole answer is a failure."""
    found = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        code = re.match(rb"HTTP/1\.[01] (\d{3})", head)
        assert end, data[:200]
        assert code, data[:200]
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        size = int(length[1]) if length and not to_head else 0
        assert len(rest) >= size, data[:200]
        if code[1] != b"100":
            found.append(Answered(int(code[1]), head, rest[:size]))
        data = rest[size:]
    return found


def exchange(exporter: Exporter, sent: bytes) -> bytes | None:
    """What came back until the server closed the connection; None where it never did."""
    with exporter.connect(STUCK_SECONDS) as connection:
        data = b""
        try:
            connection.sendall(sent)
            while part := connection.recv(1 << 16):
                data += part
        except (ConnectionResetError, BrokenPipeError):
            pass  # dropped, with or without an answer
        except TimeoutError:
            return None
    return data


class Seen(msgspec.Struct):
    """What became of everything that was sent, and how many samples the exporter has counted then."""

    exporter: Exporter
    answers: dict[str, bytes | None]
    counted: float


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    seconds = map(str, (HEADER_SECONDS, SILENCE_SECONDS, BODY_SECONDS))
    with exporters(tmp_path_factory.mktemp("hostile")) as start:
        yield start(program=(PROGRAM, *seconds))


@pytest.fixture(scope="module")
def seen(exporter: Exporter) -> Seen:
    with ThreadPoolExecutor(16) as clients:
        running = {name: clients.submit(exchange, exporter, sent) for name, sent in SENT.items()}
    answers = {name: each.result() for name, each in running.items()}
    return Seen(exporter, answers, exporter.total("mlexporter_samples_total", model="m"))


def answers_to(seen: Seen, case: str) -> list[Answered]:
    data = seen.answers[case]
    assert data is not None, "neither answered nor dropped"
    return answers_in(data, to_head=case in HEADS)


def accepted(answer: Answered) -> int:
    if answer.code != 200 or not answer.body.startswith(b"{"):
        return 0
    number: int = json.loads(answer.body).get("accepted", 0)
    return number


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_meant_well_is_taken(seen: Seen, case: str) -> None:
    assert [(each.code, accepted(each)) for each in answers_to(seen, case)] == [(200, SAMPLES)]


@pytest.mark.parametrize("case", TAKEN_OR_REFUSED)
def test_what_may_be_taken_is_taken_once_or_refused(seen: Seen, case: str) -> None:
    answers = answers_to(seen, case)
    assert len(answers) <= 1
    for each in answers:
        assert (each.code, accepted(each)) == (200, SAMPLES) or 400 <= each.code < 500


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused(seen: Seen, case: str) -> None:
    answers = answers_to(seen, case)
    assert len(answers) <= 1
    for each in answers:
        assert 400 <= each.code < 500


@pytest.mark.parametrize("case", HARMLESS)
def test_what_is_odd_is_answered_for_what_it_is(seen: Seen, case: str) -> None:
    answers = answers_to(seen, case)
    has_body = BODY in HARMLESS[case]
    # a connection that is closed before all was read is reset, which may take the answer with it
    assert len(answers) == 1 or (has_body and not answers)
    for each in answers:
        assert each.code in (200, 308, 400, 404, 405, 414, 431)
        assert accepted(each) == 0
        assert b"Traceback" not in each.body
        assert b"\xff" not in each.head


def test_what_is_sent_is_not_given_back(seen: Seen) -> None:
    """TRACE of other servers lets a script read what it may not see."""
    (answer,) = answers_to(seen, "TRACE")
    assert answer.code == 405
    assert b"secret-of-who-asks" not in answer.head + answer.body


@pytest.mark.parametrize("case", HEADS)
def test_an_answer_to_head_has_no_body(seen: Seen, case: str) -> None:
    (answer,) = answers_to(seen, case)
    assert answer.code == (405 if case == "HEAD with a body" else 200)
    assert int(re.search(rb"(?i)content-length: *(\d+)", answer.head)[1]) > 0  # type: ignore[index]


@pytest.mark.parametrize("case", PIPELINED)
def test_requests_in_a_row(seen: Seen, case: str) -> None:
    answers = answers_to(seen, case)
    assert [each.code for each in answers] == PIPELINED[case][1]
    assert {accepted(each) for each in answers if each.code == 200} == {SAMPLES} - (
        {SAMPLES} if PIPELINED[case][1] == [400] else set()
    )


def test_what_was_answered_200_was_counted_and_nothing_else(seen: Seen) -> None:
    answered = sum(
        accepted(each)
        for case, data in seen.answers.items()
        if data
        for each in answers_in(data, to_head=case in HEADS)
    )
    assert seen.counted == answered
    assert answered >= SAMPLES * len(TAKEN)


# -- clients that take their time -------------------------------------------------------------------------------------


class Drops(threading.Thread):
    """Sends a byte at a time, never silent for long, until the server has enough of it."""

    def __init__(self, exporter: Exporter, begin: bytes, drop: bytes) -> None:
        super().__init__()
        self._exporter = exporter
        self._begin = begin
        self._drop = drop
        self.answer = b""
        self.seconds = 0.0

    def run(self) -> None:
        start = time.monotonic()
        with self._exporter.connect(STUCK_SECONDS) as connection:
            try:
                connection.sendall(self._begin)
                connection.settimeout(SILENCE_SECONDS / 10)
                while time.monotonic() < start + STUCK_SECONDS:
                    connection.sendall(self._drop)
                    try:
                        self.answer = answer_of(connection)
                        break
                    except TimeoutError:
                        continue
            except (ConnectionResetError, BrokenPipeError):
                pass
        self.seconds = time.monotonic() - start


def test_headers_that_come_drop_by_drop(exporter: Exporter) -> None:
    clients = [Drops(exporter, b"GET /metrics HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n") for _ in range(30)]
    for client in clients:
        client.start()
    assert exporter.get("/metrics").status_code == 200
    assert exporter.post(BODY).json()["accepted"] == SAMPLES
    for client in clients:
        client.join()
        assert client.seconds < STUCK_SECONDS
        assert not client.answer or client.answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize("form", ["a length", "chunks"])
def test_bodies_that_come_drop_by_drop(exporter: Exporter, form: str) -> None:
    """They take every place for bodies, but not for ever; lines that came do not count, for more should have come."""
    counted = exporter.total("mlexporter_samples_total")
    line = b'{"model":"drops","features":{"a":1}}\n'
    lines = b"Content-Type: application/x-ndjson\n"
    if form == "a length":
        begin, drop = post(lines + b"Content-Length: 100000", line), b"\n"
    else:
        begin, drop = (
            chunked(b"%x\r\n%s\r\n" % (len(line), line), lines + b"Transfer-Encoding: chunked"),
            b"1\r\n\n\r\n",
        )
    clients = [Drops(exporter, begin, drop) for _ in range(BODIES_AT_ONCE)]
    for client in clients:
        client.start()
    assert exporter.get("/metrics").status_code == 200
    assert exporter.get("/-/ready").status_code == 200
    for client in clients:
        client.join()
        assert client.seconds < STUCK_SECONDS
        assert client.answer.startswith(b"HTTP/1.1 408"), client.answer
    poll(lambda: exporter.post(BODY).status_code == 200, STUCK_SECONDS)
    assert exporter.total("mlexporter_samples_total") == counted + SAMPLES


def test_a_client_that_asks_and_never_reads(exporter: Exporter) -> None:
    """Requests in a row are answered one after the other: answers do not pile up in memory."""
    before = exporter.memory()
    with exporter.connect() as connection:
        connection.setblocking(False)
        page = get(b"/metrics") * 100
        for _ in range(50):
            try:
                connection.send(page)
            except BlockingIOError:
                break
        for _ in range(5):
            assert exporter.get("/metrics").status_code == 200
            assert exporter.post(BODY).json()["accepted"] == SAMPLES
        assert exporter.memory() < before + 20


def test_half_closed_connections(exporter: Exporter) -> None:
    for sent in (GOOD, GOOD[:-1], GOOD[:30], chunked(CHUNKS), chunked(CHUNKS[:-5]), b""):
        with exporter.connect(STUCK_SECONDS) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):  # a time-out here is a connection that is stuck
                pass


def test_nothing_is_left_of_all_that(exporter: Exporter) -> None:
    open_files = Path(f"/proc/{exporter.process.pid}/fd")
    poll(lambda: len(list(open_files.iterdir())) < 30, STUCK_SECONDS)
    counted = exporter.total("mlexporter_samples_total")
    assert exporter.post(BODY).json()["accepted"] == SAMPLES
    assert exporter.total("mlexporter_samples_total") == counted + SAMPLES
    code, seconds = exporter.stop()
    assert code == 0
    assert seconds < 5
