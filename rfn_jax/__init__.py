"""Transferable adversarial examples from surrogates trained in large flat neighbourhoods (RFN / l-SAM)."""

from rfn_jax import attacks, data, models, optim, training, transfer
from rfn_jax.models import Classifier
from rfn_jax.optim import rfn_sam

__version__ = '0.1.0'
__all__ = ['Classifier', 'attacks', 'data', 'models', 'optim', 'rfn_sam', 'training', 'transfer']
