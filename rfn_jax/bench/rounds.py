"""Timing of whole calls in interleaved rounds, so that a temporary slowdown of the machine affects all programs alike."""

import time
from collections.abc import Sequence

from rfn_jax.bench import programs as programs_lib


def calibrate(program: programs_lib.Program, seconds: float) -> int:
    """Warms up a program and returns how many calls take about `seconds`, as a multiple of its period."""
    time_calls(program, program.period)
    periods = round(seconds / (time_calls(program, program.period) * program.period))
    return program.period * max(1, periods)


def time_calls(program: programs_lib.Program, calls: int) -> float:
    """Returns the seconds per call: the mean over several calls that follow each other without waiting."""
    start = time.perf_counter()
    for _ in range(calls):
        program.start()
    program.wait()
    return (time.perf_counter() - start) / calls


def time_interleaved(programs: Sequence[programs_lib.Program], *, rounds: int, seconds: float) -> list[list[float]]:
    """Returns the seconds per call of each program in each of several rounds.

    Args:
      programs: The programs; each round times them one after the other, every second round in reverse order.
      rounds: Number of rounds, at least 1.
      seconds: Approximate duration of a round of one program.

    Returns:
      For each program, its times, one per round.
    """
    calls = [calibrate(program, seconds) for program in programs]
    times: list[list[float]] = [[] for _ in programs]
    for number in range(rounds):
        order = range(len(programs)) if number % 2 == 0 else reversed(range(len(programs)))
        for index in order:
            times[index].append(time_calls(programs[index], calls[index]))
    return times
