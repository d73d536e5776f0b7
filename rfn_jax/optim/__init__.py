"""Sharpness-aware minimisers as optax gradient transformations."""

from rfn_jax.optim.minimisers import MINIMISERS, momentum_sgd
from rfn_jax.optim.sam import RfnSamState, rfn_sam
from rfn_jax.optim.schedules import step_decay

__all__ = ['MINIMISERS', 'RfnSamState', 'momentum_sgd', 'rfn_sam', 'step_decay']
