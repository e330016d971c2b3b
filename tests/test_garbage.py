"""Nothing that happens often leaves objects that only the garbage collector can free.

It comes by seldom, so that it costs little (see `memory.tune`), and what a ring of objects holds stays until
then: that of a request holds its body and all that was made of it.
"""

import gc
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crowd import World
from joining import running

SAMPLE = {"features": {"x": 1.5}, "prediction": 0.5}
ONE = {"model": "m", "version": "1"}
NUMBERS = itertools.count()
ROUNDS = 5


def samples(world: World, body: object, code: int = 200, media_type: str = "application/json") -> None:
    assert world.call("POST", "/v1/samples", body, media_type)[0] == code


def lines(*lines: str) -> bytes:
    return "\n".join(lines).encode()


def labels(world: World) -> None:
    name = f"r{next(NUMBERS)}"
    samples(world, ONE | SAMPLE | {"id": name})
    for label in (0, 1):
        assert world.call("POST", "/v1/labels", {"model": "m", "id": name, "label": label})[0] == 200


def tick(world: World) -> None:
    samples(world, ONE | SAMPLE)
    world.store.tick()


LINE = json.dumps(ONE | SAMPLE)
NDJSON = "application/x-ndjson"
WORK: dict[str, Callable[[World], Any]] = {
    "one sample": lambda world: samples(world, ONE | SAMPLE),
    "rows": lambda world: samples(world, ONE | {"samples": [SAMPLE] * 5}),
    "rows, some bad": lambda world: samples(world, ONE | {"samples": [SAMPLE, "x", SAMPLE | {"latency_seconds": -1}]}),
    "columns": lambda world: samples(world, ONE | {"columns": {"features": {"x": [1.5, None, "text"]}}}),
    "lines": lambda world: samples(world, lines(LINE, LINE), media_type=NDJSON),
    "lines, the last one broken": lambda world: samples(world, lines(LINE, '{"model'), media_type=NDJSON),
    "lines, the first one broken": lambda world: samples(world, lines("}", LINE), media_type=NDJSON),
    "lines, one with no name": lambda world: samples(world, lines(LINE, '{"model": 1}'), media_type=NDJSON),
    "no JSON": lambda world: samples(world, b"{", 400),
    "deep JSON": lambda world: samples(world, b"[" * 5000, 400),
    "NaN and no JSON": lambda world: samples(world, b'{"a": NaN', 400),
    "broken gzip": lambda world: samples(world, b"\x1f\x8b\x08 no more", 400),
    "unequal columns": lambda world: samples(world, {"columns": {"features": {"x": [1], "y": []}}}, 400),
    "another media type": lambda world: samples(world, b"a=1", 415, "text/csv"),
    "a version too many": lambda world: [
        world.call("POST", "/v1/samples", SAMPLE | {"model": "m", "version": str(i)}) for i in range(9)
    ],
    "labels": labels,
    "a label of nobody": lambda world: world.call("POST", "/v1/labels", {"model": "?", "id": "x", "label": 1}),
    "a label that is none": lambda world: world.call("POST", "/v1/labels", {"model": "m", "id": "x", "label": None}),
    "a page": World.page,
    "a tick": tick,
    "a write of the state": lambda world: world.saver.save(),
}


@pytest.mark.parametrize("kind", WORK)
def test_nothing_is_left_for_the_garbage_collector(tmp_path: Path, kind: str) -> None:
    world = World(tmp_path)
    with running(world.joiner):
        WORK[kind](world)
        gc.collect()
        gc.disable()
        try:
            for _ in range(ROUNDS):
                WORK[kind](world)
            assert gc.collect() == 0
        finally:
            gc.enable()
