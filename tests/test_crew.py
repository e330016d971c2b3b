"""One thread at work, the others ready: with real threads, whose steps are forced by events."""

import threading
from collections.abc import Callable

import pytest

from conftest import Clock
from mlexporter.crew import Crew

DEADLINE = 10.0


class Thread:
    """A thread of the server that serves one request, and says where it is."""

    def __init__(self, crew: Crew, request: Callable[[], None] = lambda: None, *, rest: bool = True) -> None:
        self.served, self.back = threading.Event(), threading.Event()
        self._crew, self._request, self._rest = crew, request, rest
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._crew.arrive()
        self._request()
        self.served.set()
        self._crew.depart(rest=self._rest)
        self.back.set()


def test_the_only_thread_never_rests() -> None:
    crew = Crew()
    for _ in range(3):
        crew.arrive()
        crew.depart()


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def crew(clock: Clock) -> Crew:
    """A crew at whose work the test's own thread is."""
    crew = Crew(clock)
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


def test_who_was_held_up_rests_while_another_is_at_work(crew: Crew) -> None:
    other = resting(crew)
    held, go = threading.Event(), threading.Event()

    def request() -> None:
        with crew.held_up():
            held.set()
            assert go.wait(DEADLINE)

    third = Thread(crew, request)
    assert held.wait(DEADLINE)
    go.set()
    assert third.served.wait(DEADLINE)
    assert not third.back.wait(0.05)
    assert not other.back.is_set()  # this thread was at work all the time
    crew.dismiss()
    assert third.back.wait(DEADLINE)


def test_one_thread_is_woken_at_a_time(crew: Crew) -> None:
    others = [resting(crew) for _ in range(3)]
    with crew.held_up():
        assert len([other for other in others if other.back.wait(0.2)]) == 1
    crew.dismiss()
    assert all(other.back.wait(DEADLINE) for other in others)


def test_two_work_at_once_where_they_may(crew: Crew) -> None:
    others = [resting(crew) for _ in range(3)]
    crew.let_work(2)
    woken = [other for other in others if other.back.wait(0.2)]
    assert len(woken) == 1
    crew.depart()  # nor does this thread rest, for two may be at work
    crew.let_work(1)
    surplus = resting(crew)
    crew.dismiss()
    assert all(other.back.wait(DEADLINE) for other in (*others, surplus))


def test_servers_that_take_over_have_as_many_at_work(crew: Crew) -> None:
    crew.let_work(2)
    other = crew.another()
    assert [Thread(other).back.wait(DEADLINE) for _ in range(2)] == [True, True]
    resting(other)


def test_a_request_that_takes_long_is_no_reason_for_others_to_wait(crew: Crew, clock: Clock) -> None:
    other = resting(crew)
    clock.now += 0.09
    crew.relieve_late()
    assert not other.back.wait(0.05)
    clock.now += 0.02
    crew.relieve_late()
    assert other.back.wait(DEADLINE)
    third = resting(crew)  # the one that was woken is at work
    crew.relieve_late()
    assert not third.back.wait(0.05)  # for it has no request yet that could take long


def test_a_thread_between_requests_is_not_late(crew: Crew, clock: Clock) -> None:
    crew.depart()
    other = resting(crew)
    clock.now += 1000.0
    crew.relieve_late()
    assert not other.back.wait(0.05)


def test_who_must_not_rest_does_not(crew: Crew) -> None:
    assert Thread(crew, rest=False).back.wait(DEADLINE)


def test_an_error_while_held_up_does_not_lose_the_thread(crew: Crew) -> None:
    with pytest.raises(OSError, match="reset"), crew.held_up():
        raise OSError("reset")
    crew.depart()
    resting(crew)


def test_nobody_rests_after_the_end(crew: Crew) -> None:
    first = resting(crew)
    crew.dismiss()
    assert first.back.wait(DEADLINE)
    assert Thread(crew).back.wait(DEADLINE)


def test_a_thread_that_is_not_of_the_crew_is_left_alone() -> None:
    with Crew().held_up():
        pass


def test_requests_are_numbered_as_they_are_taken_on(crew: Crew) -> None:
    assert (crew.number, crew.taken_on) == (1, 1)
    other = crew.another()
    assert Thread(other).back.wait(DEADLINE)
    assert (crew.number, crew.taken_on) == (1, 2)
    crew.depart()
    crew.arrive()
    assert (crew.number, crew.taken_on) == (3, 3)
    numbers: list[int] = []
    stranger = threading.Thread(target=lambda: numbers.append(crew.number))
    stranger.start()
    stranger.join(DEADLINE)
    assert numbers == [0]


def test_watching_ends_when_it_is_stopped() -> None:
    crew = Crew()
    thread = threading.Thread(target=crew.watch)
    thread.start()
    crew.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_crews_of_two_servers_know_nothing_of_each_other(crew: Crew) -> None:
    """One at work in each: whose server gets no more requests keeps nobody of the other from work."""
    other = crew.another()
    thread = Thread(other)
    assert thread.back.wait(DEADLINE)  # the only one of its crew does not rest, although one of the first is at work
    ours = resting(crew)
    theirs = resting(other)
    with crew.held_up():
        assert ours.back.wait(DEADLINE)
    assert not theirs.back.is_set()


def test_a_thread_that_is_held_up_is_relieved_in_its_own_crew(crew: Crew) -> None:
    other = crew.another()
    wait, reached = threading.Event(), threading.Event()

    def request() -> None:
        with crew.held_up():  # who reads bodies knows the first crew only
            reached.set()
            assert wait.wait(DEADLINE)

    held = Thread(other, request)
    assert reached.wait(DEADLINE)
    assert Thread(other).back.wait(DEADLINE)  # at work in its place
    ours = resting(crew)
    wait.set()
    assert held.served.wait(DEADLINE)
    assert not ours.back.is_set()
    crew.dismiss()
    other.dismiss()


def test_late_requests_are_relieved_in_every_crew(crew: Crew, clock: Clock) -> None:
    other = crew.another()
    wait, reached = threading.Event(), threading.Event()

    def request() -> None:
        reached.set()
        assert wait.wait(DEADLINE)

    late = Thread(other, request)
    assert reached.wait(DEADLINE)
    second = resting(other)
    clock.now += 1.0
    crew.relieve_late()
    assert second.back.wait(DEADLINE)
    wait.set()
    assert late.served.wait(DEADLINE)
    crew.disband(other)
    assert late.back.wait(DEADLINE)


def work(crew: Crew, clock: Clock, seconds: float, *, rest: bool = True) -> None:
    crew.arrive()
    clock.now += seconds
    crew.depart(rest=rest)


def test_how_long_a_request_takes_is_the_mean_but_for_the_longest(clock: Clock) -> None:
    crew = Crew(clock)
    assert crew.seconds_each == 0.0
    for _ in range(2):
        work(crew, clock, 9.0)
    assert crew.seconds_each == pytest.approx(9.0)
    for seconds in range(1, 33):
        work(crew, clock, float(seconds))
    assert crew.seconds_each == pytest.approx(16.0)  # 1 to 31


def test_what_is_refused_or_waits_for_others_does_not_count_in_how_long_a_request_takes(clock: Clock) -> None:
    crew = Crew(clock)
    for _ in range(32):
        work(crew, clock, 1.0)
    for _ in range(32):
        work(crew, clock, 0.1, rest=False)
        crew.arrive()
        with crew.held_up():
            clock.now += 5.0
        crew.depart()
    assert crew.seconds_each == pytest.approx(1.0)


def test_crews_that_take_over_know_how_long_a_request_takes(clock: Clock) -> None:
    crew = Crew(clock)
    for _ in range(32):
        work(crew, clock, 1.0)
    another = crew.another()
    assert another.seconds_each == pytest.approx(1.0)
    for _ in range(32):
        work(another, clock, 2.0)
    assert crew.seconds_each == pytest.approx(2.0)
