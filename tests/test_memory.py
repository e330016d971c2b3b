"""What a process that serves for months gives back to the system."""

import gc
import subprocess
import sys
import weakref

from mlexporter import memory

COMMON = """
import os
from mlexporter import memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
memory.tune()
"""
LARGE_AND_SMALL = """
before, kept = resident(), []
for _ in range(8):
    large = b"x" * (12 << 20)
    kept.append(bytes(3000))
    del large
    kept.append(b"y" * 3000)
print(resident() - before)
"""
# 20 MB of blocks, the last of which lives on: the heap of the C library cannot shrink from its end
HOLES = """
blocks = [bytes(10_000) for _ in range(2000)]
before = resident()
last = blocks.pop()
blocks.clear()
freed = resident()
memory.give_back()
print(before - freed, before - resident())
"""


def run(code: str) -> list[int]:
    found = subprocess.run([sys.executable, "-c", COMMON + code], capture_output=True, check=True, timeout=60)
    return [int(word) for word in found.stdout.split()]


def test_large_bodies_give_back_their_memory() -> None:
    """Also where something small was kept meanwhile: else 12 MB stay."""
    assert run(LARGE_AND_SMALL)[0] < 4 << 20


def test_room_between_what_lives_is_given_back() -> None:
    freed, given_back = run(HOLES)
    assert freed < 2 << 20
    assert given_back > 18 << 20


def test_what_died_in_a_cycle_is_freed() -> None:
    class Knot:
        itself: "Knot"

    gc.disable()
    try:
        knot = Knot()
        knot.itself, left = knot, weakref.ref(knot)
        del knot
        assert left() is not None
        memory.give_back()
    finally:
        gc.enable()
    assert left() is None
