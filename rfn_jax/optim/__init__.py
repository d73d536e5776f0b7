"""Sharpness-aware minimizers and weight averages as optax gradient transformations."""

from rfn_jax.optim.asam import asam, rfn_asam
from rfn_jax.optim.ascent import SamState
from rfn_jax.optim.averages import AverageState, average_params, ema, swa
from rfn_jax.optim.diagnostics import diagnostics
from rfn_jax.optim.esam import esam, kept_examples, rfn_esam
from rfn_jax.optim.friendly_sam import FriendlySamState, friendly_sam, rfn_friendly_sam
from rfn_jax.optim.groups import merged_state, state_change
from rfn_jax.optim.gsam import gsam, rfn_gsam
from rfn_jax.optim.looksam import LookSamState, looksam, rfn_looksam
from rfn_jax.optim.masks import MASKS, no_biases, no_normalization, only_normalization
from rfn_jax.optim.minimizers import MINIMIZERS, momentum_sgd
from rfn_jax.optim.optimizer import Optimizer, OptimizerState
from rfn_jax.optim.random_sam import random_sam
from rfn_jax.optim.sam import rfn_sam, sam
from rfn_jax.optim.schedules import rho_with_learning_rate, step_decay

__all__ = [
    'MASKS', 'MINIMIZERS', 'AverageState', 'FriendlySamState', 'LookSamState', 'Optimizer', 'OptimizerState',
    'SamState', 'asam', 'average_params', 'diagnostics', 'ema', 'esam', 'friendly_sam', 'gsam', 'kept_examples',
    'looksam', 'merged_state', 'momentum_sgd', 'no_biases', 'no_normalization', 'only_normalization', 'random_sam',
    'rfn_asam', 'rfn_esam', 'rfn_friendly_sam', 'rfn_gsam', 'rfn_looksam', 'rfn_sam', 'rho_with_learning_rate', 'sam',
    'state_change', 'step_decay', 'swa',
]  # fmt: skip
