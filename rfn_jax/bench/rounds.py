"""Timing: whole calls in rounds, interleaved, so that what slows the machine for a while slows all alike."""

import time
from collections.abc import Sequence

from rfn_jax.bench import programs as programs_lib


def calibrate(program: programs_lib.Program, seconds: float) -> int:
    """How many calls take about `seconds`, a multiple of the program's period, after a warm-up."""
    once(program, program.period)
    periods = round(seconds / (once(program, program.period) * program.period))
    return program.period * max(1, periods)


def once(program: programs_lib.Program, calls: int) -> float:
    """The seconds of one call: the mean of several that follow each other without waiting."""
    start = time.perf_counter()
    for _ in range(calls):
        program.start()
    program.wait()
    return (time.perf_counter() - start) / calls


def interleaved(programs: Sequence[programs_lib.Program], *, rounds: int, seconds: float) -> list[list[float]]:
    """Seconds of a call of each program, in each of several rounds.

    Args:
      programs: The programs; each round times one after the other, every second round in reverse order.
      rounds: Number of rounds, at least 1.
      seconds: About how long a round of one program takes.

    Returns:
      For each program its times, one a round.
    """
    calls = [calibrate(program, seconds) for program in programs]
    times: list[list[float]] = [[] for _ in programs]
    for number in range(rounds):
        order = range(len(programs)) if number % 2 == 0 else reversed(range(len(programs)))
        for index in order:
            times[index].append(once(programs[index], calls[index]))
    return times
