"""Benchmarks: the speed of training and attacks on the available devices, with synthetic images."""

from rfn_jax.bench.hardware import PRECISIONS, peak_flops
from rfn_jax.bench.programs import Program, attack_program, training_program
from rfn_jax.bench.results import Row, compare, read, tables, write
from rfn_jax.bench.rounds import calibrate, time_calls, time_interleaved
from rfn_jax.bench.suite import ATTACKS, MINIMIZERS, Suite, run

__all__ = [
    'ATTACKS', 'MINIMIZERS', 'PRECISIONS', 'Program', 'Row', 'Suite', 'attack_program', 'calibrate', 'compare',
    'peak_flops', 'read', 'run', 'tables', 'time_calls', 'time_interleaved', 'training_program', 'write',
]  # fmt: skip
