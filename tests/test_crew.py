"""One thread at work, the others ready: with real threads, whose steps are forced by events."""

import threading
from collections.abc import Callable

import pytest

from mlexporter.crew import Crew, Member

DEADLINE = 10.0


class Thread:
    """A thread of the server that serves one request, and says where it is."""

    def __init__(self, crew: Crew, request: Callable[[], None] = lambda: None) -> None:
        self.served, self.back = threading.Event(), threading.Event()
        self.member: Member | None = None
        self._crew, self._request = crew, request
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.member = self._crew.arrive()
        self._request()
        self.served.set()
        self._crew.rest(self.member)
        self.back.set()


def test_the_only_thread_never_rests() -> None:
    crew = Crew()
    for _ in range(3):
        crew.rest(crew.arrive())


@pytest.fixture
def crew() -> Crew:
    """A crew at whose work the test's own thread is."""
    crew = Crew()
    crew.arrive()
    return crew


def resting(crew: Crew) -> Thread:
    other = Thread(crew)
    assert other.served.wait(DEADLINE)
    assert not other.back.wait(0.05)
    return other


def test_a_surplus_thread_rests_after_its_first_request_and_goes_on_for_one_that_is_held_up(crew: Crew) -> None:
    other = resting(crew)
    with crew.held_up():
        assert other.back.wait(DEADLINE)
    me = crew.member()
    assert me is not None
    assert me.working


def test_one_thread_is_woken_at_a_time(crew: Crew) -> None:
    others = [resting(crew) for _ in range(3)]
    with crew.held_up():
        woken = [other for other in others if other.back.wait(0.2)]
        assert len(woken) == 1
    crew.dismiss()
    assert all(other.back.wait(DEADLINE) for other in others)


def test_who_is_relieved_by_the_watcher_comes_back(crew: Crew) -> None:
    other, me = resting(crew), crew.member()
    assert me is not None
    crew.relieve(me)
    crew.relieve(me)  # once is enough
    assert other.back.wait(DEADLINE)
    crew.come_back(me)
    third = resting(crew)  # two are at work: a third one rests
    crew.dismiss()
    assert third.back.wait(DEADLINE)


def test_an_error_while_held_up_does_not_lose_the_thread(crew: Crew) -> None:
    with pytest.raises(OSError, match="reset"), crew.held_up():
        raise OSError("reset")
    me = crew.member()
    assert me is not None
    assert me.working
    resting(crew)


def test_nobody_rests_after_the_end(crew: Crew) -> None:
    first = resting(crew)
    crew.dismiss()
    assert first.back.wait(DEADLINE)
    assert Thread(crew).back.wait(DEADLINE)


def test_a_thread_that_is_not_of_the_crew_is_left_alone() -> None:
    crew = Crew()
    assert crew.member() is None
    with crew.held_up():
        pass
    assert crew.member() is None
