"""Benchmarks: how fast training and attacks are on the devices at hand, on synthetic images."""

from rfn_jax.bench.hardware import PRECISIONS, peak_flops
from rfn_jax.bench.programs import Program, attack_program, training_program
from rfn_jax.bench.results import Row, compare, read, tables, write
from rfn_jax.bench.rounds import calibrate, interleaved, once
from rfn_jax.bench.suite import ATTACKS, MINIMIZERS, Suite, run

__all__ = [
    'ATTACKS', 'MINIMIZERS', 'PRECISIONS', 'Program', 'Row', 'Suite', 'attack_program', 'calibrate', 'compare',
    'interleaved', 'once', 'peak_flops', 'read', 'run', 'tables', 'training_program', 'write',
]  # fmt: skip
