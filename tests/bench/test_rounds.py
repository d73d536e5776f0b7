import itertools

import pytest

from rfn_jax import bench


class Clock:
    """A clock that the programs advance."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr('time.perf_counter', lambda: self.now)

    def program(self, name, seconds, *, period=1):
        """A program whose calls take `seconds`, the last of a period three times as long; `wait` lets this time pass."""
        pending, number = [], itertools.count(1)

        def start():
            self.calls.append(name)
            pending.append(3 * seconds if period > 1 and next(number) % period == 0 else seconds)

        def wait():
            self.now += sum(pending)
            pending.clear()

        return bench.Program(
            start=start, wait=wait, steps=1, batch_size=1, model_flops=1, compile_s=0, memory_bytes=0, period=period
        )


def test_calls_fill_the_time_of_a_round_in_whole_periods(monkeypatch):
    clock = Clock(monkeypatch)
    assert bench.calibrate(clock.program('a', 0.1), 0.5) == 5
    assert bench.calibrate(clock.program('a', 2.0), 0.5) == 1
    # Calls of 0.1, 0.1 and 0.3: a period takes 0.5.
    assert bench.calibrate(clock.program('a', 0.1, period=3), 1.0) == 6
    assert bench.calibrate(clock.program('a', 9.0, period=3), 1.0) == 3


def test_rounds_alternate_in_order_and_give_the_mean_time_of_a_call(monkeypatch):
    clock = Clock(monkeypatch)
    programs = [clock.program('a', 0.5), clock.program('b', 0.25, period=2)]
    times = bench.time_interleaved(programs, rounds=3, seconds=0.5)
    assert times == [[0.5] * 3, [pytest.approx(0.5)] * 3]
    assert [name for name, _ in itertools.groupby(clock.calls[-9:])] == ['a', 'b', 'a', 'b']
    assert clock.calls[-9:] == ['a', 'b', 'b', 'b', 'b', 'a', 'a', 'b', 'b']
